"""TRL's batches, scored with shared prefixes: from padded rows and pixels to packed groups, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch

from mllm.training.engine import attention, cost_model, shared_prefix
from mllm.training.engine.shared_prefix import Image

UNKNOWN = ("pixel_attention_mask", "spatial_shapes", "image_sizes", "token_type_ids", "image_position_ids")
"""Image arguments of families that were not tested; a batch with one of them goes the stock way."""


@dataclass(frozen=True)
class Images:
    """The images of a batch as TRL holds them, once for each completion, and where each completion's begin."""

    pixel_values: torch.Tensor | None = None
    grids: torch.Tensor | None = None
    pixel_bounds: tuple[int, ...] = ()
    image_bounds: tuple[int, ...] = ()

    @classmethod
    def read(cls, forward: dict[str, Any]) -> Images:
        """Read TRL's keyword arguments."""
        pixels, grids, counts = (forward.get(name) for name in ("pixel_values", "image_grid_thw", "num_images"))
        if pixels is None or counts is None:
            return cls()
        images = (0, *accumulate(counts))
        if grids is not None:
            blocks = (0, *accumulate(grids.prod(-1).tolist()))
            return cls(pixels, grids, tuple(blocks[k] for k in images), images)
        return cls(pixels, None, (0, *accumulate(forward.get("num_tiles") or counts)), images)

    def arguments(self, rows: Sequence[int]) -> dict[str, Any]:
        """Return the model's arguments for the images of these completions, in order; empty where there are none."""
        if self.pixel_values is None or all(self.count(row) == 0 for row in rows):
            return {}
        found = {"pixel_values": torch.cat([self._cut(self.pixel_values, self.pixel_bounds, row) for row in rows])}
        if self.grids is not None:
            found["image_grid_thw"] = torch.cat([self.grids_of(row) for row in rows])
        return found

    def grids_of(self, row: int) -> torch.Tensor:
        """Return the grids of one completion's images, (images, 3)."""
        return self._cut(self.grids, self.image_bounds, row)

    def count(self, row: int) -> int:
        """Return how many images one completion's prompt has."""
        return self.image_bounds[row + 1] - self.image_bounds[row] if self.image_bounds else 0

    def patches(self, row: int) -> int:
        """Return how many patches they have (0 where the format does not say)."""
        return self.pixel_bounds[row + 1] - self.pixel_bounds[row] if self.grids is not None else 0

    @staticmethod
    def _cut(values: Any, bounds: tuple[int, ...], row: int) -> torch.Tensor:
        return values[bounds[row] : bounds[row + 1]]


@dataclass(frozen=True)
class Batch:
    """Completions with their prompts, unpadded and on the CPU. `prompt_of` numbers prompts from 0."""

    prompts: list[torch.Tensor]
    places: list[torch.Tensor]
    completions: list[torch.Tensor]
    prompt_of: list[int]
    first: list[int]
    room: int


def read(
    core: Any | None,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    room: int,
    run: Sequence[int],
    pictures: Images,
    types: torch.Tensor | None,
) -> Batch:
    """Take a batch of TRL's apart.

    Args:
        core: see `prefix.multimodal_core`.
        input_ids, attention_mask: prompts padded left, then completions padded right in `room` columns.
        room: C.
        run: for each row a number; neighbours with the same number have the same prompt and images.
        images: of all rows.
        types: `mm_token_type_ids`.
    """
    ids, mask = input_ids.cpu(), attention_mask.cpu().bool()
    kinds = types.cpu() if types is not None else None
    first, prompt_of = shared_prefix.firsts(run), shared_prefix.runs(list(run))
    prompts, places = [], []
    for row in first:
        real = mask[row, :-room]
        prompt = ids[row, :-room][real]
        kind = kinds[row, :-room][real] if kinds is not None else None
        grids = pictures.grids_of(row).cpu() if pictures.grids is not None else None
        prompts.append(prompt)
        places.append(shared_prefix.positions(core, prompt, kind, grids))
    completions = [ids[row, -room:][mask[row, -room:]] for row in range(len(ids))]
    return Batch(prompts, places, completions, prompt_of, first, room)


def plan(
    model_costs: cost_model.Costs, batch: Batch, rows: range, wanted: Sequence[int], patches: Sequence[int] | None
) -> list[list[int]] | None:
    """Group the wanted completions among `rows` (see `costs.plan`), None where stock is cheaper."""
    first = rows[0]
    found = cost_model.plan(
        model_costs,
        [batch.prompt_of[b] for b in rows],
        [len(prompt) for prompt in batch.prompts],
        [len(batch.completions[b]) for b in rows],
        patches,
        [b - first for b in wanted],
    )
    return None if found is None else [[b + first for b in row] for row in found]


def score(
    model: Any,
    batch: Batch,
    groups: Sequence[Sequence[int]],
    pictures: Images,
    features: Sequence[Sequence[Image]] | None,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score the completions named in `groups`; log-probabilities and entropies, (B, C), 0 elsewhere.

    `features` has each row's images as the frozen vision tower made them, None where it has to run.
    """
    layout = shared_prefix.pack(batch.prompts, batch.places, batch.completions, groups, batch.prompt_of, batch.room).to(
        device
    )
    sources = [batch.first[number] for number in layout.prompt_of_group]
    if features is None:
        arguments = pictures.arguments(sources)
    else:
        arguments = shared_prefix.encoded([image for row in sources for image in features[row]])
    with autocast(), attention.labelled_only():  # no vocabulary for the prompt's tokens
        return shared_prefix.score(model, layout, arguments)

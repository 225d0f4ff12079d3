"""Scores TRL's batches with shared prefixes: from padded rows and pixels to packed groups, and back."""

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
"""Image arguments of families that were not tested; a batch with one of them takes the stock route."""


@dataclass(frozen=True)
class Images:
    """The images of a batch as TRL stores them, once per completion, and where each completion's images begin."""

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
        """Return the model's arguments for the images of these completions, in order; empty if there are none."""
        if self.pixel_values is None or all(self.count(row) == 0 for row in rows):
            return {}
        bounds = self.pixel_bounds
        arguments = {"pixel_values": torch.cat([self.pixel_values[bounds[row] : bounds[row + 1]] for row in rows])}
        if self.grids is not None:
            arguments["image_grid_thw"] = torch.cat([self.grids_of(row) for row in rows])
        return arguments

    def grids_of(self, row: int) -> torch.Tensor:
        """Return the grids of one completion's images, (images, 3)."""
        return self.grids[self.image_bounds[row] : self.image_bounds[row + 1]]  # pyright: ignore

    def count(self, row: int) -> int:
        """Return the number of images in one completion's prompt."""
        return self.image_bounds[row + 1] - self.image_bounds[row] if self.image_bounds else 0

    def patches(self, row: int) -> int:
        """Return the number of their patches (0 if the format does not contain it)."""
        return self.pixel_bounds[row + 1] - self.pixel_bounds[row] if self.grids is not None else 0


@dataclass(frozen=True)
class Batch:
    """Completions with their prompts, unpadded and on the CPU. `prompt_of` numbers prompts from 0.

    `first` is each prompt's first row; `width` is C, the padded length of the completions.
    """

    prompts: list[torch.Tensor]
    positions: list[torch.Tensor]
    completions: list[torch.Tensor]
    prompt_of: list[int]
    first: list[int]
    width: int
    images: Images


def read(
    core: Any | None,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    width: int,
    run: Sequence[int],
    forward: dict[str, Any],
) -> Batch:
    """Convert a batch of TRL's.

    Args:
        core: see `shared_prefix.multimodal_core`.
        input_ids, attention_mask: prompts padded left, then completions padded right in `width` columns.
        width: C.
        run: a number for each row; neighbours with the same number have the same prompt and images.
        forward: TRL's other keyword arguments: images, and `mm_token_type_ids`.
    """
    ids, mask = input_ids.cpu(), attention_mask.cpu().bool()
    images, types = Images.read(forward), forward.get("mm_token_type_ids")
    kinds = types.cpu() if types is not None else None
    first, prompt_of = shared_prefix.firsts(run), shared_prefix.runs(list(run))
    prompts, positions = [], []
    for row in first:
        real = mask[row, :-width]
        prompt = ids[row, :-width][real]
        kind = kinds[row, :-width][real] if kinds is not None else None
        grids = images.grids_of(row).cpu() if images.grids is not None else None
        prompts.append(prompt)
        positions.append(shared_prefix.positions(core, prompt, kind, grids))
    completions = [ids[row, -width:][mask[row, -width:]] for row in range(len(ids))]
    return Batch(prompts, positions, completions, prompt_of, first, width, images)


def needed(batch: Batch, advantages: torch.Tensor | None) -> list[int]:
    """Return the completions that have to be scored: those of groups with an advantage, and always at least one.

    That one keeps all processes in step (each runs the model in each micro-step) and the entropy defined.
    """
    rows = list(range(len(batch.completions)))
    if advantages is None:
        return rows
    nonzero = advantages.reshape(len(rows), -1).ne(0).any(1).tolist()
    groups = {number for number, has_advantage in zip(batch.prompt_of, nonzero, strict=True) if has_advantage}
    needed_rows = [row for row in rows if batch.prompt_of[row] in groups]
    return needed_rows or [min(rows, key=lambda row: (not len(batch.completions[row]), len(batch.completions[row])))]


def fill(
    logps: torch.Tensor, entropies: torch.Tensor, batch: Batch, scored: Sequence[int], old: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give completions that were not scored a ratio of one, and the mean entropy of the others (for the log)."""
    lengths_B1 = torch.tensor([len(one) for one in batch.completions], device=logps.device)[:, None]
    known_BC = torch.arange(batch.width, device=logps.device)[None] < lengths_B1
    scored_B1 = torch.zeros_like(lengths_B1, dtype=torch.bool)
    scored_B1[list(scored)] = True
    mean = entropies[known_BC & scored_B1].mean() if (known_BC & scored_B1).any() else entropies.sum() * 0
    return (
        logps if old is None else torch.where(scored_B1, logps, old),
        torch.where(scored_B1, entropies, mean * known_BC),
    )


def plan(
    costs: cost_model.Costs, batch: Batch, rows: Sequence[int], size: int, *, encode_images: bool
) -> list[list[list[int]] | None]:
    """Group the completions `rows` that share a prompt, for each micro-batch of `size` completions that has any.

    A micro-batch's groups are None if the stock route is cheaper. `encode_images`: the vision tower has to run.
    """
    patches = [batch.images.patches(row) for row in batch.first] if encode_images else None
    lengths, plans = [len(prompt) for prompt in batch.prompts], []
    for start in range(0, len(batch.completions), size):
        chunk = range(start, min(start + size, len(batch.completions)))
        inside = [row - start for row in rows if row in chunk]
        if not inside:
            continue
        prompt_of, completions = [batch.prompt_of[row] for row in chunk], [len(batch.completions[row]) for row in chunk]
        groups = cost_model.plan(costs, prompt_of, lengths, completions, patches, inside)
        plans.append(None if groups is None else [[row + start for row in group] for group in groups])
    return plans


def score(
    model: Any,
    batch: Batch,
    groups: Sequence[Sequence[int]],
    features: Sequence[Sequence[Image]] | None,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score the completions in `groups`; return log-probabilities and entropies, (B, C), 0 elsewhere.

    `features` are each row's images as encoded by the frozen vision tower; None runs the tower.
    """
    layout = shared_prefix.pack(
        batch.prompts, batch.positions, batch.completions, groups, batch.prompt_of, batch.width
    ).to(device)
    sources = [batch.first[number] for number in layout.prompt_of_group]
    if features is None:
        arguments = batch.images.arguments(sources)
    else:
        arguments = shared_prefix.encoded([image for row in sources for image in features[row]])
    with autocast(), attention.labelled_only():  # no logits for the prompt's tokens
        return shared_prefix.score(model, layout, arguments)

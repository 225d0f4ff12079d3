"""Several completions of one prompt, scored in one row: the prompt is read once, not once for each completion.

A packed row holds the prompt without its last token, then for each completion that last token and the completion
without its own last: every token after the prompt predicts the next token of its completion. A token attends to the
prompt and to its own completion; positions of every completion go on where the prompt ends. With a prompt of P tokens
and G completions of L the model reads P - 1 + GL tokens instead of G(P + L), and each log-probability and gradient is
the plain forward's (up to rounding).

Shapes: B completions, C tokens of room for each; R packed rows of T tokens; A position axes (three under M-RoPE).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from mllm.cpu import ATTENTION

KERNELS = ("sdpa", ATTENTION)
"""Attention kernels that take a boolean mask as it is meant. Eager attention adds it to the scores: silently wrong."""

MODELS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "qwen2", "qwen3", "llama")
"""Model types whose packed rows were tested against their plain forward."""


@dataclass(frozen=True)
class Picture:
    """What the frozen vision tower made of one picture: its visual tokens, and those for deeper layers (Qwen3-VL)."""

    pooled: torch.Tensor
    deep: tuple[torch.Tensor, ...] = ()


@dataclass(frozen=True)
class Layout:
    """Packed rows, ready for the model, and where each completion token's prediction stands in them.

    `prompt_of_row` has for each packed row the number of its prompt; `place_BC` the flat index into (R, T), -1 where
    nothing is scored.
    """

    input_ids_RT: torch.Tensor
    position_ids: torch.Tensor
    allowed_R1TT: torch.Tensor
    labels_RT: torch.Tensor
    place_BC: torch.Tensor
    prompt_of_row: tuple[int, ...]

    def to(self, device: torch.device) -> Layout:
        """Move the tensors."""
        names = ("input_ids_RT", "position_ids", "allowed_R1TT", "labels_RT", "place_BC")
        return Layout(**{name: getattr(self, name).to(device) for name in names}, prompt_of_row=self.prompt_of_row)


def runs(items: Sequence[Any]) -> list[int]:
    """Number the runs of equal neighbours: [a, a, b, a] -> [0, 0, 1, 2]."""
    numbers: list[int] = []
    for index, item in enumerate(items):
        same = index > 0 and (item is items[index - 1] or item == items[index - 1])
        numbers.append(numbers[-1] + (not same) if numbers else 0)
    return numbers


def firsts(numbers: Sequence[int]) -> list[int]:
    """Return the index of each run's first row."""
    return [index for index, number in enumerate(numbers) if index == 0 or number != numbers[index - 1]]


def unsupported(model: Any) -> str | None:
    """Say why a model's completions cannot share a row, None where they can."""
    config, text = model.config, model.config.get_text_config()
    kernel = getattr(text, "_attn_implementation", None)
    if kernel not in KERNELS:
        return f"attention {kernel!r} (sdpa is needed)"
    if config.model_type not in MODELS:
        return f"model type {config.model_type!r} (tested are {', '.join(MODELS)})"
    other = {kind for kind in getattr(text, "layer_types", None) or () if kind != "full_attention"}
    return f"layers with {', '.join(sorted(other))}" if other else None


def multimodal_core(model: Any) -> Any | None:
    """Return the part of a (wrapped) model that places pictures among the text, None in models of text alone."""
    for module in model.modules():
        if hasattr(module, "get_image_features") and hasattr(module, "language_model"):
            return module
    return None


def positions(core: Any | None, ids_P: torch.Tensor, types_P: torch.Tensor | None, grids: Any | None) -> torch.Tensor:
    """Return the positions of a prompt, (A, P): three axes where the model has M-RoPE, one elsewhere."""
    if core is None or not hasattr(core, "get_rope_index"):
        return torch.arange(len(ids_P))[None]
    if grids is None or len(grids) == 0 or types_P is None:
        return torch.arange(len(ids_P)).expand(3, -1)
    found, _ = core.get_rope_index(ids_P[None], mm_token_type_ids=types_P[None], image_grid_thw=grids)
    return found[:, 0]


def pack(
    prompts: Sequence[torch.Tensor],
    places: Sequence[torch.Tensor],
    completions: Sequence[torch.Tensor],
    rows: Sequence[Sequence[int]],
    prompt_of: Sequence[int],
    room: int,
    pad: int = 0,
) -> Layout:
    """Lay completions out in rows. All tensors are on the CPU.

    Args:
        prompts: token ids of each prompt, at least two, without padding.
        places: positions of each prompt, (A, P).
        completions: token ids of each completion, without padding; may be empty.
        rows: for each packed row the completions in it, all of one prompt. Those in no row are not scored.
        prompt_of: for each completion the number of its prompt.
        room: C, the width of the result.
        pad: any token id that is no picture's.
    """
    numbers = [prompt_of[row[0]] for row in rows]
    lengths = [
        len(prompts[n]) - 1 + sum(len(completions[b]) for b in row) for n, row in zip(numbers, rows, strict=True)
    ]
    size, axes = (len(rows), max(lengths)), places[0].shape[0]
    ids_RT, labels_RT = torch.full(size, pad), torch.full(size, -100)
    segment_RT, position_ART = torch.full(size, -1), torch.zeros((axes, *size), dtype=torch.long)
    place_BC = torch.full((len(completions), room), -1)
    for r, (number, row) in enumerate(zip(numbers, rows, strict=True)):
        prompt, end = prompts[number], len(prompts[number]) - 1
        ids_RT[r, :end], segment_RT[r, :end], position_ART[:, r, :end] = prompt[:end], 0, places[number][:, :end]
        for segment, b in enumerate(row, 1):
            start, end = end, end + len(completions[b])
            here, count = slice(start, end), end - start
            ids_RT[r, here] = torch.cat([prompt[-1:], completions[b][:-1]])[:count]
            labels_RT[r, here], segment_RT[r, here] = completions[b], segment
            position_ART[:, r, here] = places[number][:, -1:] + torch.arange(count)
            place_BC[b, :count] = torch.arange(start, end) + r * size[1]
    earlier_TT = torch.ones(size[1], size[1], dtype=torch.bool).tril()
    own_RTT = (segment_RT[:, None, :] == 0) | (segment_RT[:, None, :] == segment_RT[:, :, None])
    position_ids = position_ART if axes > 1 else position_ART[0]
    return Layout(ids_RT, position_ids, (own_RTT & earlier_TT)[:, None], labels_RT, place_BC, tuple(numbers))


def score(model: Any, layout: Layout, pictures: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log-probabilities and entropies of the completions' tokens, both (B, C), 0 where nothing is scored.

    Args:
        model: the model as it is wrapped for training, with TRL's fused head (`trl.trainer.utils.add_fused_lm_head`).
        layout: what `pack` made, on the model's device.
        pictures: the model's picture arguments, in the order of the packed rows.
    """
    out = model(
        input_ids=layout.input_ids_RT,
        attention_mask=layout.allowed_R1TT,
        position_ids=layout.position_ids,
        shift_labels=layout.labels_RT,
        fused_lm_head=True,
        **pictures,
    )
    known_BC = layout.place_BC >= 0

    def spread(values_RT: torch.Tensor) -> torch.Tensor:
        return values_RT.reshape(-1)[layout.place_BC.clamp(min=0)] * known_BC

    entropy = out.entropy if out.entropy is not None else torch.zeros_like(out.log_probs)
    return spread(out.log_probs), spread(entropy)


def encode(core: Any, pixel_values: torch.Tensor, grids: torch.Tensor) -> list[Picture]:
    """Run the vision tower over pictures in Qwen's patch format, without gradient."""
    with torch.no_grad():
        out = core.get_image_features(pixel_values, grids, return_dict=True)
    deep = getattr(out, "deepstack_features", None) or []
    return [Picture(pooled, tuple(level[k] for level in deep)) for k, pooled in enumerate(out.pooler_output)]


def encoded(pictures: Sequence[Picture]) -> dict[str, Any]:
    """Return the model's argument that stands in for pixels: features in the order of the rows; empty for none."""
    if not pictures:
        return {}
    levels = range(len(pictures[0].deep))
    held = SimpleNamespace(
        pooler_output=[picture.pooled for picture in pictures],
        deepstack_features=[[picture.deep[level] for picture in pictures] for level in levels],
    )
    return {"mm_encoder_outputs": {"image": held}}

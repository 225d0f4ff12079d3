"""Scores several completions of a prompt in one sequence, so that the prompt is read once.

A group is the prompt without its last token, then for each completion that last token and the completion without its
own last: every token after the prompt predicts the next token of its completion. A token attends to the prompt and to
its own completion; positions of every completion continue from the prompt's. With a prompt of P tokens and G
completions of L the model reads P - 1 + GL tokens instead of G(P + L), and each log-probability and gradient equals the
plain forward's (up to rounding). Groups of other prompts follow in the same sequence, which needs no padding.

Shapes: B completions, padded to C tokens; T tokens of the sequence; A position axes (three under M-RoPE).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers.utils import ModelOutput

from mllm.training.engine import attention as kernels

KERNELS = (*kernels.BASES, *kernels.CUTTING)
"""Attention kernels that accept a boolean mask. Eager attention would add it to the scores, which is silently wrong."""

MODELS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "qwen2", "qwen3", "llama")
"""Model types whose packed groups were compared with the plain forward in tests."""


@dataclass(frozen=True)
class Image:
    """One image's output of the frozen vision tower: its visual tokens, and those for deeper layers (Qwen3-VL)."""

    pooled: torch.Tensor
    deep: tuple[torch.Tensor, ...] = ()


@dataclass
class Features(ModelOutput):
    """What a vision tower returns, as far as the language model reads it; each list has an item for each image."""

    pooler_output: list[torch.Tensor] | None = None
    deepstack_features: list[list[torch.Tensor]] | None = None


@dataclass(frozen=True)
class Layout:
    """A packed sequence for the model, and the place of each completion token's prediction in it.

    For each group, `prompt_of_group` is the number of its prompt, and `parts` are the lengths of the prompt without its
    last token and of each completion. `place_BC` is an index into T, -1 where nothing is scored.
    """

    input_ids_1T: torch.Tensor
    position_ids: torch.Tensor
    labels_1T: torch.Tensor
    place_BC: torch.Tensor
    prompt_of_group: tuple[int, ...]
    parts: kernels.Parts

    def to(self, device: torch.device) -> Layout:
        """Move the tensors."""
        names = ("input_ids_1T", "position_ids", "labels_1T", "place_BC")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def allowed_11TT(self) -> torch.Tensor:
        """Return which token attends to which, as a mask for kernels that do not split attention."""
        kinds = [(group, part) for group, lengths in enumerate(self.parts) for part in range(len(lengths))]
        sizes = torch.tensor([length for lengths in self.parts for length in lengths])
        group_T, part_T = torch.tensor(kinds).repeat_interleave(sizes, dim=0).T
        own_TT = (part_T[None] == 0) | (part_T[None] == part_T[:, None])
        allowed_TT = (own_TT & (group_T[None] == group_T[:, None])).tril()
        return allowed_TT[None, None].to(self.input_ids_1T.device)


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
    """Return why a model's completions cannot share a sequence, None if they can."""
    config, text = model.config, model.config.get_text_config()
    kernel = getattr(text, "_attn_implementation", None)
    if kernel not in KERNELS:
        return f"attention {kernel!r} (sdpa is needed)"
    if config.model_type not in MODELS:
        return f"model type {config.model_type!r} (tested are {', '.join(MODELS)})"
    other = {kind for kind in getattr(text, "layer_types", None) or () if kind != "full_attention"}
    return f"layers with {', '.join(sorted(other))}" if other else None


def multimodal_core(model: Any) -> Any | None:
    """Return the part of a (wrapped) model that inserts images into the text, None for text-only models."""
    for module in model.modules():
        if hasattr(module, "get_image_features") and hasattr(module, "language_model"):
            return module
    return None


def padded_positions(core: Any, inputs: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each token's position in its own padded row, (B, T), or (3, B, T) under M-RoPE, and the rows' shifts.

    A shift, (B, 1), is what M-RoPE adds to the number of tokens for the position after the row.
    """
    mask_BT = inputs["attention_mask"]
    places = (mask_BT.cumsum(-1) - 1).clamp(min=0)
    shift_B1 = torch.zeros(len(mask_BT), 1, dtype=torch.long, device=mask_BT.device)
    if core is None or not hasattr(core, "get_rope_index"):
        return places, shift_B1
    if inputs.get("image_grid_thw") is None:
        return places.expand(3, -1, -1), shift_B1
    names = ("mm_token_type_ids", "image_grid_thw", "attention_mask")
    return core.get_rope_index(inputs["input_ids"], **{name: inputs[name] for name in names})


def positions(core: Any | None, ids_P: torch.Tensor, types_P: torch.Tensor | None, grids: Any | None) -> torch.Tensor:
    """Return the positions of a prompt, (A, P): three axes if the model has M-RoPE, else one."""
    if core is None or not hasattr(core, "get_rope_index"):
        return torch.arange(len(ids_P))[None]
    if grids is None or len(grids) == 0 or types_P is None:
        return torch.arange(len(ids_P)).expand(3, -1)
    positions_A1P, _ = core.get_rope_index(ids_P[None], mm_token_type_ids=types_P[None], image_grid_thw=grids)
    return positions_A1P[:, 0]


def pack(
    prompts: Sequence[torch.Tensor],
    places: Sequence[torch.Tensor],
    completions: Sequence[torch.Tensor],
    groups: Sequence[Sequence[int]],
    prompt_of: Sequence[int],
    width: int,
) -> Layout:
    """Concatenate prompts and completions to one sequence. All tensors are on the CPU.

    Args:
        prompts: token ids of each prompt, at least two, without padding.
        places: positions of each prompt, (A, P).
        completions: token ids of each completion, without padding; may be empty.
        groups: completions that share a prompt's tokens, all of one prompt. Those in no group are not scored.
        prompt_of: for each completion the number of its prompt.
        width: C, the padded length of the completions.
    """
    numbers = tuple(prompt_of[group[0]] for group in groups)
    ids: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    positions_AT: list[torch.Tensor] = []
    place_BC, end = torch.full((len(completions), width), -1), 0
    for number, group in zip(numbers, groups, strict=True):
        prompt, last = prompts[number], places[number][:, -1:]
        ids.append(prompt[:-1])
        labels.append(torch.full_like(prompt[:-1], -100))
        positions_AT.append(places[number][:, :-1])
        end += len(prompt) - 1
        for b in group:
            count = len(completions[b])
            ids.append(torch.cat([prompt[-1:], completions[b][:-1]])[:count])
            labels.append(completions[b])
            positions_AT.append(last + torch.arange(count))
            place_BC[b, :count] = torch.arange(end, end + count)
            end += count
    axes_A1T = torch.cat(positions_AT, 1)[:, None]
    parts = tuple(
        (len(prompts[n]) - 1, *(len(completions[b]) for b in group)) for n, group in zip(numbers, groups, strict=True)
    )
    position_ids = axes_A1T if len(axes_A1T) > 1 else axes_A1T[0]
    return Layout(torch.cat(ids)[None], position_ids, torch.cat(labels)[None], place_BC, numbers, parts)


def score(model: Any, layout: Layout, images: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log-probabilities and entropies of the completions' tokens, both (B, C), 0 where nothing is scored.

    Args:
        model: the model as wrapped for training, with TRL's fused head (`trl.trainer.utils.add_fused_lm_head`).
        layout: the result of `pack`, on the model's device.
        images: the model's image arguments, in the order of the groups.
    """
    attention: dict[str, Any] = (
        {"attention_mask": kernels.no_mask(layout.input_ids_1T.device), "shared_parts": layout.parts}
        if kernels.cuts(model)
        else {"attention_mask": layout.allowed_11TT()}
    )
    out = model(
        input_ids=layout.input_ids_1T,
        **attention,
        position_ids=layout.position_ids,
        shift_labels=layout.labels_1T,
        fused_lm_head=True,
        **images,
    )
    known_BC = layout.place_BC >= 0

    def unpack(values_1T: torch.Tensor) -> torch.Tensor:
        return values_1T[0][layout.place_BC.clamp(min=0)] * known_BC

    entropy = out.entropy if out.entropy is not None else torch.zeros_like(out.log_probs)
    return unpack(out.log_probs), unpack(entropy)


def encode(core: Any, pixel_values: torch.Tensor, grids: torch.Tensor) -> list[Image]:
    """Run the vision tower over images in Qwen's patch format, without gradient."""
    with torch.no_grad():
        out = core.get_image_features(pixel_values, grids, return_dict=True)
    deep = getattr(out, "deepstack_features", None) or []
    return [Image(pooled, tuple(level[k] for level in deep)) for k, pooled in enumerate(out.pooler_output)]


def encoded(images: Sequence[Image]) -> dict[str, Any]:
    """Return the model's argument that replaces pixels: features in the order of the groups; empty for no images."""
    if not images:
        return {}
    levels = range(len(images[0].deep))
    features = Features(
        pooler_output=[image.pooled for image in images],
        deepstack_features=[[image.deep[level] for image in images] for level in levels],
    )
    return {"mm_encoder_outputs": {"image": features}}

"""Attention within the rows of a packed sequence or around a shared prompt, and logits for labelled tokens alone.

A block mask over the sequence would cost its length squared; split, each part is causal and costs what it costs alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from trl.trainer import utils as trl_utils

from mllm.models.cpu_kernels import ATTENTION

BASES = ("sdpa", ATTENTION)
CUTTING = tuple(f"{base}_in_rows" for base in BASES)

Parts = tuple[tuple[int, ...], ...]
"""For each group in a sequence: tokens of the prompt, then of each of its completions."""


def in_rows(model: Any) -> None:
    """Make a model split attention at rows when it is called with `row_lengths`, and around prompts when it is called
    with `shared_parts`; other calls are unchanged."""
    kernel = model.config.get_text_config()._attn_implementation
    if kernel in BASES:
        model.set_attn_implementation(f"{kernel}_in_rows")


def cuts(model: Any) -> bool:
    """Whether a (wrapped) model has passed through `in_rows`."""
    config = getattr(model, "module", model).config
    return config.get_text_config()._attn_implementation in CUTTING


def no_mask(device: torch.device) -> torch.Tensor:
    """Return an unused mask for models that split attention: it has four axes, so that transformers makes no other."""
    return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)


def _register(base: str) -> None:
    def attend(
        module: Any,
        query_BHTD: torch.Tensor,
        key_BHTD: torch.Tensor,
        value_BHTD: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        row_lengths: tuple[int, ...] | None = None,
        shared_parts: Parts | None = None,
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        plain: Any = ALL_ATTENTION_FUNCTIONS[base]
        cut = row_lengths is not None or shared_parts is not None
        if not cut or not module.is_causal:  # the vision tower receives the text's arguments too
            return plain(module, query_BHTD, key_BHTD, value_BHTD, attention_mask, **options)

        def attend_row(row: Sequence[torch.Tensor], mask: torch.Tensor | None = None) -> torch.Tensor:
            return plain(module, *row, mask, is_causal=mask is None, **options)[0]

        lengths = list(row_lengths) if row_lengths is not None else [sum(parts) for parts in shared_parts or ()]
        rows = zip(*(one.split(lengths, dim=2) for one in (query_BHTD, key_BHTD, value_BHTD)), strict=True)
        if shared_parts is None:
            return torch.cat([attend_row(row) for row in rows], dim=1), None
        groups, masks = zip(rows, shared_parts, strict=True), _masks(shared_parts, query_BHTD.device)
        return torch.cat(
            [part for row, parts in groups for part in _around(attend_row, row, parts, masks)], dim=1
        ), None

    AttentionInterface.register(f"{base}_in_rows", attend)
    AttentionMaskInterface.register(f"{base}_in_rows", sdpa_mask)


for _base in BASES:
    _register(_base)


def _around(
    attend_row: Callable[..., torch.Tensor],
    row: Sequence[torch.Tensor],
    parts: tuple[int, ...],
    masks: Mapping[tuple[int, int], torch.Tensor],
) -> Iterator[torch.Tensor]:
    """Attend in one group: the prompt to itself, each completion to the prompt and to itself.

    `row` is queries, keys and values, each (1, heads, T, width); yields (1, part, heads, width) in order. `masks` are
    those of `_masks`.
    """
    (first, *queries), keys, values = (one.split(list(parts), dim=2) for one in row)
    yield attend_row((first, keys[0], values[0]))
    for k, query in enumerate(queries, 1):
        if parts[k]:
            seen = (torch.cat([one[0], one[k]], dim=2) for one in (keys, values))
            yield attend_row((query, *seen), masks[parts[0], parts[k]])


@lru_cache(maxsize=1)  # all layers of a pass have one layout; masks of earlier ones would stay in memory
def _masks(layout: Parts, device: torch.device) -> dict[tuple[int, int], torch.Tensor]:
    """Return, by the lengths of prompt and completion, which prompt and own tokens each token of a completion attends
    to, (1, 1, length, prompt + length)."""
    pairs = {(prompt, length) for prompt, *lengths in layout for length in lengths}
    return {
        (prompt, length): torch.ones(length, prompt + length, dtype=torch.bool, device=device).tril(prompt)[None, None]
        for prompt, length in pairs
    }


@contextmanager
def labelled_only() -> Iterator[None]:
    """Within it, TRL's fused head computes logits at labelled positions alone, on CPUs as on GPUs.

    On other devices TRL computes all positions, for compilers that need fixed shapes; a CPU does not need that.
    """
    stock = trl_utils._use_triton  # the head's forward uses it for this choice alone
    trl_utils._use_triton = lambda device: device.type == "cpu" or stock(device)
    try:
        yield
    finally:
        trl_utils._use_triton = stock

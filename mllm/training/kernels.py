"""Attention inside rows of one sequence, and a head for learned tokens alone: work that no mask has to undo.

A block mask over a packed sequence costs its length squared, masked or not. Cut at the rows' ends it costs what the
rows cost alone, and each part is plainly causal, which every kernel has a fast way for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from trl.trainer import utils as trl_utils

from mllm.cpu import ATTENTION

BASES = ("sdpa", ATTENTION)


def in_rows(model: Any) -> None:
    """Let a model attend inside rows wherever it is called with `row_lengths`; without, nothing changes."""
    kernel = model.config.get_text_config()._attn_implementation
    if kernel in BASES:
        model.set_attn_implementation(f"{kernel}_in_rows")


def _register(base: str) -> None:
    def attend(
        module: Any,
        query_BHTD: torch.Tensor,
        key_BHTD: torch.Tensor,
        value_BHTD: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        row_lengths: tuple[int, ...] | None = None,
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        plain: Any = ALL_ATTENTION_FUNCTIONS[base]
        if row_lengths is None or not module.is_causal:  # the vision tower is handed the text's arguments too
            return plain(module, query_BHTD, key_BHTD, value_BHTD, attention_mask, **options)
        cut = (one.split(list(row_lengths), dim=2) for one in (query_BHTD, key_BHTD, value_BHTD))
        parts = [plain(module, *row, None, is_causal=True, **options)[0] for row in zip(*cut, strict=True)]
        return torch.cat(parts, dim=1), None

    AttentionInterface.register(f"{base}_in_rows", attend)
    AttentionMaskInterface.register(f"{base}_in_rows", sdpa_mask)


for _base in BASES:
    _register(_base)


@contextmanager
def labelled_only() -> Iterator[None]:
    """Within it, TRL's fused head projects labelled positions alone.

    That is what it does on GPUs. Elsewhere it projects every position, for compilers that want fixed shapes; a CPU is
    not among them.
    """
    stock = trl_utils._use_triton  # asked by the head's forward for this choice alone
    trl_utils._use_triton = lambda device: device.type == "cpu" or stock(device)
    try:
        yield
    finally:
        trl_utils._use_triton = stock

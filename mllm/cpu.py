"""Two detours that make Qwen-VL models train faster on a CPU, with the same mathematics.

PyTorch's Conv3d backward and its bfloat16 attention backward are slow on CPUs. Patches do not overlap, so the patch
embedding is a matrix product; and attention in float32 between bfloat16 matrix products costs little.
``bench/cpu_detours.py`` measures both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

ATTENTION = "sdpa_float32"


def _attention_in_float32(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **options: Any
) -> tuple[Any, None]:
    dtype = query.dtype
    with torch.autocast("cpu", enabled=False):
        if attention_mask is not None and attention_mask.is_floating_point():
            attention_mask = attention_mask.float()
        output, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), attention_mask, **options)
    return output.to(dtype), None


AttentionInterface.register(ATTENTION, _attention_in_float32)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def _patches_by_matrix_product(patch_embed: Any, patches_NP: torch.Tensor) -> torch.Tensor:
    """(N patches, P = channels * frames * side * side) -> (N, hidden)."""
    weight = patch_embed.proj.weight
    return functional.linear(patches_NP.to(weight.dtype), weight.view(weight.shape[0], -1), patch_embed.proj.bias)


def take_detours(model: Any) -> None:
    """Make a Qwen-VL model (Qwen2-VL, 2.5-VL, 3-VL, pocket) use both detours from now on; its weights and outputs
    stay the same."""
    for module in model.modules():
        proj = getattr(module, "proj", None)
        if isinstance(proj, torch.nn.Conv3d) and proj.kernel_size == proj.stride:
            module.forward = _patches_by_matrix_product.__get__(module)  # type: ignore[method-assign]
    model.set_attn_implementation(ATTENTION)

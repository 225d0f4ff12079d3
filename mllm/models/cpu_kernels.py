"""Faster training of Qwen-VL models on a CPU with the same mathematics: two replaced kernels, and memory reuse.

PyTorch's Conv3d backward and bfloat16 attention backward are slow on CPUs; `bench/cpu_detours.py` measures all three.
"""

import ctypes
import platform
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
    """Map (N patches, P = channels * frames * side * side) to (N, hidden)."""
    weight = patch_embed.proj.weight
    return functional.linear(patches_NP.to(weight.dtype), weight.view(weight.shape[0], -1), patch_embed.proj.bias)


def keep_memory() -> bool:
    """Make glibc keep freed memory instead of returning it to the kernel; False with another C library.

    Without it the kernel's page handling took about half of a training step on two cores.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc, largest = ctypes.CDLL(None), 2**31 - 1
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # mallopt(3)
    options = ((trim_threshold, largest), (top_pad, 2**28), (mmap_threshold, largest))
    return all([libc.mallopt(name, value) == 1 for name, value in options])


def computes_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (AMX or AVX-512 BF16 on x86, bf16 on Arm)."""
    return any(supported for name, supported in torch.cpu.get_capabilities().items() if "bf16" in name)


def use_fast_kernels(model: Any) -> None:
    """Make a Qwen-VL model (Qwen2-VL, 2.5-VL, 3-VL, pocket) use both kernels; weights and outputs stay the same."""
    for module in model.modules():
        proj = getattr(module, "proj", None)
        if isinstance(proj, torch.nn.Conv3d) and proj.kernel_size == proj.stride:
            module.forward = _patches_by_matrix_product.__get__(module)  # type: ignore[method-assign]
    model.set_attn_implementation(ATTENTION)

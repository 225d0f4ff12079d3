"""How this process was launched, and whether accelerate set up what was configured."""

import os
from typing import Any

import torch
from accelerate import DistributedType, PartialState

from mllm.distributed import World
from mllm.errors import ConfigError


def devices() -> dict[str, Any]:
    """Return TRL's device settings, for cases where accelerate's own guess would be wrong.

    On a CPU DeepSpeed starts only if accelerate does not know about the CPU (`use_cpu` would silently turn it into
    plain data parallelism), and only if the back-end is named (each process would silently train alone otherwise).
    """
    cpu_requested = _flag("ACCELERATE_USE_CPU")
    has_accelerator = torch.accelerator.is_available()
    if not _flag("ACCELERATE_USE_DEEPSPEED") or (has_accelerator and not cpu_requested):
        return {"use_cpu": cpu_requested or not has_accelerator}
    os.environ["ACCELERATE_USE_CPU"] = "false"
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from deepspeed import ops

    # It is compiled when first used, and its processes wait without a timeout for one that died.
    ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return {"use_cpu": False, "ddp_backend": "gloo"}


def check() -> None:
    """Refuse to train in another way than the launcher was configured for. FSDP works on the CPU too.

    Raises:
        ConfigError: processes that do not know of each other; DeepSpeed or FSDP was configured and is not available.
    """
    state, launched = PartialState(), World.current().size
    if state.num_processes != launched:
        raise ConfigError(
            f"{launched} processes were launched, but each one sees {state.num_processes}: each process would train "
            "its own copy. Without a GPU put ACCELERATE_USE_CPU=true before the command"
        )
    if _flag("ACCELERATE_USE_DEEPSPEED") and state.distributed_type != DistributedType.DEEPSPEED:
        raise ConfigError(
            f"DeepSpeed was configured, but this would be {state.distributed_type.value}: remove use_cpu from the YAML "
            "and the command line"
        )
    if _flag("ACCELERATE_USE_FSDP"):
        if state.num_processes == 1:
            raise ConfigError("FSDP was configured with one process, which would hold the whole model; start more")
        if state.distributed_type == DistributedType.MULTI_CPU:
            # accelerate sets FSDP up on GPUs only, but torch shards on the CPU as well.
            state._shared_state["distributed_type"] = state.distributed_type = DistributedType.MULTI_GPU


def _flag(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes")

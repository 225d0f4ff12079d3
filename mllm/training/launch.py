"""How this process was started: by whom, as one of how many, and whether accelerate made of that what was asked."""

from __future__ import annotations

import os
from typing import Any

import torch

from mllm.distributed import World
from mllm.errors import ConfigError


def devices() -> dict[str, Any]:
    """Return what TRL has to be told about devices, where accelerate's own guess would be wrong.

    On a CPU DeepSpeed starts only if accelerate does not know that it is one (`use_cpu` would quietly make it plain
    data parallelism), and only if the back-end is named (each process would quietly train alone otherwise).
    """
    asked = _flag("ACCELERATE_USE_CPU")
    here = torch.accelerator.is_available()
    if not _flag("ACCELERATE_USE_DEEPSPEED") or (here and not asked):
        return {"use_cpu": asked or not here}
    os.environ["ACCELERATE_USE_CPU"] = "false"
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from deepspeed import ops

    # Compiled when it is first used, and its processes wait for a dead neighbour on a flag in memory, for ever.
    ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return {"use_cpu": False, "ddp_backend": "gloo"}


def check() -> None:
    """Refuse to train in another way than the launcher was told. FSDP is let in on the CPU.

    Raises:
        ConfigError: processes that do not know of each other; DeepSpeed or FSDP asked for and not to be had.
    """
    from accelerate import DistributedType, PartialState

    state, started = PartialState(), World.current().size
    if state.num_processes != started:
        raise ConfigError(
            f"{started} processes were started and each believes that it is one of {state.num_processes}: they would "
            "train apart. Without a GPU put ACCELERATE_USE_CPU=true in front of the command"
        )
    if _flag("ACCELERATE_USE_DEEPSPEED") and state.distributed_type != DistributedType.DEEPSPEED:
        raise ConfigError(
            f"DeepSpeed was asked for and this would be {state.distributed_type.value}: leave use_cpu out of the YAML "
            "and the command line"
        )
    if _flag("ACCELERATE_USE_FSDP"):
        if state.num_processes == 1:
            raise ConfigError(
                "FSDP was asked for with one process, which would hold the whole model; start two or more"
            )
        if state.distributed_type == DistributedType.MULTI_CPU:
            # accelerate asks for FSDP where it finds GPUs, and torch itself shards on the CPU as well.
            state._shared_state["distributed_type"] = state.distributed_type = DistributedType.MULTI_GPU


def _flag(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes")

"""The machine a recipe is for, from an accelerate configuration: processes, and how DeepSpeed shards them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm.errors import ConfigError

SEVERAL_GPU_MEMORY, ONE_GPU_MEMORY = 80.0, 24.0
"""GiB a GPU that are taken when nobody says: a node of A100s or H100s, and a single consumer card."""


@dataclass(frozen=True)
class Machine:
    """Processes in all, one GPU each; `zero` is DeepSpeed's stage, 0 for plain data parallelism; memory in GiB a GPU.

    `offload` says that optimizer states lie in the host's memory.
    """

    processes: int = 1
    zero: int = 0
    deepspeed: bool = False
    offload: bool = False
    gpu_memory: float = ONE_GPU_MEMORY

    @property
    def words(self) -> str:
        """The machine in words."""
        how = f"DeepSpeed ZeRO-{self.zero}" if self.deepspeed else "data parallel" if self.processes > 1 else "alone"
        return f"{self.processes} x {self.gpu_memory:g} GiB, {how}"


def read(file: Path | None, *, processes: int | None = None, gpu_memory: float | None = None) -> Machine:
    """Read an accelerate configuration; `processes` and `gpu_memory` win over it. No file: one process.

    Raises:
        ConfigError: a file that accelerate does not read, FSDP (its memory is not worked out here), or no process.
    """
    found = Machine()
    if file is not None:
        found = _configured(file)
    count = found.processes if processes is None else processes
    memory = gpu_memory or (SEVERAL_GPU_MEMORY if count > 1 else ONE_GPU_MEMORY)
    if count < 1 or memory <= 0:
        raise ConfigError(f"a machine has at least one process and some memory, got {count} and {memory:g} GiB")
    return Machine(count, found.zero, found.deepspeed, found.offload, memory)


def _configured(file: Path) -> Machine:
    """Read what an accelerate configuration says, by accelerate's own reader."""
    from accelerate.commands.config.config_args import load_config_from_file

    if not file.is_file():
        raise ConfigError(f"{file}: no such accelerate configuration")
    try:
        said: Any = load_config_from_file(str(file))
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{file}: accelerate cannot read it: {error}") from error
    kind = getattr(said.distributed_type, "value", said.distributed_type)
    if kind == "FSDP":
        raise ConfigError(f"{file}: memory under FSDP is not worked out here; take a DeepSpeed configuration")
    deepspeed = said.deepspeed_config if kind == "DEEPSPEED" else {}
    if "deepspeed_config_file" in deepspeed:
        raise ConfigError(f"{file}: settings in a deepspeed_config_file are not read here; write zero_stage into it")
    stage = int(deepspeed.get("zero_stage", 2)) if kind == "DEEPSPEED" else 0
    offload = deepspeed.get("offload_optimizer_device", "none") not in ("none", None)
    return Machine(said.num_processes or 1, stage, kind == "DEEPSPEED", offload)

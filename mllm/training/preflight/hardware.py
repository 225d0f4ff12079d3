"""The hardware that a recipe is for, read from an accelerate configuration: processes, and how DeepSpeed shards."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mllm.errors import ConfigError

SEVERAL_GPU_MEMORY, ONE_GPU_MEMORY = 80.0, 24.0
"""Default GiB per GPU: a node of A100s or H100s, and a single consumer GPU."""


@dataclass(frozen=True)
class Hardware:
    """Processes in total, one GPU each. `zero` is DeepSpeed's stage, 0 without sharding; `gpu_memory` is GiB per GPU.

    `offload` means that optimizer states are kept in host memory.
    """

    processes: int = 1
    zero: int = 0
    deepspeed: bool = False
    offload: bool = False
    gpu_memory: float = ONE_GPU_MEMORY

    def __str__(self) -> str:
        """Describe the hardware in words."""
        how = f"DeepSpeed ZeRO-{self.zero}" if self.deepspeed else "data parallel" if self.processes > 1 else "alone"
        return f"{self.processes} x {self.gpu_memory:g} GiB, {how}"


def read(file: Path | None, *, processes: int | None = None, gpu_memory: float | None = None) -> Hardware:
    """Read an accelerate configuration; `processes` and `gpu_memory` override it. Without a file: one process.

    Raises:
        ConfigError: accelerate cannot read the file; it configures FSDP, whose memory is not estimated; less than one
            process or no memory.
    """
    found = Hardware() if file is None else _configured(file)
    count = found.processes if processes is None else processes
    memory = gpu_memory or (SEVERAL_GPU_MEMORY if count > 1 else ONE_GPU_MEMORY)
    if count < 1 or memory <= 0:
        raise ConfigError(f"expected at least one process and some GPU memory, got {count} and {memory:g} GiB")
    return replace(found, processes=count, gpu_memory=memory)


def _configured(file: Path) -> Hardware:
    """Read an accelerate configuration with accelerate's own reader."""
    from accelerate.commands.config.config_args import load_config_from_file

    if not file.is_file():
        raise ConfigError(f"{file}: no such accelerate configuration")
    try:
        config: Any = load_config_from_file(str(file))
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{file}: accelerate cannot read it: {error}") from error
    kind = getattr(config.distributed_type, "value", config.distributed_type)
    if kind == "FSDP":
        raise ConfigError(f"{file}: memory under FSDP cannot be estimated; use a DeepSpeed configuration")
    deepspeed = config.deepspeed_config if kind == "DEEPSPEED" else {}
    if "deepspeed_config_file" in deepspeed:
        raise ConfigError(f"{file}: a deepspeed_config_file is not read here; write zero_stage into {file.name} itself")
    stage = int(deepspeed.get("zero_stage", 2)) if kind == "DEEPSPEED" else 0
    offload = deepspeed.get("offload_optimizer_device", "none") not in ("none", None)
    return Hardware(config.num_processes or 1, stage, kind == "DEEPSPEED", offload)

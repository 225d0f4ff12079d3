"""Command line and YAML -> our settings and TRL's config object; checks that accelerate did what was launched."""

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from accelerate import DistributedType, PartialState
from transformers.utils.logging import disable_progress_bar
from trl import TrlParser

from mllm.config import Settings
from mllm.distributed import World
from mllm.errors import ConfigError, FieldmarkError
from mllm.models import cpu_kernels
from mllm.training import config_file, heartbeat

C = TypeVar("C")

logger = logging.getLogger(__name__)

# Our defaults, where TRL's would be wrong for images: rows are never truncated (a row truncated in its answer silently
# trains nothing); rewards need the data set's columns; a loss that is NaN or infinite is reported, not averaged away.
OURS: dict[str, Any] = {
    "max_length": None,
    "remove_unused_columns": False,
    "logging_nan_inf_filter": False,
    "report_to": "none",
    "disable_tqdm": True,
    "save_total_limit": 2,
    "dataloader_pin_memory": torch.cuda.is_available(),
    "use_transformers_continuous_batching": False,
    "use_transformers_paged": False,
}
FIXED = {
    "max_length": "rows are never truncated; set fieldmark.max_tokens_per_sample instead",
    "remove_unused_columns": "rewards need the data set's columns",
    "use_transformers_continuous_batching": "it reads no images; set use_vllm: true instead",
    "use_transformers_paged": "it reads no images; set use_vllm: true instead",
}


class _Parser(TrlParser):
    """TRL's parser with our errors (argparse would print its hundred flags and exit)."""

    def error(self, message: str) -> NoReturn:
        """Raise the error as a `ConfigError`."""
        raise ConfigError(f"the command line: {message}")


def read(argv: Sequence[str] | None, default: Path, trl_config: type[C]) -> tuple[Settings, C]:
    """Read a run's configuration: our settings, and TRL's config built from the same file and the same command line.

    Raises:
        ConfigError: an unknown key or flag, a wrong value, a TRL setting that Fieldmark does not allow to change.
    """
    known = {item.name for item in fields(trl_config) if item.init}  # pyright: ignore[reportArgumentType]
    run = config_file.read(sys.argv[1:] if argv is None else argv, default, known)
    ours = {name: value for name, value in (OURS | devices()).items() if name in known}
    given = {**ours, **run.trl}
    on_cpu = given.get("use_cpu") or not torch.accelerator.is_available()
    flagged = {flag.split("=")[0].removeprefix("--").removeprefix("no_") for flag in run.flags if flag.startswith("--")}
    if given.get("bf16") and "bf16" not in flagged and on_cpu and not cpu_kernels.computes_bfloat16():
        logger.warning("bf16 disabled: this CPU only emulates bfloat16, which is slower than float32")
        given["bf16"] = False
    for name, reason in FIXED.items():
        if name in ours and (given[name] != ours[name] or name in flagged):
            raise ConfigError(f"{run.file}: {name} cannot be changed: {reason}")
    parser = _Parser((trl_config,))  # pyright: ignore[reportArgumentType]
    parser.set_defaults_with_config(**given)
    warnings.filterwarnings("ignore", message=r"`(is_)?gradient_checkpointing\w*` is deprecated")  # for TRL to fix
    warnings.filterwarnings("ignore", message="Could not find a config file in pocket")  # PEFT looks for it on the Hub
    try:
        beat = heartbeat.begin(run.settings.silence)
        (built,) = parser.parse_args_into_dataclasses(args=list(run.flags))
        check_launch()
        if beat is not None:
            beat.stall = 0.9 * built.ddp_timeout
    except FieldmarkError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{run.file}: {error}") from error
    return run.settings, built


def wants_help(argv: Sequence[str] | None) -> bool:
    """Whether the command line asks for help."""
    return bool({"-h", "--help"} & set(sys.argv[1:] if argv is None else argv))


def manual(description: str | None, trl_config: type) -> str:
    """Return a program's help: its description, our settings, and where TRL's are explained."""
    lines = [(description or "").strip(), "", "Fieldmark's settings (the `fieldmark:` section of the YAML, or flags):"]
    for name, field in Settings.model_fields.items():
        text = " ".join((field.description or "").split())
        lines += [f"  --{name} (default {field.get_default(call_default_factory=True)!r})", f"      {text}"]
    lines += ["", f"All fields of trl.{trl_config.__name__} are keys and flags too; see TRL's documentation."]
    return "\n".join(lines)


def start(settings: Settings, level: int = logging.INFO) -> None:
    """Set up this process: threads, and logging (of the first process; warnings of all)."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    state = PartialState()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("mllm").setLevel(level if state.is_main_process else logging.WARNING)
    disable_progress_bar()  # for loading and saving weights


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


def check_launch() -> None:
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

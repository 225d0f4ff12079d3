"""Resuming a run: which checkpoint is complete, and whether the folder belongs to the same run."""

import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import fields
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mllm.config import Settings
from mllm.errors import FieldmarkError
from mllm.io import provenance, strict_json
from mllm.io.files import atomic_folder, atomic_write, write_bytes
from mllm.models.families import CONVENTION_FILE, Convention, write_convention

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"
SIZES_FILE = "sizes.json"
_TRAINERS_OWN = ("optimizer", "scheduler", "scaler", "rng_state", "trainer_state", "training_args", "run_state")
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")

# What may differ when a run is resumed: how long it trains, what is logged, saved and evaluated, where it runs, and in
# how much memory. All else decides what a step does, and is compared.
FREE = {"resume", "threads", "silence", "evaluate", "validation"}
TRL_FREE = (
    "num_train_epochs", "max_steps",
    "output_dir", "log_*", "logging_*", "report_to", "run_name", "project", "trackio_*", "disable_tqdm", "debug",
    "num_completions_to_print", "include_num_input_tokens_seen", "skip_memory_metrics", "save_*", "push_to_hub",
    "hub_*", "enable_jit_checkpoint", "resume_from_checkpoint", "restore_callback_states_from_checkpoint",
    "eval_*", "do_*", "per_device_eval_batch_size", "num_generations_eval", "prediction_loss_only", "*_full_eval",
    "include_for_metrics", "batch_eval_metrics", "load_best_model_at_end", "metric_for_best_model", "greater_is_better",
    "use_cpu", "local_rank", "ddp_*", "fsdp*", "deepspeed", "dataloader_num_workers", "dataloader_pin_memory",
    "dataloader_persistent_workers", "dataloader_prefetch_factor", "dataloader_multiprocessing_context",
    "generation_batch_size",  # follows from the processes and steps_per_generation
    "vllm_mode", "vllm_server_*", "vllm_group_port", "vllm_gpu_memory_utilization", "vllm_tensor_parallel_size",
    "vllm_enable_sleep_mode", "vllm_max_model_length",
    "activation_checkpointing*", "gradient_checkpointing*", "activation_offloading", "torch_compile*",
    "torch_empty_cache_steps", "ds3_gather_for_generation", "dataset_num_proc",
)  # fmt: skip


def last_complete(output_dir: Path) -> Path | None:
    """Return the newest complete checkpoint, None if there is none.

    The convention file is written last, after every process has saved its part; a run killed while saving leaves a
    folder without it. A file that lost its end (on a disk that did not write everything) is found by its size.
    """
    found = []
    for folder in output_dir.glob("checkpoint-*"):
        match = _CHECKPOINT.fullmatch(folder.name)
        if match and (problem := incomplete(folder)) is None:
            found.append((int(match[1]), folder))
        elif match:
            logger.warning("%s is incomplete and is not used (%s)", folder, problem)
    return max(found)[1] if found else None


def seal(folder: Path, convention: Convention) -> None:
    """Mark a checkpoint as complete: flush its files to disk, record their sizes, and write its convention last."""
    sizes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
            sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    with atomic_write(folder / SIZES_FILE) as file:
        json.dump(sizes, file, indent=1)
    write_convention(folder, convention)


def incomplete(folder: Path) -> str | None:
    """Return what a checkpoint lacks, None if it is complete. Old checkpoints have no recorded sizes."""
    for name in (CONVENTION_FILE, "trainer_state.json"):
        if not (folder / name).is_file():
            return f"no {name}"
    if (folder / SIZES_FILE).is_file():
        try:
            sizes = strict_json.read(folder / SIZES_FILE, dict[str, int])
        except FieldmarkError as error:
            return str(error)
        for name, size in sizes.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != size:
                found = f"{path.stat().st_size} bytes" if path.is_file() else "missing"
                return f"{name} is {found}, but had {size} bytes"
    return None


def checkpoint_to_resume(output_dir: Path, resume: str) -> Path | None:
    """Return the checkpoint to resume from, None to start a new run. `resume`: `auto`, `never`, or a folder.

    Raises:
        FieldmarkError: `never` although there are checkpoints; a folder that is not a complete checkpoint.
    """
    last = last_complete(output_dir)
    if resume == "auto":
        return last
    if resume == "never":
        if last is not None:
            raise FieldmarkError(
                f"{output_dir} contains a run ({last.name}) and resume is `never`: remove the folder, choose another "
                f"--output_dir, or omit --resume to continue it"
            )
        return None
    folder = Path(resume)
    if (problem := incomplete(folder)) is not None:
        raise FieldmarkError(
            f"--resume {resume}: not a complete checkpoint ({problem}); use auto, never, or a checkpoint folder"
        )
    return folder


def is_finished(checkpoint: Path, max_steps: int) -> bool:
    """Whether a checkpoint is the last one of its run. `max_steps` above 0 is the new end."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return state["global_step"] >= (max_steps if max_steps > 0 else state["max_steps"])


def take_weights(checkpoint: Path, output_dir: Path) -> None:
    """Copy the weights (and the files beside them) of a finished run's last checkpoint to the run's own folder.

    For a run that was killed after its last step and before its last save.
    """
    with atomic_folder(output_dir) as fresh:
        for file in checkpoint.iterdir():
            if file.is_file() and not file.name.startswith(_TRAINERS_OWN) and file.name != CONVENTION_FILE:
                shutil.copy2(file, fresh / file.name)
    mark = (checkpoint / CONVENTION_FILE).read_bytes()
    write_bytes(output_dir / CONVENTION_FILE, mark)  # last: it marks the folder as complete


def describe(settings: Settings, args: Any, files: Iterable[Path]) -> dict[str, Any]:
    """Describe a run: settings, TRL's settings without `TRL_FREE`, digests of the data, versions."""
    names = (field.name for field in fields(args))
    bound = [name for name in names if not any(fnmatchcase(name, free) for free in TRL_FREE)]
    return {
        "settings": settings.model_dump(mode="json"),
        "trl": {name: _plain(getattr(args, name)) for name in bound},
        "data": {str(file): provenance.file_hash(file) for file in files},
        "world_size": args.world_size,
        "versions": {package: version(package) for package in _PACKAGES},
    }


def check_same(output_dir: Path, now: Mapping[str, Any]) -> None:
    """Refuse to resume a run with other settings or other data.

    Raises:
        FieldmarkError: names the first setting that differs, then and now.
    """
    path = output_dir / RUN_FILE
    if not path.is_file():
        return
    before = strict_json.read(path, dict[str, Any], advice="choose another --output_dir")
    for section in ("settings", "trl", "data"):
        old, new = before.get(section, {}), now[section]
        unknown = set() if section == "data" else {*old} ^ {*new}
        if unknown:  # versions differ in the settings that they have
            logger.warning("%s: not compared, as only one of both versions has them: %s", path, ", ".join(unknown))
        for key in sorted({*old, *new} - FREE - unknown):
            if old.get(key) != new.get(key):
                raise FieldmarkError(
                    f"{output_dir} contains a run with another {key} ({section}): it was {old.get(key)!r}, now it is "
                    f"{new.get(key)!r}. Choose another --output_dir, or restore the setting to continue that run."
                )
    if before.get("world_size") != now["world_size"]:
        logger.warning(
            "this run used %s processes, now %s: batches differ", before.get("world_size"), now["world_size"]
        )


def write_run(output_dir: Path, now: Mapping[str, Any]) -> None:
    """Write the description of the run that produces this folder's weights."""
    with atomic_write(output_dir / RUN_FILE) as file:
        file.write(json.dumps(now, indent=2) + "\n")


def _plain(value: Any) -> Any:
    """Convert a setting to a JSON value (enumerations by their value)."""
    value = getattr(value, "value", value)
    return value if isinstance(value, int | float | str | bool | None) else str(value)

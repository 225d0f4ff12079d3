"""Going on after a stop: which checkpoint is whole, and whether the folder holds this same run."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mllm.config import Settings
from mllm.errors import FieldmarkError
from mllm.io import provenance, strict_json
from mllm.io.files import atomic_write
from mllm.models.families import CONVENTION_FILE, Convention, write_convention

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"
SIZES_FILE = "sizes.json"
_TRAINERS_OWN = ("optimizer", "scheduler", "scaler", "rng_state", "trainer_state", "training_args", "bag_state")
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")

# Settings that may differ when a run goes on: they change what is watched, how long it goes on, or where it runs, but
# not what one step of training does.
FREE = {"resume", "threads", "silence", "evaluate", "validation"}
TRL_BOUND = (
    "learning_rate", "lr_scheduler_type", "per_device_train_batch_size", "gradient_accumulation_steps", "seed",
    "loss_type", "weight_decay", "optim", "beta", "num_generations", "max_completion_length", "temperature",
    "num_iterations", "scale_rewards", "epsilon",
)  # fmt: skip


def last_complete(output_dir: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end, None when there is none.

    The convention file is written last, after every process has saved its part; a run killed while saving leaves a
    folder without it. A file that is shorter than it was (a disk that lost what it had promised) is found by its size.
    """
    found = []
    for folder in output_dir.glob("checkpoint-*"):
        match = _CHECKPOINT.fullmatch(folder.name)
        if match and (wrong := unfinished(folder)) is None:
            found.append((int(match[1]), folder))
        elif match:
            logger.warning("%s was not written to its end and is not used (%s)", folder, wrong)
    return max(found)[1] if found else None


def seal(folder: Path, convention: Convention) -> None:
    """Mark a checkpoint as complete: bring its files onto the disk, note their sizes, write its convention last."""
    sizes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
            sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    with atomic_write(folder / SIZES_FILE) as file:
        json.dump(sizes, file, indent=1)
    write_convention(folder, convention)


def unfinished(folder: Path) -> str | None:
    """Say what a checkpoint lacks, None where it is complete. Checkpoints from before sizes were noted have none."""
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
                return f"{name} is {found}, and had {size} bytes"
    return None


def checkpoint_to_resume(output_dir: Path, resume: str) -> Path | None:
    """Return the checkpoint to go on from, None to start anew.

    Args:
        output_dir: of the run.
        resume: `auto`, `never`, or a checkpoint folder.

    Raises:
        FieldmarkError: `never` where there are checkpoints already; a folder that is no complete checkpoint.
    """
    last = last_complete(output_dir)
    if resume == "auto":
        return last
    if resume == "never":
        if last is not None:
            raise FieldmarkError(
                f"{output_dir} holds a run already ({last.name}) and resume is `never`: remove the folder, choose "
                f"another --output_dir, or leave --resume out to go on from there"
            )
        return None
    folder = Path(resume)
    if (wrong := unfinished(folder)) is not None:
        raise FieldmarkError(
            f"--resume {resume}: no complete checkpoint of a training run ({wrong}); auto, never, or such a folder"
        )
    return folder


def is_finished(checkpoint: Path, max_steps: int) -> bool:
    """Whether a checkpoint stands at the end of its run: nothing is left to do. `max_steps` above 0 is the new end."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return state["global_step"] >= (max_steps if max_steps > 0 else state["max_steps"])


def take_weights(checkpoint: Path, output_dir: Path) -> None:
    """Copy the weights (and what lies beside them) of a finished run's last checkpoint to the run's own folder.

    For a run that was killed after its last step and before its last save.
    """
    for file in checkpoint.iterdir():
        if file.is_file() and not file.name.startswith(_TRAINERS_OWN) and file.name != CONVENTION_FILE:
            shutil.copy2(file, output_dir / file.name)
    shutil.copy2(checkpoint / CONVENTION_FILE, output_dir / CONVENTION_FILE)  # last: it marks the folder as complete


def describe(settings: Settings, args: Any, files: Iterable[Path]) -> dict[str, Any]:
    """Describe a run: settings, what of TRL's decides a step, digests of the data, versions."""
    return {
        "settings": settings.model_dump(mode="json"),
        "trl": {name: _plain(getattr(args, name)) for name in TRL_BOUND if hasattr(args, name)},
        "data": {str(file): provenance.file_hash(file) for file in files},
        "world_size": args.world_size,
        "versions": {package: version(package) for package in _PACKAGES},
    }


def check_same(output_dir: Path, now: Mapping[str, Any]) -> None:
    """Refuse to go on with a run under other settings or on other data.

    Raises:
        FieldmarkError: names the first setting that differs, then and now.
    """
    path = output_dir / RUN_FILE
    if not path.is_file():
        return
    before = strict_json.read(path, dict[str, Any], advice="choose another --output_dir")
    for section in ("settings", "trl", "data"):
        old, new = before.get(section, {}), now[section]
        for key in sorted({*old, *new} - FREE):
            if old.get(key) != new.get(key):
                raise FieldmarkError(
                    f"{output_dir} holds a run with another {key} ({section}): it was {old.get(key)!r}, now it is "
                    f"{new.get(key)!r}. Choose another --output_dir, or put the setting back to go on with that run."
                )
    if before.get("world_size") != now["world_size"]:
        logger.warning(
            "this run was on %s processes, now on %s: batches differ", before.get("world_size"), now["world_size"]
        )


def write_run(output_dir: Path, now: Mapping[str, Any]) -> None:
    """Write down what produces the weights of this folder."""
    with atomic_write(output_dir / RUN_FILE) as file:
        json.dump(now, file, indent=2)
        file.write("\n")


def _plain(value: Any) -> Any:
    """Turn a setting into what JSON keeps as it is (enumerations by their value)."""
    value = getattr(value, "value", value)
    return value if isinstance(value, int | float | str | bool | None) else str(value)

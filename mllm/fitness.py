"""What a machine has and what it can train: versions that go together, memory, disk, and recipes that fit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from mllm.errors import ConfigError
from mllm.preflight import case, lengths, start
from mllm.preflight.machine import Machine
from mllm.preflight.memory import CONTEXT
from mllm.training import recipe

GIB = 2**30
ROOM = 20.0
"""GiB of free disk below which a run of a large model is warned about: two checkpoints of a 2B model's adapters and
its base fit."""


@dataclass(frozen=True)
class Pair:
    """Two packages that do not work together, though each allows the other."""

    one: str
    other: str
    what: str


PAIRS = (
    Pair(
        "trl>=1.16,<1.17", "vllm",
        "GRPO with vLLM spells pictures' tokens out twice (huggingface/trl#6294); recipes/rl.py compares both engines "
        "before the first step and stops where they differ",
    ),
)  # fmt: skip


def installed(name: str) -> str | None:
    """Return a package's version, None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def misfits(package: str = "fieldmark") -> list[str]:
    """Say which installed versions are outside of what `package` asks for, or of what those packages ask for."""
    found = [f"{package} asks for {one}, and {has} is installed" for one, has in _broken(package)]
    for needed in _asked(package):
        if installed(needed.name) is not None:
            found += [f"{needed.name} asks for {one}, and {has} is installed" for one, has in _broken(needed.name)]
    return list(dict.fromkeys(found))


def bad_pairs() -> list[str]:
    """Say which installed packages are known not to go together."""
    return [
        f"{pair.one.split('>')[0].split('<')[0]} with {pair.other.split('>')[0].split('<')[0]}: {pair.what}"
        for pair in PAIRS
        if _is_there(pair.one) and _is_there(pair.other)
    ]


def memory() -> tuple[float, float] | None:
    """Return the machine's memory and how much of it is free, in GiB; None where the system does not tell."""
    try:
        page = os.sysconf("SC_PAGE_SIZE") / GIB
        return page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, AttributeError):  # not every system tells
        return None


def disk(folder: Path) -> float:
    """Return the free disk space of a folder, in GiB."""
    return shutil.disk_usage(folder).free / GIB


def recipes_folder() -> Path:
    """Return where the recipes lie: in the repository, or in the installed package."""
    here = Path(__file__).resolve().parent
    return here.parent / "recipes" if (here.parent / "recipes" / "sft.yaml").is_file() else here / "recipes"


def peak(file: Path, gpu_memory: float, cards: int = 1) -> tuple[float, bool]:
    """Return the memory that a recipe needs of each of `cards` GPUs, in GiB, and whether it fits.

    Several cards are taken as the everyday accelerate configuration has them: DeepSpeed ZeRO-2. Rows are as long as the
    recipe lets pass. Estimated by formulas (`mllm.preflight`), not measured.

    Raises:
        ConfigError: no such recipe, or one that these cards cannot share out.
    """
    if not file.is_file():
        raise ConfigError(f"{file}: no such recipe")
    machine = Machine(cards, zero=2 if cards > 1 else 0, deepspeed=cards > 1, gpu_memory=gpu_memory)
    read = recipe.read(file, processes=cards)
    model = start.find_model(read)
    dissect = case.dissector(model.config, model.family)
    visual = model.budget.max_pixels // model.family.factor**2
    is_rl = read.kind == "rl"
    room = read.args.max_completion_length if is_rl else 0
    longest = lengths.bound(visual, read.settings.max_tokens_per_sample, room, answers=not is_rl)
    estimate = case.of(read, model.lora, machine, longest).estimate(dissect)
    return (estimate.peak[1] + CONTEXT) / GIB, estimate.fits(machine)


def _asked(package: str) -> Iterator[Requirement]:
    """Yield what a package needs here, without what only its extras need."""
    try:
        lines = requires(package) or ()
    except PackageNotFoundError:
        return
    for line in lines:
        needed = Requirement(line)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            yield needed


def _broken(package: str) -> Iterator[tuple[str, str]]:
    for needed in _asked(package):
        has = installed(needed.name)
        if has is None:
            yield str(needed), "none"
        elif not needed.specifier.contains(has.split("+")[0], prereleases=True):
            yield str(needed), has


def _is_there(words: str) -> bool:
    needed = Requirement(words)
    has = installed(needed.name)
    return has is not None and needed.specifier.contains(has.split("+")[0], prereleases=True)

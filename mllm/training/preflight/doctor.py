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
from mllm.training import recipe
from mllm.training.preflight import base_model, run_spec, token_lengths
from mllm.training.preflight.hardware import Machine
from mllm.training.preflight.memory import CONTEXT

GIB = 2**30
ROOM = 20.0
"""GiB of free disk below which a run of a large model is warned about: two checkpoints of a 2B model's adapters and
its base fit."""


@dataclass(frozen=True)
class Pair:
    """Two packages that do not work together: version ranges, what goes wrong, and the way out."""

    one: str
    other: str
    what: str
    way_out: str


PAIRS = (
    Pair(
        "trl>=1.16,<1.17", "vllm",
        "GRPO with vLLM spells images' tokens out twice (huggingface/trl#6294)",
        "recipes/rl.py compares both engines before the first step and stops where they differ; use_vllm: false then",
    ),
    Pair(
        "trl>=1.16,<1.17", "vllm<0.22", "TRL 1.16 speaks to vLLM 0.22 to 0.31",
        "pip install 'vllm>=0.22,<0.32', or set use_vllm: false",
    ),
    Pair(
        "trl>=1.16,<1.17", "vllm>=0.32", "TRL 1.16 speaks to vLLM 0.22 to 0.31",
        "pip install 'vllm>=0.22,<0.32', or set use_vllm: false",
    ),
    Pair(
        "trl>=1.16,<1.17", "vllm>=0.30",
        "a vLLM server takes images from TRL only at an address that it does not open by itself",
        "start it with --enable-scale-out (`trl vllm-serve` does), or use vllm_mode: colocate",
    ),
    Pair(
        "peft", "vllm",
        "vLLM leaves an adapter's weights in the vision tower out, in silence (vllm-project/vllm#16364)",
        "`fieldmark merge` the adapter and give the merged folder to --engine vllm",
    ),
    Pair(
        "torch<2.14", "torchvision>=0.29", "torchvision is built for one torch: 0.29 and later need torch 2.14",
        "pip install 'torchvision>=0.28,<0.29', or uninstall it: Fieldmark does without",
    ),
    Pair(
        "torch>=2.14", "torchvision<0.29", "torchvision is built for one torch: up to 0.28 for 2.13 and earlier",
        "pip install a later torchvision, or uninstall it: Fieldmark does without",
    ),
    Pair(
        "trl>=1", "ms-swift",
        "ms-swift of August 2026 asks for trl below 1.0, peft below 0.21 and transformers below 5.17",
        "give it an environment of its own; `fieldmark convert` reads and writes its data",
    ),
)  # fmt: skip
"""Known faults, from issue trackers and the packages' own sources; what packages say of one another is in `misfits`."""


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
    """Say which installed packages are known not to go together, and what to do about each."""
    return [
        f"{Requirement(pair.one).name} {installed(Requirement(pair.one).name)} with {Requirement(pair.other).name} "
        f"{installed(Requirement(pair.other).name)}: {pair.what}. Way out: {pair.way_out}"
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


def peak(file: Path, gpu_memory: float, cards: int = 1) -> tuple[float, bool]:
    """Return the memory that a recipe needs of each of `cards` GPUs, in GiB, and whether it fits.

    Several cards are taken as the everyday accelerate configuration has them: DeepSpeed ZeRO-2. Rows are as long as the
    recipe lets pass. Estimated by formulas (`mllm.training.preflight`), not measured.

    Raises:
        ConfigError: no such recipe, or one that these cards cannot share out.
    """
    if not file.is_file():
        raise ConfigError(f"{file}: no such recipe")
    machine = Machine(cards, zero=2 if cards > 1 else 0, deepspeed=cards > 1, gpu_memory=gpu_memory)
    read = recipe.read(file, processes=cards)
    model = base_model.find_model(read)
    dissect = run_spec.dissector(model.config, model.family)
    visual = model.budget.max_pixels // model.family.factor**2
    is_rl = read.kind == "rl"
    room = read.args.max_completion_length if is_rl else 0
    longest = token_lengths.bound(visual, read.settings.max_tokens_per_sample, room, answers=not is_rl)
    estimate = run_spec.of(read, model.lora, machine, longest).estimate(dissect)
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

"""What a machine has and what it can train: compatible versions, memory, disk, and recipes that fit."""

import os
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from mllm.errors import ConfigError
from mllm.training import recipe
from mllm.training.preflight import base_model, parameters
from mllm.training.preflight.memory import CUDA_CONTEXT, GIB, estimate
from mllm.training.preflight.run_spec import Hardware, run_spec, upper_bound

MIN_FREE_DISK = 20.0  # GiB, below which `fieldmark doctor` warns: a 2B base and two checkpoints of its adapters fit


CONFLICTS = (
    (
        "trl>=1.16,<1.17", "vllm",
        "GRPO with vLLM expands image tokens twice (huggingface/trl#6294)",
        "recipes/rl.py compares both engines before the first step and stops if they differ; then set use_vllm: false",
    ),
    (
        "trl>=1.16,<1.17", "vllm<0.22", "TRL 1.16 supports vLLM 0.22 to 0.31",
        "pip install 'vllm>=0.22,<0.32', or set use_vllm: false",
    ),
    (
        "trl>=1.16,<1.17", "vllm>=0.32", "TRL 1.16 supports vLLM 0.22 to 0.31",
        "pip install 'vllm>=0.22,<0.32', or set use_vllm: false",
    ),
    (
        "trl>=1.16,<1.17", "vllm>=0.30",
        "a vLLM server accepts images from TRL only at an endpoint that is off by default",
        "start it with --enable-scale-out (`trl vllm-serve` does), or use vllm_mode: colocate",
    ),
    (
        "peft", "vllm",
        "vLLM silently ignores an adapter's weights in the vision tower (vllm-project/vllm#16364)",
        "`fieldmark merge` the adapter and pass the merged folder to --engine vllm",
    ),
    (
        "torch<2.14", "torchvision>=0.29", "each torchvision is built for one torch: 0.29 and later need torch 2.14",
        "pip install 'torchvision>=0.28,<0.29', or uninstall it: Fieldmark does not need it",
    ),
    (
        "torch>=2.14", "torchvision<0.29", "each torchvision is built for one torch: up to 0.28 for 2.13 and earlier",
        "pip install a later torchvision, or uninstall it: Fieldmark does not need it",
    ),
    (
        "trl>=1", "ms-swift",
        "ms-swift of August 2026 requires trl below 1.0, peft below 0.21 and transformers below 5.17",
        "install it in a separate environment; `fieldmark convert` reads and writes its data",
    ),
)  # fmt: skip
"""Packages that do not work together (two version ranges, what goes wrong, and what to do), from issue trackers and the
packages' sources; `unmet_requirements` checks declared ranges."""


def installed(name: str) -> str | None:
    """Return a package's version, None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def unmet_requirements(package: str = "fieldmark") -> list[str]:
    """List installed versions outside the ranges that `package`, or one of its requirements, asks for."""
    direct = [one.name for one in _requirements(package) if installed(one.name) is not None]
    found = {
        f"{name} requires {one}, but {installed(one.name) or 'none'} is installed": None
        for name in (package, *direct)
        for one in _requirements(name)
        if not _is_installed(one)
    }
    return list(found)


def known_conflicts() -> list[str]:
    """List installed packages that are known not to work together, and what to do about each."""
    found = []
    for *ranges, problem, fix in CONFLICTS:
        one, other = map(Requirement, ranges)
        if _is_installed(one) and _is_installed(other):
            versions = f"{one.name} {installed(one.name)} with {other.name} {installed(other.name)}"
            found.append(f"{versions}: {problem}. To fix: {fix}")
    return found


def memory() -> tuple[float, float] | None:
    """Return the machine's memory and how much of it is free, in GiB; None if the system does not report it."""
    try:
        page = os.sysconf("SC_PAGE_SIZE") / GIB
        return page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, AttributeError):  # not every system reports it
        return None


def free_disk(folder: Path) -> float:
    """Return the free disk space of a folder, in GiB."""
    return shutil.disk_usage(folder).free / GIB


def peak_memory(file: Path, gpu_memory: float, gpus: int = 1) -> tuple[float, bool]:
    """Return the memory that a recipe needs of each of `gpus` GPUs, in GiB, and whether it fits.

    Several GPUs are assumed to run as in accelerate_config.yaml: DeepSpeed ZeRO-2. Rows are as long as the recipe
    allows. Estimated by formulas (`mllm.training.preflight.memory`), not measured.

    Raises:
        ConfigError: no such recipe, or one whose batch these GPUs cannot share.
    """
    if not file.is_file():
        raise ConfigError(f"{file}: no such recipe")
    hardware = Hardware(gpus, zero=2 if gpus > 1 else 0, deepspeed=gpus > 1, gpu_memory=gpu_memory)
    read = recipe.read(file, processes=gpus)
    model = base_model.find_model(read)
    lengths = upper_bound(read, model.most_visual_tokens)
    counts = parameters.count(model.config, model.family, read.settings, model.lora)
    found = estimate(counts, run_spec(read, model.lora, hardware, lengths))
    return (found.peak[1] + CUDA_CONTEXT) / GIB, found.fits(hardware)


def _requirements(package: str) -> Iterator[Requirement]:
    """Yield what a package requires here, without what only its extras require."""
    try:
        lines = requires(package) or ()
    except PackageNotFoundError:
        return
    for line in lines:
        needed = Requirement(line)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            yield needed


def _is_installed(needed: Requirement) -> bool:
    """Whether a version in the required range is installed; a local part such as +cpu does not count."""
    has = installed(needed.name)
    return has is not None and needed.specifier.contains(has.split("+")[0], prereleases=True)

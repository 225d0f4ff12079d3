"""Show what this machine has and can train, or look for benchmark images among training images.

Lists versions, cores, memory, GPUs, disk, and the recipes that fit. With --train and --benchmark it looks for leaks
instead; the exit code is 1 when it finds one.
"""

import platform
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar

from mllm.cli.programs import Range
from mllm.errors import ConfigError, ExitCode, FieldmarkError


@dataclass(frozen=True)
class Options:
    RENAMED: ClassVar = {"--cards": "--gpus"}

    train: tuple[Path, ...] = ()
    """samples file used for training"""
    benchmark: tuple[Path, ...] = ()
    """samples file of the benchmark"""
    gpu_memory: Annotated[float | None, Range(1)] = None
    """GiB of a GPU: show what it could train, without having one"""
    gpus: Annotated[int, Range(1)] = 1
    """number of such GPUs, with --gpu-memory"""


def command(options: Options) -> int | None:
    if bool(options.train) != bool(options.benchmark):
        raise ConfigError("give both --train and --benchmark: the images of one are searched for in the other")
    if options.train:
        from mllm.data import contamination

        found = contamination.check(list(options.train), list(options.benchmark))
        print(found.summary())
        return ExitCode.FAILED if found.pairs else ExitCode.DONE
    from mllm.io import provenance
    from mllm.training.preflight import doctor

    for name, version in provenance.versions().items():
        print(f"  {name:<14} {version}")
    for name in ("deepspeed", "bitsandbytes", "vllm"):
        print(f"  {name:<14} {doctor.installed(name) or 'not installed'}")
    print(f"  {'torchvision':<14} {'installed' if find_spec('torchvision') else 'not installed (not needed)'}")
    wrong = doctor.unmet_requirements()
    for line in [*wrong, *doctor.known_conflicts()]:
        print(f"  ! {line}")
    if not wrong:
        print("  all versions are within their ranges")
    _show_machine(options.gpu_memory, options.gpus)
    return None


def _show_machine(gpu_memory: float | None, gpus: int) -> None:
    import torch

    from mllm.cli.experiments.pipeline import cpus
    from mllm.models.builtin import weights_folder
    from mllm.training.preflight import doctor

    memory = doctor.memory()
    amount = f"{memory[0]:.0f} GB memory, {memory[1]:.0f} GB of it free" if memory else "memory unknown"
    print(f"{platform.platform()}, {cpus()} cores for us, {amount}")
    devices = [torch.cuda.get_device_properties(k) for k in range(torch.cuda.device_count())]
    for k, gpu in enumerate(devices):
        bf16 = torch.cuda.is_bf16_supported()
        print(f"GPU {k}: {gpu.name}, {gpu.total_memory / doctor.GIB:.0f} GB, bfloat16 {bf16}")
    if devices and gpu_memory is None:
        gpu_memory, gpus = devices[0].total_memory / doctor.GIB, len(devices)
    if not devices:
        print("no CUDA GPU: the pocket example runs on the CPU, larger models need a GPU")
    free = doctor.free_disk(Path.cwd())
    scarce = f"; checkpoints of large models want {doctor.MIN_FREE_DISK:.0f}" if free < doctor.MIN_FREE_DISK else ""
    print(f"disk: {free:.0f} GB free here{scarce}")
    print(f"pocket weights: {weights_folder()}")
    if gpu_memory is not None:
        _show_recipes(gpu_memory, gpus)


def _show_recipes(gpu_memory: float, gpus: int) -> None:
    """List the recipes that fit a machine, by the estimates of `fieldmark preflight`."""
    from mllm.io.files import program_folder
    from mllm.training.preflight import doctor

    print(f"recipes on {gpus} x {gpu_memory:.0f} GB, estimated for rows of the greatest allowed length:")
    pocket = ("sft.yaml", "sft_direct.yaml", "rl.yaml")
    for file in sorted(program_folder("recipes").glob("*.yaml")):
        if file.name in pocket or file.name.startswith("pocket"):
            continue
        try:
            needs, fits = doctor.peak_memory(file, gpu_memory, gpus)
        except FieldmarkError as error:
            print(f"  {file.name:<44} could not be estimated: {str(error)[:90]}")
            continue
        print(f"  {file.name:<44} {needs:>6.1f} GB a GPU  {'fits' if fits else 'does not fit'}")

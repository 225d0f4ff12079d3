"""Check a recipe without a GPU: model, rows, rewards, batches and memory.

Says what to change if it does not fit. What is missing on this machine (data, tokenizer) is reported as NOT CHECKED,
with the command that supplies it. The exit code is 1 when something is bad, and with --strict also when something was
not checked. Flags of the recipe follow after `--`: fieldmark preflight --config FILE -- --num_generations 8
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional

from mllm.cli.programs import Range
from mllm.errors import ExitCode


@dataclass(frozen=True)
class Options:
    RENAMED: ClassVar = {"--processes": "--gpus"}

    config: Path
    """the recipe's YAML file, or its name: sft, rl, ..."""
    flags: Positional[tuple[str, ...]] = ()
    """flags of the recipe, after `--`"""
    accelerate: Path | None = None
    """accelerate configuration; default: the one in the recipe's header"""
    gpus: Annotated[int | None, Range(1)] = None
    """number of GPUs in all; default: that of the configuration"""
    gpu_memory: Annotated[float | None, Range(1)] = None
    """GiB on each GPU; default: 80 with several GPUs, 24 with one"""
    rows: Annotated[int | None, Range(1)] = None
    """number of rows, to estimate the time if they are not made yet"""
    strict: bool = False
    """what could not be checked counts as a failure"""


def command(options: Options) -> int:
    from mllm.training.preflight.check import check_recipe

    logging.getLogger("mllm").setLevel(logging.WARNING)  # the page says what the run would log
    result = check_recipe(
        options.config,
        list(options.flags),
        accelerate=options.accelerate,
        processes=options.gpus,
        gpu_memory=options.gpu_memory,
        rows=options.rows,
    )
    print(f"{options.config} ({result.recipe.kind.upper()}) on {result.hardware}")
    for found in result.findings:
        mark = {"good": "", "not checked": "NOT CHECKED", "bad": "BAD"}[found.state]
        print(f"\n{found.topic}{': ' + mark if mark else ''}")
        for line in found.lines:
            print(f"    {line}")
    passed = result.passed(strict=options.strict)
    unchecked = sum(found.state == "not checked" for found in result.findings)
    print(f"\n{'ready' if passed else 'NOT READY'}" + (f"; not checked: {unchecked}" if unchecked else ""))
    return ExitCode.DONE if passed else ExitCode.FAILED

"""What prefilling each prompt once saves: stock TRL against the engine, same process, weights and rollouts.

    make bench          # every size (long, resumes where it stopped); numbers and a plot in runs/bench
    make bench-quick    # only Qwen3-VL, prompt 300, completion 128, G = 8

Times are CPU seconds of one thread, so that other load on the machine matters little; the two ways take turns, and
medians are compared. The models are small (bench/parts/models.py: 4 to 5 M parameters, vocabulary 992, tower frozen);
the image is enlarged until the prompt has the wanted length. Stock's micro-batch is the whole group.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import torch
import transformers

from bench import answering, recipe_step, sft
from bench.parts import plots, tables
from bench.parts.models import FAMILIES
from bench.parts.step import Result, Size, measure, peak
from mllm.io.files import atomic_write
from mllm.models.cpu_kernels import keep_memory

import trl  # isort: skip

LENGTHS = ((300, 128), (1000, 256), (2500, 256))
GROUPS = (4, 8, 16)
QUICK = Size("qwen3_vl", 300, 128, 8)


def main() -> None:
    """Measure, print, and write the numbers to files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one size, few rounds, no memory")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write numbers as JSON, with a table (.md) and a plot (.png)")
    parser.add_argument("--family", choices=FAMILIES, help="only the sizes of this family, and no other bench")
    parser.add_argument(
        "--prompt",
        type=int,
        choices=[p for p, _ in LENGTHS],
        help="only this prompt length, and no other bench",
    )
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)  # WAY and what makes a Size
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    if args.child:
        way, family, *numbers = args.child
        print(peak(Size(family, *map(int, numbers)), way))
        return
    keep_memory()
    print(_machine(), flush=True)
    if args.quick:
        _quick()
        return
    folder = args.out.parent if args.out else Path("runs/bench")
    families = [args.family] if args.family else FAMILIES
    lengths = [pair for pair in LENGTHS if args.prompt in (None, pair[0])]
    sizes = [Size(family, p, c, g) for p, c in lengths for g in GROUPS for family in families]
    results = []
    for size in sizes:
        results.append(_cell(size, args.rounds, folder))
        print(report(results[-1]), flush=True)
    print(slopes(results))
    if args.family or args.prompt:
        return
    found: dict[str, Any] = {"machine": _machine(), "sizes": [asdict(one) for one in results]}
    found["sft"] = sft.compare(128, args.rounds)
    print(sft.report(found["sft"]), flush=True)
    found["answering"] = answering.compare(96, args.rounds)
    print(answering.report(found["answering"]), flush=True)
    found["recipes"] = recipe_step.compare_all(args.rounds)
    print(recipe_step.report(found["recipes"]), flush=True)
    if args.out:
        args.out.write_text(json.dumps(found, indent=2) + "\n")
        args.out.with_suffix(".md").write_text(tables.table(results) + "\n")
        plots.draw(results, args.out.with_suffix(".png"))
    first = next(one for one in results if one.size == QUICK)
    print(_line(first, found["sft"]))


def _quick() -> None:
    one, fine_tuning = measure(QUICK, 2), sft.compare(64, 1)
    print(report(one))
    print(sft.report(fine_tuning))
    print(_line(one, fine_tuning))


def _line(one: Result, fine_tuning: dict[str, Any]) -> str:
    learner, step = one.learner[0] / one.learner[1], one.step[0] / one.step[1]
    tokens = fine_tuning["ours"]["rate"] / fine_tuning["stock"]["rate"]
    return f"learner step {learner:.1f}x, grpo step {step:.1f}x, sft {tokens:.1f}x"


def _cell(size: Size, rounds: int, folder: Path) -> Result:
    """Measure one size and its peak memory, or read them from `folder` if they were measured on this machine in at
    least as many rounds."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{size.name}.json"
    if file.is_file():
        held = json.loads(file.read_text())
        if held["machine"] == _machine() and held["result"]["rounds"] >= rounds:
            row: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in held["result"].items()}
            row["size"] = size
            return Result(**row)
    stock, ours = (int(_child(way, size)) for way in ("stock", "prefix"))
    found = replace(measure(size, rounds), memory=(stock, ours))
    with atomic_write(file) as out:
        json.dump({"machine": _machine(), "result": asdict(found)}, out)
    return found


def _child(way: str, size: Size) -> str:
    """Measure peak memory in a separate process."""
    numbers = map(str, (size.prompt, size.completion, size.group))
    command = [sys.executable, "-m", "bench.engine", "--child", way, size.family, *numbers]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]


def report(one: Result) -> str:
    """Format a result."""
    size = one.size
    lines = [f"{size.family}, prompt {one.prompt}, completion {size.completion}, G = {size.group}:"]
    parts = {"learner": one.learner, "rollout": one.rollout, "rest": one.rest, "GRPO step": one.step}
    for name, (stock, ours) in parts.items():
        lines.append(f"  {name:9}  {stock:8.2f} s stock  {ours:8.2f} s ours  {stock / max(ours, 1e-9):5.2f}x")
    (stock, ours), reached = one.tokens, one.step[0] / one.step[1]
    lines.append(
        f"  tokens     {stock:.0f} stock, {ours:.0f} ours: {stock / ours:.2f}x; {one.share:.3g} share the prompt"
    )
    above = [f"{seconds / one.floor:.1f}" for seconds in one.learner]
    lines.append(f"  floor of the learner step {one.floor:.2f} s: stock at {above[0]}, ours at {above[1]} times that")
    speedup = f"{reached:.2f}x of {one.allowed:.2f}x that Amdahl's law allows ({reached / one.allowed:.2f})"
    lines.append(f"  GRPO step: {speedup}")
    share = one.image / one.step[1]
    lines.append(f"  preparing its image takes {1000 * one.image:.0f} ms, {share:.1%} of our step")
    if one.memory is not None:
        lines.append(f"  peak memory of the learner step: {one.memory[0]} MiB stock, {one.memory[1]} MiB ours")
    return "\n".join(lines)


def slopes(results: Sequence[Result]) -> str:
    """Fit the learner step's time as a line in G, for each family and length, stock and ours, by least squares."""
    lines = ["The learner step in CPU seconds, by completions of a group:"]
    kinds = dict.fromkeys((one.size.family, one.size.prompt, one.size.completion) for one in results)
    for kind in kinds:
        mine = [one for one in results if (one.size.family, one.size.prompt, one.size.completion) == kind]
        if len(mine) < 2:
            continue
        groups = torch.tensor([[1.0, one.size.group] for one in mine])
        stock, ours = (torch.tensor([[one.learner[way]] for one in mine]) for way in (0, 1))
        (fixed, slope), (_, theirs) = (torch.linalg.lstsq(groups, y).solution[:, 0].tolist() for y in (ours, stock))
        tokens = (mine[-1].tokens[1] - mine[0].tokens[1]) / (mine[-1].size.group - mine[0].size.group)
        lines.append(
            f"  {kind[0]:10} {kind[1]}/{kind[2]}: stock {theirs:.3f} G; ours {fixed:.2f} + {slope:.3f} G, {tokens:.0f} "
            f"tokens more for each completion of {kind[2]}"
        )
    return "\n".join(lines)


def _machine() -> str:
    """Return the processor's name, if Linux reports it, and the versions."""
    name, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    capability = torch.backends.cpu.get_cpu_capability()
    return (
        f"{name} ({capability}), {os.cpu_count()} cores, one thread; torch {torch.__version__}, "
        f"transformers {transformers.__version__}, trl {trl.__version__}"
    )


if __name__ == "__main__":
    main()

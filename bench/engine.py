"""How much does reading the prompt once save? Stock TRL against the engine, same process, same weights, same rollouts.

    make bench          # every size (long, goes on where it was stopped); numbers and a plot in runs/bench
    make bench-quick    # prompt 300, completion 128, G = 8 alone

Times are CPU seconds of one thread, so that other work on the machine moves them little; the two ways take turns, and
medians are compared. The model is the pocket one (Qwen3-VL: 4.7 M parameters, vocabulary 992, tower frozen),
its picture enlarged until the prompt is as long as wanted. Stock's micro-batch is the whole group. "Rest" is what a
GRPO step does beside sampling and learning: preparing pictures, rewards, bookkeeping.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import torch
import transformers
from datasets import Dataset
from PIL import Image

from bench import sft
from mllm.cpu import keep_memory, take_detours
from mllm.files import atomic_write
from mllm.pocket.model import build
from mllm.pocket.scenes import training_scene
from mllm.training.grpo import PrefixGRPOTrainer
from mllm.training.pixels import remember_pixels

import trl  # isort: skip

SIZES = [(p, c, g) for p, c in ((300, 128), (1000, 256), (2500, 256)) for g in (4, 8, 16)]
QUICK = [(300, 128, 8)]
SIDE = 32  # pixels of one visual token's side


@dataclass
class Result:
    """Medians of one size, stock and ours: CPU seconds; tokens the model reads in a learner step; MiB by which that
    raises the process's peak."""

    prompt: int
    completion: int
    group: int
    learner: tuple[float, float]
    rollout: tuple[float, float]
    rest: tuple[float, float]
    tokens: tuple[int, int]
    floor: float
    memory: tuple[int, int] | None = None

    @property
    def allowed(self) -> float:
        """What Amdahl's law allows a whole step: learning and sampling as much faster as each was measured to be, the
        rest as slow as it was in stock."""
        return self.step[0] / (self.learner[1] + self.rollout[1] + self.rest[0])

    @property
    def step(self) -> tuple[float, float]:
        """A whole GRPO step."""
        stock, ours = (self.learner[k] + self.rollout[k] + self.rest[k] for k in (0, 1))
        return stock, ours


def main() -> None:
    """Measure, print, and write the numbers down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one size, few rounds, no memory")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the numbers here as JSON, and a plot beside it (.png)")
    parser.add_argument("--child", nargs=4, metavar=("WAY", "PROMPT", "COMPLETION", "GROUP"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    if args.child:
        print(_peak(args.child[0], *map(int, args.child[1:])))
        return
    rounds = 2 if args.quick else args.rounds
    print(_machine())
    results = []
    for size in QUICK if args.quick else SIZES:
        results.append(_cell(size, rounds, args.out.parent if args.out and not args.quick else None))
        _tell(results[-1])
    fine_tuning = sft.compare(64 if args.quick else 128, 1 if args.quick else rounds)
    print(sft.tell(fine_tuning))
    if args.out:
        found = {"machine": _machine(), "sizes": [asdict(one) for one in results], "sft": fine_tuning}
        args.out.write_text(json.dumps(found, indent=2) + "\n")
        _plot(results, args.out.with_suffix(".png"))
    first = results[0] if args.quick else next(one for one in results if (one.prompt, one.group) == (300, 8))
    learner, step = first.learner[0] / first.learner[1], first.step[0] / first.step[1]
    tokens = fine_tuning["ours"]["rate"] / fine_tuning["stock"]["rate"]
    print(f"learner step {learner:.1f}x, grpo step {step:.1f}x, sft {tokens:.1f}x")


def _cell(size: tuple[int, int, int], rounds: int, folder: Path | None) -> Result:
    """Measure one size; with a folder, peak memory too, and what was measured before on this machine is read there."""
    if folder is None:
        return _measure(*size, rounds)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{'-'.join(map(str, size))}.json"
    if file.is_file():
        held = json.loads(file.read_text())
        if (held["machine"], held["rounds"]) == (_machine(), rounds):
            pairs = ("learner", "rollout", "rest", "tokens", "memory")
            row: dict[str, Any] = {k: tuple(v) if k in pairs and v else v for k, v in held["result"].items()}
            return Result(**row)
    stock, ours = (int(_child(way, size)) for way in ("stock", "prefix"))
    found = replace(_measure(*size, rounds), memory=(stock, ours))
    with atomic_write(file) as out:
        json.dump({"machine": _machine(), "rounds": rounds, "result": asdict(found)}, out)
    return found


def _trainer(prompt: int, completion: int, group: int, folder: str) -> PrefixGRPOTrainer:
    """A trainer whose prompts have about `prompt` tokens, and whose completions all have `completion`."""
    model, processor = build(0)
    visual = prompt - 40  # the question and the chat's own tokens
    across = max(2, round(visual**0.5))
    pixels = (across * SIDE, max(1, round(visual / across)) * SIDE)
    area = pixels[0] * pixels[1]
    processor.image_processor.size = {"shortest_edge": area, "longest_edge": area}
    remember_pixels(processor)
    take_detours(model)
    model.model.visual.requires_grad_(False)
    picture = training_scene(0, "bench", 3).image.resize(pixels, Image.Resampling.BILINEAR)
    asked = [
        {"role": "user", "content": [{"type": "text", "text": "Find the bird: " + "round red " * 8}, {"type": "image"}]}
    ]

    def look_up(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        return {"prompt": [asked] * len(batch["row"]), "images": [[picture]] * len(batch["row"])}

    settings = trl.GRPOConfig(
        output_dir=folder, per_device_train_batch_size=group, num_generations=group, max_completion_length=completion,
        generation_kwargs={"min_new_tokens": completion}, beta=0.0, bf16=False, use_cpu=True, report_to="none",
        gradient_checkpointing=False, disable_tqdm=True, remove_unused_columns=False, dataloader_pin_memory=False,
    )  # fmt: skip
    made = PrefixGRPOTrainer(
        model=model,
        reward_funcs=lambda completion_ids, **_: [float(sum(ids) % 97) for ids in completion_ids],
        args=settings,
        train_dataset=Dataset.from_dict({"row": [0, 1]}).with_transform(look_up),
        processing_class=processor,
    )
    made.current_gradient_accumulation_steps = 1
    made.model.train()
    return made


def _measure(prompt: int, completion: int, group: int, rounds: int) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        made = _trainer(prompt, completion, group, folder)
        inputs = next(iter(made.get_train_dataloader()))
        times: dict[str, tuple[list[float], list[float]]] = {part: ([], []) for part in ("learner", "rollout", "rest")}
        sampling = _clocked(made, "_generate_single_turn")
        tokens = _count_tokens(made)
        batch: dict[str, Any] = {}
        for turn in range(rounds + 1):  # the first is for warming up
            for way, shares in enumerate((False, True)):
                made.shares_prefix = shares
                torch.manual_seed(turn)
                sampling.clear()
                whole = _seconds(lambda: batch.update(made._generate_and_score_completions(inputs)))
                held = dict(batch) if shares else {k: v for k, v in batch.items() if k not in ("run", "features")}
                tokens[way] = 0
                learner = _seconds(partial(_learn, made, held, tokens, way))
                if turn:
                    times["learner"][way].append(learner)
                    times["rollout"][way].append(sum(sampling))
                    times["rest"][way].append(whole - sum(sampling))
        medians = {part: tuple(statistics.median(one) for one in both) for part, both in times.items()}
        length = int(batch["prompt_mask"][0].sum())
        read = length + group * completion
        floor = read * made._costs.per_token * 3 / _matrix_rate()
        seen = tokens[0], tokens[1]
    return Result(length, completion, group, **medians, tokens=seen, floor=floor)  # pyright: ignore


def _learn(made: PrefixGRPOTrainer, batch: dict[str, Any], tokens: list[int], way: int) -> None:
    made.model.zero_grad()
    tokens.append(way)  # tells the hook whom it counts for
    made._compute_loss(made.model, batch).backward()
    tokens.pop()


def _count_tokens(made: PrefixGRPOTrainer) -> list[int]:
    """Tokens of learner steps, [stock, ours]; counted only while a third entry says for whom."""
    counted = [0, 0]

    def hook(module: Any, args: Any) -> None:
        if len(counted) == 3:
            counted[counted[2]] += args[0].shape[0] * args[0].shape[1]

    made.model.model.language_model.layers[0].register_forward_pre_hook(hook)
    return counted


def _clocked(made: PrefixGRPOTrainer, name: str) -> list[float]:
    """Note the CPU seconds of a method's calls."""
    stock, seconds = getattr(made, name), []

    def clocked(*args: Any, **kwargs: Any) -> Any:
        started = time.process_time()
        found = stock(*args, **kwargs)
        seconds.append(time.process_time() - started)
        return found

    setattr(made, name, clocked)
    return seconds


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _matrix_rate() -> float:
    """Multiply-adds a second in a large float32 matrix product on this machine, one thread."""
    one, other = torch.randn(1024, 1024), torch.randn(1024, 1024)
    torch.mm(one, other)
    return 4 * 1024**3 / _seconds(lambda: [torch.mm(one, other) for _ in range(4)])


def _peak(way: str, prompt: int, completion: int, group: int) -> int:
    """MiB by which a learner step raises this process's peak."""
    with tempfile.TemporaryDirectory() as folder:
        made = _trainer(prompt, completion, group, folder)
        made.shares_prefix = True
        batch = made._generate_and_score_completions(next(iter(made.get_train_dataloader())))
        held = batch if way == "prefix" else {k: v for k, v in batch.items() if k not in ("run", "features")}
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        _learn(made, held, [0, 0], 0)
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024


def _child(way: str, size: tuple[int, int, int]) -> str:
    command = [sys.executable, "-m", "bench.engine", "--child", way, *map(str, size)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]


def _tell(one: Result) -> None:
    print(f"prompt {one.prompt}, completion {one.completion}, G = {one.group}:")
    for name, (stock, ours) in {
        "learner": one.learner, "rollout": one.rollout, "rest": one.rest, "GRPO step": one.step
    }.items():  # fmt: skip
        print(f"  {name:9}  {stock:8.2f} s stock  {ours:8.2f} s ours  {stock / max(ours, 1e-9):5.2f}x")
    stock, ours = one.tokens
    print(f"  tokens     {stock} stock, {ours} ours: {stock / ours:.2f}x; floor {one.floor:.2f} s, ours at", end=" ")
    print(f"{one.learner[1] / one.floor:.1f} times that")
    reached = one.step[0] / one.step[1]
    print(f"  GRPO step: {reached:.2f}x of {one.allowed:.2f}x that Amdahl's law allows ({reached / one.allowed:.2f})")
    if one.memory is not None:
        print(f"  peak memory of the learner step: {one.memory[0]} MiB stock, {one.memory[1]} MiB ours")


def _machine() -> str:
    return (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one thread; torch {torch.__version__}, "
        f"transformers {transformers.__version__}, trl {trl.__version__}"
    )


def _plot(results: list[Result], file: Path) -> None:
    """Learner step: seconds by size of group, stock and ours, a panel for each prompt."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = sorted({(one.prompt, one.completion) for one in results})
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4 * len(panels), 3.2), squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        mine = [one for one in results if (one.prompt, one.completion) == panel]
        for way, name in enumerate(("stock TRL", "prefix engine")):
            axis.plot([one.group for one in mine], [one.learner[way] for one in mine], marker="o", label=name)
        axis.set(title=f"prompt {panel[0]}, completion {panel[1]}", xlabel="completions a prompt", ylabel="CPU seconds")
        axis.set_ylim(bottom=0)
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()

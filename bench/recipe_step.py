"""How much faster the engine makes GRPO steps of real recipes, and what their rewards cost: stock and ours.

    python -m bench.recipe_step [--rounds 3]                # both recipes from the pocket base, on data made for it
    python -m bench.recipe_step --recipe recipes/rl.yaml --model runs/demo/cot/best --data runs/demo/data

Both ways start from the same weights and seeds and never update them (the optimizer is the same and left out), so they
sample the same answers. A step is sampling, rewards and training. CPU seconds of one thread; the first round warms up.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import torch

from bench.parts.step import clock_calls
from mllm.training import arguments, run, trl_adapter
from mllm.training.grpo.trainer import PrefixGRPOTrainer

from trl import GRPOConfig  # isort: skip

ROOT = Path(__file__).parents[1]
RECIPES = {"recipes/rl.yaml": "grounding", "recipes/captions_self_retrieval.yaml": "captions"}
"""What is measured by default, and the program that makes its data."""


def build(engine: str, recipe: Path, model: str, data: Path, folder: Path) -> Any:
    """Return the trainer that recipes/rl.py would train with."""
    files = ["--train", str(data / "train.jsonl"), "--validation", str(data / "validation.jsonl")]
    flags = ["--config", str(recipe), "--model", model, "--output_dir", str(folder), "--threads", "1", *files]
    settings, args = arguments.read([*flags, "--engine", engine], recipe, GRPOConfig)
    arguments.start(settings, logging.WARNING)
    rewards = run.load_rewards(settings, folder)
    args.reward_weights = [weight for _, weight in rewards.values()]
    prepared = run.prepare(settings, args, answers=False, max_completion_length=args.max_completion_length or 0)
    loaded = run.load_model(settings, prepared.checkpoint, args)
    made: Any = PrefixGRPOTrainer(
        model=loaded.model,
        reward_funcs=[trl_adapter.TrlReward(name, reward, loaded) for name, (reward, _) in rewards.items()],  # pyright: ignore
        args=args,
        train_dataset=trl_adapter.dataset(prepared.data.train, loaded.convention, answers=False),
        processing_class=loaded.processor,
        engine=engine,
    )
    made.current_gradient_accumulation_steps = 1
    made.model.train()
    return made


def compare(recipe: Path, model: str, data: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Take turns, print each step, and return medians: CPU seconds of a step, and the share its rewards take."""
    times: dict[str, list[float]] = {"stock": [], "prefix": []}
    shares: dict[str, list[float]] = {engine: [] for engine in times}
    with tempfile.TemporaryDirectory() as folder:
        ways = {engine: build(engine, recipe, model, data, Path(folder) / engine) for engine in times}
        rewards = {engine: clock_calls(made, "_calculate_rewards") for engine, made in ways.items()}
        batches = {engine: iter(made.get_train_dataloader()) for engine, made in ways.items()}
        for turn in range(rounds + 1):
            for engine, made in ways.items():
                inputs = next(batches[engine])
                torch.manual_seed(turn)
                made.model.zero_grad()
                rewards[engine].clear()
                started = time.process_time()
                loss = made.training_step(made.model, inputs, None)
                taken = time.process_time() - started
                metrics = {name: values[-1] for name, values in made._metrics["train"].items() if values}
                length = metrics["completions/mean_length"]
                print(f"{turn} {engine:6} {taken:6.2f} s, loss {loss:.6f}, {length:.1f} tokens per answer", flush=True)
                if turn:
                    times[engine].append(taken)
                    shares[engine].append(sum(rewards[engine]) / taken)
    return {
        engine: {"seconds": statistics.median(times[engine]), "rewards": statistics.median(shares[engine])}
        for engine in times
    }


def compare_all(rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Measure each of `RECIPES` from the pocket base, on data made for it."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for recipe, maker in RECIPES.items():
            data = Path(folder) / maker
            program = [sys.executable, str(ROOT / "data_synth" / f"{maker}.py")]
            counts = ["--train", "210", "--validation", "14", "--test", "0", "--out", str(data)]
            subprocess.run([*program, *counts], check=True, stderr=subprocess.DEVNULL)
            found[recipe] = compare(ROOT / recipe, "pocket", data, rounds)
    return found


def report(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Format the comparison."""
    lines = ["GRPO steps of recipes, from the pocket base:"]
    for recipe, ways in found.items():
        stock, ours = ways["stock"], ways["prefix"]
        lines.append(
            f"  {recipe}: stock {stock['seconds']:.2f} s, engine {ours['seconds']:.2f} s, "
            f"{stock['seconds'] / ours['seconds']:.2f}x; rewards take {stock['rewards']:.1%} of stock's step, "
            f"{ours['rewards']:.1%} of ours"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "rl.yaml")
    parser.add_argument("--model", help="a checkpoint; without it, all recipes from the pocket base")
    parser.add_argument("--data", type=Path, help="the folder of its train.jsonl and validation.jsonl")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if (args.model is None) != (args.data is None):
        parser.error("--model and --data go together")
    if args.model is None:
        print(report(compare_all(args.rounds)))
    else:
        print(report({str(args.recipe): compare(args.recipe, args.model, args.data, args.rounds)}))


if __name__ == "__main__":
    main()

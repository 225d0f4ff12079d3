"""How much faster is a real recipe's GRPO by the engine? Whole steps of recipes/rl.yaml, stock and ours in turn.

    python bench/recipe_step.py --model runs/demo/cot/best --data runs/demo/data [--rounds 2]

Both start from the same weights and seeds and never move (the optimizer is the same and left out), so they draw the
same answers. A step is sampling, rewards and learning. CPU seconds of one thread; the first round is for warming up.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from mllm.training import bridge, setup, story
from mllm.training.grpo import PrefixGRPOTrainer

from trl import GRPOConfig  # isort: skip

RECIPE = Path(__file__).parents[1] / "recipes" / "rl.yaml"


def build(engine: str, model: Path, data: Path, folder: Path) -> Any:
    """Return the trainer that recipes/rl.py would train with."""
    files = ["--train", str(data / "train.jsonl"), "--validation", str(data / "validation.jsonl")]
    flags = ["--config", str(RECIPE), "--model", str(model), "--output_dir", str(folder), "--threads", "1", *files]
    settings, args = setup.read([*flags, "--engine", engine], RECIPE, GRPOConfig)
    setup.start(settings, logging.WARNING)
    rewards = story.load_rewards(settings, folder)
    args.reward_weights = [weight for _, weight in rewards.values()]
    prepared = story.prepare(settings, args, answers=False, room=args.max_completion_length or 0)
    loaded = story.load_model(settings, prepared.checkpoint, args)
    made: Any = PrefixGRPOTrainer(
        model=loaded.model,
        reward_funcs=[bridge.TrlReward(name, reward, loaded) for name, (reward, _) in rewards.items()],  # pyright: ignore
        args=args,
        train_dataset=bridge.dataset(prepared.data.train, loaded.convention, answers=False),
        processing_class=loaded.processor,
        engine=engine,
    )
    made.current_gradient_accumulation_steps = 1
    made.model.train()
    return made


def main() -> None:
    """Take turns and print each step, then the ratio of medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    times: dict[str, list[float]] = {"stock": [], "prefix": []}
    with tempfile.TemporaryDirectory() as folder:
        ways = {engine: build(engine, args.model, args.data, Path(folder) / engine) for engine in times}
        batches = {engine: iter(made.get_train_dataloader()) for engine, made in ways.items()}
        for turn in range(args.rounds + 1):
            for engine, made in ways.items():
                inputs = next(batches[engine])
                torch.manual_seed(turn)
                made.model.zero_grad()
                started = time.process_time()
                loss = made.training_step(made.model, inputs, None)
                seconds = time.process_time() - started
                told = {name: values[-1] for name, values in made._metrics["train"].items() if values}
                length = told["completions/mean_length"]
                print(f"{turn} {engine:6} {seconds:6.2f} s, loss {loss:.6f}, {length:.1f} tokens an answer", flush=True)
                if turn:
                    times[engine].append(seconds)
    stock, ours = (statistics.median(one) for one in times.values())
    print(f"stock {stock:.2f} s, engine {ours:.2f} s: {stock / ours:.2f}x")


if __name__ == "__main__":
    main()

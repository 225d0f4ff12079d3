"""`fieldmark demo`: the whole pipeline on the pocket world, as a person would type it, ending in a report.

Data is synthesized; the base is fine-tuned to answer at once and to reason first; the reasoning one is trained
further by GRPO; all four are measured on seen and unseen species. The demo is small: its intervals are wide, and the
report claims no order that they do not carry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mllm.pipeline import Pipeline, Stage

MODELS = {"base": "pocket", "SFT": "sft/best", "CoT-SFT": "cot/best", "GRPO": "rl/best"}
"""What the report compares, and where its weights are."""


POCKET_DATA = ("--max-things=4", "--photos-per-entity=12")
"""Two to four things a picture keep thoughts short, and so the demo."""


def demo_stages(out: Path, *, fast: bool = False) -> list[Stage]:
    """Every command of the demo; ``fast`` shrinks all numbers to a trial of the plumbing."""
    data, size = out / "data", _SMALL if fast else _FULL
    counts = (f"--train={size['train']}", f"--validation={size['validation']}", f"--test={size['test']}", *POCKET_DATA)
    stages = [Stage("synthesize data", "mllm.data_synth.grounding", ("--out", str(data), *counts), 16)]
    files = (f"--train={data / 'train.jsonl'}", f"--validation={data / 'validation.jsonl'}")
    for name, recipe, config, folder, steps, seconds in (
        ("SFT (answer at once)", "sft", "sft_direct", "sft", size["sft_steps"], 140),
        ("CoT-SFT (reason first)", "sft", "sft", "cot", size["cot_steps"], 220),
        ("GRPO on top of CoT-SFT", "rl", "rl", "rl", size["rl_steps"], 95),
    ):
        start = () if recipe == "sft" else (f"--model={out / 'cot' / 'best'}",)
        flags = (f"--output_dir={out / folder}", f"--max_steps={steps}", *_every(size), *start, *files)
        config_file = str(recipe_file(config))
        stages.append(Stage(name, f"mllm.recipes.{recipe}", ("--config", config_file, *flags), seconds))
    for name, weights in MODELS.items():
        model = weights if weights == "pocket" else str(out / weights)
        stages.append(Stage(f"benchmark of {name}", "mllm.eval.kvg_bench", _benchmark(out, name, model, size), 10))
    runs = tuple(f"{name}={out / 'eval' / name}" for name in MODELS)
    logs = tuple(f"{name}={out / folder}" for name, folder in (("SFT", "sft"), ("CoT-SFT", "cot"), ("GRPO", "rl")))
    report = ("report", *_repeat("--runs", runs), *_repeat("--logs", logs), "--out", str(out / "report.html"))
    return [*stages, Stage("report", "mllm.cli", report, 3)]


_FULL = {"train": 2400, "validation": 120, "test": 240, "sft_steps": 300, "cot_steps": 300, "rl_steps": 30, "eval": 64}
_SMALL = {"train": 60, "validation": 16, "test": 16, "sft_steps": 2, "cot_steps": 2, "rl_steps": 1, "eval": 4}


def _every(size: dict[str, int]) -> tuple[str, ...]:
    return (f"--evaluate.samples={size['eval']}",)


def _benchmark(out: Path, name: str, model: str, size: dict[str, int]) -> tuple[str, ...]:
    samples = ("--model", model, "--samples", str(out / "data" / "test.jsonl"), "--out", str(out / "eval" / name))
    return (*samples, "--max-new-tokens", "32" if name in ("base", "SFT") else "192", "--batch-size", "48")


def _repeat(flag: str, values: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for value in values for word in (flag, value))


def recipe_file(name: str) -> Path:
    """The recipe's YAML: beside this package in a checkout, inside it in a wheel."""
    inside = Path(__file__).parent / "recipes" / f"{name}.yaml"
    return inside if inside.is_file() else Path(__file__).parents[1] / "recipes" / f"{name}.yaml"


def run_demo(out: Path, *, fast: bool, tell: Callable[[str], None]) -> Path:
    """Run what is not done yet; returns the report's path."""
    pipeline = Pipeline(out, tell)
    pipeline.run(demo_stages(out, fast=fast))
    taken = sum(pipeline.seconds().values())
    tell(f"all done; the stages took {taken / 60:.1f} minutes")
    return out / "report.html"

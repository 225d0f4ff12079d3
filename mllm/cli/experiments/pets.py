"""`fieldmark pets`: the whole chain on real photos of cats and dogs, with the pocket model.

Composites of real photos, questions by breed, reasoning composed from knowledge cards, fine-tuning, a few GRPO steps,
the benchmark. The pocket model has never seen a photograph and will not know cats: what this shows is that real
photos, boxes, names and knowledge go through whole, and that the numbers say honestly what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mllm.cli.experiments.demo import recipe_file
from mllm.cli.experiments.pipeline import Pipeline, Stage
from mllm.errors import FieldmarkError

PHOTOS, CARDS = Path("oxford_pets_sample"), Path("fg_knowledge/descriptors/descriptors_pets.json")
"""Where photos and knowledge lie in the data folder."""
MAX_NEW_TOKENS = 640
"""Tokens for one answer: the pocket tokenizer spells words that it does not know byte by byte."""

_FULL = {"train": 400, "validation": 24, "test": 120, "sft": 120, "rl": 6, "answers": 4, "watched": 12, "watch": 60}
_FAST = {"train": 16, "validation": 4, "test": 4, "sft": 2, "rl": 1, "answers": 2, "watched": 2, "watch": 2}


def pets_stages(data: Path, out: Path, *, model: str = "pocket", fast: bool = False) -> list[Stage]:
    """Every command of the chain; `fast` shrinks all numbers to a trial of the plumbing."""
    size = _FAST if fast else _FULL
    made, cot, rl = out / "data", out / "cot", out / "rl"
    return [
        Stage("synthesize data", "mllm.data_synth.grounding", _synthesis(data, made, size), 60),
        Stage("CoT-SFT", "mllm.recipes.sft", _training("sft", model, made, cot, size), 240),
        Stage("GRPO", "mllm.recipes.rl", _training("rl", str(cot / "best"), made, rl, size), 180),
        Stage("benchmark of the base", "mllm.eval.kvg_bench", _benchmark(model, made, out / "eval" / "base"), 60),
        Stage("benchmark of CoT-SFT", "mllm.eval.kvg_bench", _benchmark(str(cot / "best"), made, out / "eval/cot"), 60),
        Stage("benchmark of GRPO", "mllm.eval.kvg_bench", _benchmark(str(rl / "best"), made, out / "eval/rl"), 60),
        Stage("report", "mllm.cli", _report(out), 10),
    ]


def run_pets(data: Path, out: Path, *, model: str = "pocket", fast: bool, tell: Callable[[str], None]) -> Path:
    """Run what is not done yet; return the report's path.

    Raises:
        FieldmarkError: photos or knowledge are not in the data folder, or a stage failed (says how to go on).
    """
    for needed in (PHOTOS / "annotations.json", CARDS):
        if not (data / needed).is_file():
            raise FieldmarkError(
                f"{data / needed}: not there; name the folder that holds {PHOTOS}/ and {CARDS} "
                "with --data or FIELDMARK_TEST_DATA"
            )
    Pipeline(out, tell).run(pets_stages(data, out, model=model, fast=fast))
    return out / "report.html"


def _synthesis(data: Path, out: Path, size: Mapping[str, int]) -> tuple[str, ...]:
    given = ("--source", "oxford_pets", "--input", str(data / PHOTOS), "--knowledge", str(data / CARDS))
    counts = (f"--train={size['train']}", f"--validation={size['validation']}", f"--test={size['test']}")
    return (*given, "--teacher", "cards", "--max-things", "3", "--max-side", "384", *counts, "--out", str(out))


def _training(recipe: str, model: str, data: Path, out: Path, size: Mapping[str, int]) -> tuple[str, ...]:
    files = (f"--train={data / 'train.jsonl'}", f"--validation={data / 'validation.jsonl'}", f"--output_dir={out}")
    watched = (f"--evaluate.samples={size['watched']}", f"--evaluate.max_new_tokens={MAX_NEW_TOKENS}")
    steps = (f"--max_steps={size[recipe]}", f"--max_tokens_per_sample={2 * MAX_NEW_TOKENS}")
    if recipe == "rl":
        answers = size["answers"]
        limits = (f"--max_completion_length={MAX_NEW_TOKENS}", f"--num_generations={answers}")
        more = (*limits, f"--per_device_train_batch_size={2 * answers}", f"--evaluate.every={size['rl']}")
    else:
        more = ("--per_device_train_batch_size=4", f"--evaluate.every={size['watch']}")
    return ("--config", str(recipe_file(recipe)), f"--model={model}", *files, *watched, *steps, *more)


def _benchmark(model: str, data: Path, out: Path) -> tuple[str, ...]:
    asked = ("--model", model, "--style", "think", "--samples", str(data / "test.jsonl"), "--out", str(out))
    return (*asked, "--max-new-tokens", str(MAX_NEW_TOKENS))


def _report(out: Path) -> tuple[str, ...]:
    runs = (f"base={out / 'eval/base'}", f"CoT-SFT={out / 'eval/cot'}", f"GRPO={out / 'eval/rl'}")
    logs = (f"CoT-SFT={out / 'cot'}", f"GRPO={out / 'rl'}")
    named = [word for flag, pairs in (("--runs", runs), ("--logs", logs)) for pair in pairs for word in (flag, pair)]
    return ("report", *named, "--out", str(out / "report.html"), "--title", "Cats and dogs, with the pocket model")

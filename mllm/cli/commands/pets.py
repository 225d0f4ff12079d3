"""Run the whole chain on real photos of cats and dogs, with the pocket model.

Composites of real photos, questions by breed, reasoning composed from knowledge cards, fine-tuning, a few GRPO steps,
the benchmark. The pocket model has never seen a photograph and will not recognise cats: this shows that real photos,
boxes, names and knowledge pass through every program, not that the answers are good.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from mllm.cli.experiments.pipeline import Pipeline, Stage, answers, counts, report, training
from mllm.errors import FieldmarkError

PHOTOS, CARDS = Path("oxford_pets_sample"), Path("fg_knowledge/descriptors/descriptors_pets.json")
"""Where photos and knowledge are in the data folder."""
MAX_NEW_TOKENS = 640
"""Tokens for one answer: the pocket tokenizer spells words that it does not know byte by byte."""

_FULL = {"train": 400, "validation": 24, "test": 120, "sft": 120, "rl": 6, "answers": 4, "watched": 12, "watch": 60}
_FAST = {"train": 16, "validation": 4, "test": 4, "sft": 2, "rl": 1, "answers": 2, "watched": 2, "watch": 2}


@dataclass(frozen=True)
class Options:
    data: Path = field(default_factory=lambda: Path(os.environ.get("FIELDMARK_TEST_DATA", "../shared/data")))
    """folder that holds oxford_pets_sample/ and fg_knowledge/ (also set by FIELDMARK_TEST_DATA)"""
    out: Path = Path("runs/pets")
    """output folder"""
    model: str = "pocket"
    """model to start from"""
    fast: bool = False
    """only a few steps of everything, to see that it runs"""


def command(options: Options) -> None:
    from mllm.models.checkpoint import base_and_adapter

    base_and_adapter(options.model)  # before the data is made
    for needed in (options.data / PHOTOS / "annotations.json", options.data / CARDS):
        if not needed.is_file():
            way = f"name the folder that holds {PHOTOS}/ and {CARDS} with --data or FIELDMARK_TEST_DATA"
            raise FieldmarkError(f"{needed}: not there; {way}")
    Pipeline(options.out, print).run(pets_stages(options))
    print(f"report: {options.out / 'report.html'}")


def pets_stages(options: Options) -> list[Stage]:
    """Return every command of the chain; `fast` shrinks all numbers to see that it runs."""
    data, out, model = options.data, options.out, options.model
    size, made = _FAST if options.fast else _FULL, out / "data"
    photos = ("--source", "oxford_pets", "--input", str(data / PHOTOS), "--knowledge", str(data / CARDS))
    sizes = ("--max-things", "3", "--max-side", "384", *counts(size["train"], size["validation"], size["test"]))
    both = (
        f"--evaluate.samples={size['watched']}",
        f"--evaluate.max_new_tokens={MAX_NEW_TOKENS}",
        f"--max_tokens_per_sample={2 * MAX_NEW_TOKENS}",
    )
    sft = ("--per_device_train_batch_size=4", f"--evaluate.every={size['watch']}", f"--max_steps={size['sft']}")
    rl = (
        f"--max_completion_length={MAX_NEW_TOKENS}",
        f"--num_generations={size['answers']}",
        f"--per_device_train_batch_size={2 * size['answers']}",
        f"--evaluate.every={size['rl']}",
        f"--max_steps={size['rl']}",
    )
    test, asked = made / "test.jsonl", ("--style", "think", "--max-new-tokens", MAX_NEW_TOKENS)
    cot, tuned = str(out / "cot/best"), str(out / "rl/best")
    folders = {
        "--runs": {"base": "eval/base", "CoT-SFT": "eval/cot", "GRPO": "eval/rl"},
        "--logs": {"CoT-SFT": "cot", "GRPO": "rl"},
    }
    command = (*photos, "--teacher", "cards", *sizes, "--out", str(made))
    return [
        Stage("synthesize data", "mllm.data_synth.grounding", command, 60),
        training("CoT-SFT", "sft", made, out / "cot", (f"--model={model}", *both, *sft), 240),
        training("GRPO", "rl", made, out / "rl", (f"--model={cot}", *both, *rl), 180),
        answers("benchmark of the base", "kvg_bench", model, test, out / "eval/base", asked, 60),
        answers("benchmark of CoT-SFT", "kvg_bench", cot, test, out / "eval/cot", asked, 60),
        answers("benchmark of GRPO", "kvg_bench", tuned, test, out / "eval/rl", asked, 60),
        report(out, folders, ("--title", "Cats and dogs, with the pocket model")),
    ]

"""`fieldmark demo`: the whole pipeline on the pocket world, as a person would type it, ending in a report.

Data is synthesized; the base is fine-tuned to answer at once and to reason first; the reasoning one is trained
further by GRPO; all four are measured on seen and unseen species. Captions are the second act. Stages that do not
need one another run side by side. The demo is small: its intervals are wide, and the report claims no order that they
do not carry.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mllm.cli.experiments.pipeline import Pipeline, Stage, cpus
from mllm.io.files import program_folder

MODELS = {"base": "pocket", "SFT": "sft/best", "CoT-SFT": "cot/best", "GRPO": "rl/best"}
"""What the report compares, and where its weights are."""
JOBS = 2
"""How many stages run at once: the pocket model trains faster twice on one core than once on two."""
POCKET_DATA = ("--max-things=4", "--photos-per-entity=12")
"""Two to four things an image keep thoughts short, and so the demo."""


def demo_stages(out: Path, *, fast: bool = False) -> list[Stage]:
    """Every command of the demo, in the order in which a person would type them; ``fast`` shrinks all numbers to a
    trial of the plumbing."""
    size = _SMALL if fast else _FULL
    first, second = grounding_stages(out, size), caption_stages(out, size)
    return [*first, *second, _report(out, tuple(stage.name for stage in (*first, *second)))]


def grounding_stages(out: Path, size: dict[str, int]) -> list[Stage]:
    """The first act: two kinds of SFT, GRPO on top of one, and the benchmark of them all."""
    data = out / "data"
    counts = (f"--train={size['train']}", f"--validation={size['validation']}", f"--test={size['test']}", *POCKET_DATA)
    stages = [Stage("synthesize data", "mllm.data_synth.grounding", ("--out", str(data), *counts), 45)]
    files = (f"--train={data / 'train.jsonl'}", f"--validation={data / 'validation.jsonl'}")
    watch = (*files, f"--evaluate.samples={size['eval']}")
    cot = f"--model={out / 'cot' / 'best'}"
    for name, config, folder, steps, start, seconds, needed in (
        ("CoT-SFT (reason first)", "sft", "cot", size["cot_steps"], (), 380, "synthesize data"),
        ("SFT (answer at once)", "sft_direct", "sft", size["sft_steps"], (), 150, "synthesize data"),
        ("GRPO on top of CoT-SFT", "rl", "rl", size["rl_steps"], (cot,), 190, "CoT-SFT (reason first)"),
    ):
        flags = (f"--output_dir={out / folder}", f"--max_steps={steps}", *start, *watch)
        stages.append(_training(name, config, flags, seconds, needed))
    for name, weights in MODELS.items():
        model = weights if weights == "pocket" else str(out / weights)
        needs = ("synthesize data", *(stage.name for stage in stages if stage.name.startswith(f"{name} ")))
        flags = _benchmark(out, name, model, size)
        stages.append(Stage(f"benchmark of {name}", "mllm.eval.kvg_bench", flags, 30, needs))
    return stages


def caption_stages(out: Path, size: dict[str, int]) -> list[Stage]:
    """The second act: boosted captions, SFT on them, self-retrieval in growing bags, and who is retrieved by what."""
    data = out / "captions"
    counts = (f"--train={size['images']}", f"--validation={size['watched']}", f"--test={size['told']}")
    made = ("--strategy=holistic", f"--level={LEVEL}", "--sheet=0", f"--out={data}", *counts)
    stages = [Stage("captions: synthesize data", "mllm.data_synth.captions", made, 30)]
    files = (f"--train={data / 'train.jsonl'}", f"--validation={data / 'validation.jsonl'}")
    watch = (*files, f"--evaluate.samples={size['watched']}")
    batch = size["bag_images"]
    grow = (
        f"--model={out / 'captions-sft' / 'best'}",
        f"--limit={batch * size['stage']}",
        f"--per_device_train_batch_size={8 * batch}",
        f"--max_steps={4 * size['stage']}",
        f"--evaluate.every={2 * size['stage']}",
    )
    for name, config, folder, flags, seconds, needed in (
        ("captions: SFT", "captions_vcb_sft", "captions-sft", (f"--max_steps={size['caption_steps']}",), 160,
         "captions: synthesize data"),
        ("captions: self-retrieval", "captions_bagcurri_vcb", "captions-rl", grow, 110, "captions: SFT"),
    ):  # fmt: skip
        stages.append(_training(name, config, (f"--output_dir={out / folder}", *watch, *flags), seconds, needed))
    for name, weights in CAPTIONERS.items():
        folder, model = out / "captions-eval" / name, weights if weights == "pocket" else str(out / weights)
        asked = ("--model", model, "--samples", str(data / "test.jsonl"), "--out", str(folder))
        asked += ("--max-new-tokens", "56", "--batch-size", "48")
        trained = "captions: synthesize data" if name == "base" else f"captions: {name}"
        stages.append(Stage(f"captions: written by {name}", "mllm.eval.captions", asked, 20, (trained,)))
        bags = [str(data / "bags" / "test" / f"bags-{k}-{LEVEL}.jsonl") for k in BAG_SIZES]
        match = ("--captions", str(folder / "outputs.jsonl"), "--samples", str(data / "test.jsonl"), "--bags", *bags)
        match += ("--late", "--out", str(folder / "truematch.json"))
        written = (stages[-1].name,)
        stages.append(Stage(f"captions: TrueMatch of {name}", "mllm.eval.truematch", match, 15, written))
    return stages


def _training(name: str, config: str, flags: tuple[str, ...], seconds: float, needed: str) -> Stage:
    program = "rl" if config in ("rl", "captions_bagcurri_vcb") else "sft"
    words = ("--config", str(recipe_file(config)), f"--threads={max(1, cpus() // JOBS)}", *flags)
    return Stage(name, f"mllm.recipes.{program}", words, seconds, (needed,))


def _report(out: Path, needs: tuple[str, ...]) -> Stage:
    """The page: benchmarks, curves and captions of everything before it."""
    trained = (("SFT", "sft"), ("CoT-SFT", "cot"), ("GRPO", "rl"))
    trained += (("captions, SFT", "captions-sft"), ("captions, self-retrieval", "captions-rl"))
    arguments = (
        "report",
        *_repeat("--runs", tuple(f"{name}={out / 'eval' / name}" for name in MODELS)),
        *_repeat("--logs", tuple(f"{name}={out / folder}" for name, folder in trained)),
        *_repeat("--captions", tuple(f"{name}={out / 'captions-eval' / name}" for name in CAPTIONERS)),
        *("--out", str(out / "report.html")),
    )
    return Stage("report", "mllm.cli", arguments, 10, needs)


CAPTIONERS = {"base": "pocket", "SFT": "captions-sft/best", "self-retrieval": "captions-rl/best"}
"""Whose captions are judged in the second act, and where their weights are."""
BAG_SIZES = (3, 5, 7)
LEVEL = "medium"
"""How alike the images of a bag are. Among hard ones the judge finds few even by captions that tell every mark."""
_FULL = {"train": 2400, "validation": 120, "test": 240, "sft_steps": 200, "cot_steps": 200, "rl_steps": 20, "eval": 64,
         "images": 800, "watched": 70, "told": 210, "caption_steps": 110, "bag_images": 14, "stage": 5}  # fmt: skip
_SMALL = {"train": 60, "validation": 16, "test": 16, "sft_steps": 2, "cot_steps": 2, "rl_steps": 1, "eval": 4,
          "images": 40, "watched": 7, "told": 14, "caption_steps": 2, "bag_images": 7, "stage": 1}  # fmt: skip


def _benchmark(out: Path, name: str, model: str, size: dict[str, int]) -> tuple[str, ...]:
    samples = ("--model", model, "--samples", str(out / "data" / "test.jsonl"), "--out", str(out / "eval" / name))
    return (*samples, "--max-new-tokens", "32" if name in ("base", "SFT") else "192", "--batch-size", "48")


def _repeat(flag: str, values: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for value in values for word in (flag, value))


def recipe_file(name: str) -> Path:
    """Return a recipe's YAML."""
    return program_folder("recipes") / f"{name}.yaml"


def run_demo(out: Path, *, fast: bool, tell: Callable[[str], None]) -> Path:
    """Run what is not done yet; returns the report's path."""
    started = time.monotonic()
    Pipeline(out, tell).run(demo_stages(out, fast=fast), jobs=min(JOBS, cpus()))
    tell(f"all done, in {(time.monotonic() - started) / 60:.1f} minutes")
    return out / "report.html"

"""Run the whole pipeline on the pocket world, from drawing images to the report.

Data is synthesized, with the thoughts of a fallible teacher: half of them jump to a conclusion. The base is fine-tuned
to answer at once and to reason first; GRPO continues the last weights of the reasoning one and teaches it to look
before it answers; all four are measured on seen and unseen species. Then the same for captions. The demo is small: its
intervals are wide, and the report claims no order that they do not support.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from mllm.cli.experiments.pipeline import (
    FALLIBLE,
    POCKET_DATA,
    Pipeline,
    Stage,
    answers,
    counts,
    cpus,
    report,
    training,
)

MODELS = {"base": "pocket", "SFT": "sft/best", "CoT-SFT": "cot/best", "GRPO": "rl/best"}
"""What the report compares, and where its weights are."""
CAPTIONERS = {"base": "pocket", "SFT": "captions-sft/best", "self-retrieval": "captions-rl/best"}
"""Whose captions are judged, and where their weights are."""
JOBS = 2
"""How many stages run at once: the pocket model trains faster twice on one core than once on two."""
THREADS = f"--threads={max(1, cpus() // JOBS)}"
BAG_SIZES = (3, 5, 7)
LEVEL = "medium"
"""How alike the images of a bag are. Among hard ones the judge finds few even by captions that name every mark."""
_FULL = {"train": 2400, "validation": 120, "test": 240, "sft_steps": 200, "cot_steps": 220, "rl_steps": 16, "eval": 64,
         "images": 800, "watched": 70, "tested": 210, "caption_steps": 110, "bag_images": 14, "stage": 5}  # fmt: skip
_SMALL = {"train": 60, "validation": 16, "test": 16, "sft_steps": 2, "cot_steps": 2, "rl_steps": 1, "eval": 4,
          "images": 40, "watched": 7, "tested": 14, "caption_steps": 2, "bag_images": 7, "stage": 1}  # fmt: skip


@dataclass(frozen=True)
class Options:
    out: Path = Path("runs/demo")
    """output folder"""
    fast: bool = False
    """only a few steps of everything, to see that it runs"""


def command(options: Options) -> None:
    started = time.monotonic()
    Pipeline(options.out, print).run(demo_stages(options.out, fast=options.fast), jobs=min(JOBS, cpus()))
    print(f"all done, in {(time.monotonic() - started) / 60:.1f} minutes\nreport: {options.out / 'report.html'}")


def demo_stages(out: Path, *, fast: bool = False) -> list[Stage]:
    """Return every command of the demo; `fast` shrinks all numbers to see that it runs."""
    size = _SMALL if fast else _FULL
    stages = [*grounding_stages(out, size), *caption_stages(out, size)]
    logs = {"SFT": "sft", "CoT-SFT": "cot", "GRPO": "rl"}
    logs |= {"captions, SFT": "captions-sft", "captions, self-retrieval": "captions-rl"}
    folders = {
        "--runs": {name: f"eval/{name}" for name in MODELS},
        "--logs": logs,
        "--captions": {name: f"captions-eval/{name}" for name in CAPTIONERS},
    }
    return [*stages, report(out, folders, needs=tuple(stage.name for stage in stages))]


def grounding_stages(out: Path, size: dict[str, int]) -> list[Stage]:
    """Return two kinds of SFT, GRPO on top of one, and the benchmark of them all."""
    data, made, cards = out / "data", "synthesize data", "recall questions"
    sizes = (*counts(size["train"], size["validation"], size["test"]), *POCKET_DATA, *FALLIBLE)
    recall = ("--knowledge", str(data / "knowledge.json"), "--out", str(data / "recall.jsonl"))
    stages = [
        Stage(made, "mllm.data_synth.grounding", ("--out", str(data), *sizes), 45),
        Stage(cards, "mllm.data_synth.recall", recall, 5, (made,)),
    ]
    # Measured at its end only: RL starts from the last weights, as the papers' does, not from an early checkpoint.
    cot = (f"--mix={data / 'recall.jsonl'}", f"--evaluate.every={size['cot_steps']}")
    rl = (f"--model={out / 'cot' / 'best'}", "--evaluate.every=4", "--logging_steps=1")
    for name, config, folder, steps, own, seconds, needed in (
        ("CoT-SFT (reason first)", "sft", "cot", size["cot_steps"], cot, 300, cards),
        ("SFT (answer at once)", "sft_direct", "sft", size["sft_steps"], (), 150, made),
        ("GRPO on top of CoT-SFT", "rl", "rl", size["rl_steps"], rl, 190, "CoT-SFT (reason first)"),
    ):
        flags = (f"--max_steps={steps}", f"--evaluate.samples={size['eval']}", *own, THREADS)
        stages.append(training(name, config, data, out / folder, flags, seconds, (needed,)))
    for name, weights in MODELS.items():
        needs = (made, *(stage.name for stage in stages if stage.name.startswith(f"{name} ")))
        flags = ("--max-new-tokens", 32 if name in ("base", "SFT") else 192, "--batch-size", 48)
        model, folder, test = _model(out, weights), out / "eval" / name, data / "test.jsonl"
        stages.append(answers(f"benchmark of {name}", "kvg_bench", model, test, folder, flags, 30, needs))
    return stages


def caption_stages(out: Path, size: dict[str, int]) -> list[Stage]:
    """Return boosted captions, SFT on them, self-retrieval in growing bags, and what each caption retrieves."""
    data, made = out / "captions", "captions: synthesize data"
    sizes = counts(size["images"], size["watched"], size["tested"])
    boosted = ("--strategy=holistic", f"--level={LEVEL}", "--sheet=0", f"--out={data}", *sizes)
    stages = [Stage(made, "mllm.data_synth.captions", boosted, 30)]
    batch, watch = size["bag_images"], (f"--evaluate.samples={size['watched']}", THREADS)
    grow = (
        f"--model={out / 'captions-sft' / 'best'}",
        f"--limit={batch * size['stage']}",
        f"--per_device_train_batch_size={8 * batch}",
        f"--max_steps={4 * size['stage']}",
        f"--evaluate.every={2 * size['stage']}",
    )
    for name, config, folder, flags, seconds, needed in (
        ("SFT", "captions_vcb_sft", "captions-sft", (f"--max_steps={size['caption_steps']}",), 160, made),
        ("self-retrieval", "captions_bagcurri_vcb", "captions-rl", grow, 110, "captions: SFT"),
    ):
        name, flags = f"captions: {name}", (*watch, *flags)
        stages.append(training(name, config, data, out / folder, flags, seconds, (needed,)))
    for name, weights in CAPTIONERS.items():
        folder, test, written = out / "captions-eval" / name, data / "test.jsonl", f"captions: written by {name}"
        needs = (made if name == "base" else f"captions: {name}",)
        flags = ("--max-new-tokens", 56, "--batch-size", 48)
        stages.append(answers(written, "captions", _model(out, weights), test, folder, flags, 20, needs))
        stages.append(judged(f"captions: TrueMatch of {name}", data, folder, (written,)))
    return stages


def judged(name: str, data: Path, captions: Path, needs: tuple[str, ...] = ()) -> Stage:
    """Return the stage that scores the captions in a folder in the test bags of `data`."""
    arguments = (
        *("--captions", str(captions / "outputs.jsonl"), "--samples", str(data / "test.jsonl")),
        *("--bags", *(str(data / "bags" / "test" / f"bags-{size}-{LEVEL}.jsonl") for size in BAG_SIZES)),
        *("--late", "--out", str(captions / "truematch.json")),
    )
    return Stage(name, "mllm.eval.truematch", arguments, 15, needs)


def _model(out: Path, weights: str) -> str:
    return weights if weights == "pocket" else str(out / weights)

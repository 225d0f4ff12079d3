"""The story of a preflight: read the recipe, look at everything that can be looked at, say what could not be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from mllm import rewards
from mllm.config import Settings
from mllm.knowledge.mastery import LEVELS
from mllm.models.checkpoint import Checkpoint
from mllm.records import Sample
from mllm.rewards import BaseReward
from mllm.training import dataset, example_data, recipe, trl_adapter
from mllm.training import run as story
from mllm.training.dataset import Data
from mllm.training.grpo import bag_curriculum
from mllm.training.preflight import (
    Finding,
    State,
    base_model,
    hardware,
    run_spec,
    token_lengths,
)
from mllm.training.preflight import (
    findings as told,
)
from mllm.training.preflight import (
    steps as batches,
)
from mllm.training.preflight.hardware import Machine
from mllm.training.preflight.token_lengths import Lengths
from mllm.training.recipe import Recipe


@dataclass(frozen=True)
class Proof:
    """What was found, in the order in which it was looked at."""

    recipe: Recipe
    machine: Machine
    findings: tuple[Finding, ...]

    def passed(self, *, strict: bool) -> bool:
        """Whether nothing is bad, and with `strict` nothing unchecked either."""
        return not {found.state for found in self.findings} & ({"bad", "not checked"} if strict else {"bad"})


def prove(
    file: Path,
    flags: Sequence[str] = (),
    *,
    accelerate: Path | None = None,
    processes: int | None = None,
    gpu_memory: float | None = None,
    rows: int | None = None,
) -> Proof:
    """Prove a recipe on the machine that its header names, or on the one given.

    Args:
        file: the recipe's YAML.
        flags: flags of the recipe that win over it.
        accelerate: accelerate configuration; None takes the one in the command of the recipe's header.
        processes: how many, whatever the configuration says.
        gpu_memory: GiB a GPU; None: 80 with several processes, 24 with one.
        rows: how many there will be, for the time, where the files are not there yet.

    Raises:
        FieldmarkError: what the recipe itself would refuse: settings, rewards, rows, images, groups that do not fit
            the batch.
    """
    # Before the recipe is read: its batch is that of all processes.
    host = hardware.read(accelerate or recipe.accelerate_file(file), processes=processes, gpu_memory=gpu_memory)
    read = recipe.read(file, flags, processes=host.processes)
    settings, tables = _stand_in(read.settings)
    chosen = story.load_rewards(settings) if read.kind == "rl" else {}
    model = base_model.find_model(read)
    dissect = run_spec.dissector(model.config, model.family)
    body = dissect(read.settings, model.lora)
    findings = [told.model(model, body), told.parts(body)]

    checkpoint, opened = base_model.open_processor(read.settings, model)
    data, brought = read_rows(read)
    findings += [opened, brought, *tables]
    most_visual = model.budget.max_pixels // model.family.factor**2
    count, wholes = token_lengths.bound(most_visual, *_room(read), answers=read.kind == "sft"), []
    if data is not None:
        records = [trl_adapter.with_its_image(row) for row in data.train]
        samples = [record for record in records if isinstance(record, Sample)]
        chosen = chosen or _measures(settings, samples)
        lines, count, wholes = measure(read, data, samples, checkpoint)
        findings += lines
        for reward, _ in chosen.values():
            reward.check(samples)
        if chosen:
            findings.append(told.gold_answers(samples, chosen, checkpoint))
        if settings.bags is not None and read.kind == "rl":
            findings.append(told.bags(bag_curriculum.sampler(settings.bags, samples, read.args)))
    expected = min(rows, settings.limit or rows) if rows else 0
    steps = batches.count(read, len(data.train) if data else expected) if data or rows else None
    findings.append(told.batch_sizes(read, steps))
    run = run_spec.of(read, model.lora, host, count)
    findings.append(told.memory(run, dissect))
    if steps is not None:
        findings.append(told.time(run, body, steps, mean(wholes) if wholes else count.whole, bool(wholes)))
    return Proof(read, host, tuple(findings))


def read_rows(read: Recipe) -> tuple[Data | None, Finding]:
    """Read and check the rows by the run's own code, where the files are there."""
    files = [
        *read.settings.train,
        *read.settings.mix,
        *([read.settings.validation] if read.settings.validation else []),
    ]
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        folder = Path(missing[0]).parent
        make = "python data_synth/grounding.py"
        if folder in example_data.POCKET_CAPTIONS:
            make = " ".join(["python data_synth/captions.py", *example_data.POCKET_CAPTIONS[folder]])
        elif folder != example_data.POCKET_DATA:
            make += f" --source csv --input photos.csv --knowledge cards.yaml --teacher cards --out {folder}"
        return None, Finding("rows", "not checked", (f"not there yet: {', '.join(missing)}", make))
    data = dataset.read_data(read.settings, answers=read.kind == "sft")
    images = len({row.image for row in data.train if row.image})
    line = f"{len(data.train)} to train on, on {images} images whose sizes agree; {len(data.validation)} to watch"
    return data, Finding("rows", "good", (line,))


def measure(
    read: Recipe, data: Data, samples: list[Sample], checkpoint: Checkpoint
) -> tuple[list[Finding], Lengths, list[int]]:
    """Measure the rows: visual tokens from headers, and whole rows where there is a tokenizer."""
    limit, room = _room(read)
    answers = read.kind == "sft"
    seen = token_lengths.visual(samples, checkpoint.family, checkpoint.convention.budget)
    found = [Finding("visual tokens", "good", (told.spread(seen), *token_lengths.histogram(seen)))]
    if checkpoint.processor is None:
        least = max(seen) + room
        state: State = "bad" if least > limit else "not checked"
        line = f"images alone take up to {max(seen)} of max_tokens_per_sample = {limit}"
        line += f", with {room} kept free for the answer" if room else ""
        found.append(Finding("row lengths", state, (line, "comes with the tokenizer (above)")))
        return found, token_lengths.bound(max(seen), limit, room, answers=answers), []
    dataset.check_rows(data, checkpoint, read.settings, answers=answers, room=room)
    prompts, wholes = token_lengths.prompts_and_wholes(samples, checkpoint, answers=answers, room=room)
    rows = [row for row in data.train if isinstance(row.record, Sample)]
    most, ids = token_lengths.longest(rows, wholes, min(read.per_device, len(rows)))
    lines = (
        told.spread(wholes) + (f", {room} of them kept free for the answer" if room else ""),
        *token_lengths.histogram(wholes),
        f"longest batch: {most} tokens, padded, in {len(ids)} rows: {', '.join(ids[:4])}{', ...' * (len(ids) > 4)}",
    )
    found.append(Finding("row lengths", "good", lines))
    written = max(whole - prompt for whole, prompt in zip(wholes, prompts, strict=True))
    return found, Lengths(max(seen), max(prompts), written, max(wholes), True), wholes


def _stand_in(settings: Settings) -> tuple[Settings, list[Finding]]:
    """Let something stand in for files that are not there yet, and say which: the middle level, whose factor is 1, for
    a mastery file, no bags for a bag file."""
    absent = [file for file in settings.tables if not file.is_file()]
    bags = [str(file) for file in absent if settings.bags is not None and file in settings.bags.files]
    masteries = [str(file) for file in absent if str(file) not in bags]
    sections = {name: dict(fields) for name, fields in settings.rewards.items()}
    if sections.get("mastery", {}).get("file") in masteries:
        sections["mastery"] |= {"file": None, "unknown": LEVELS[2]}
    samples, found = settings.train[0] if settings.train else "FILE", []
    if masteries:
        make = f"python eval/mastery.py --model MODEL --samples {samples} --out {Path(masteries[0]).parent}"
        found.append(Finding("mastery", "not checked", (f"not there yet: {', '.join(masteries)}", make)))
    if bags:
        make = f"python data_synth/bags.py --samples {samples} --out {Path(bags[0]).parent}"
        found.append(Finding("bags", "not checked", (f"not there yet: {', '.join(bags)}", make)))
        for name in sections:
            if sections[name].get("over", "batch") != "batch":
                sections[name]["over"] = "batch"
    changes = {"rewards": sections} | ({"bags": None} if bags else {})
    return settings.model_copy(update=changes), found


def _measures(settings: Settings, samples: Sequence[Sample]) -> dict[str, tuple[BaseReward, float]]:
    """Return what an SFT run's gold answers are scored by: the benchmark's IoU and the form of the prompt's style, of
    captions the share of true claims, where marks are known."""
    found: dict[str, dict[str, Any]] = {}
    if not all(sample.task == "caption" for sample in samples):
        found |= {"format": {"style": settings.style}, "iou": {}}
    if any(sample.task == "caption" and any(thing.marks for thing in sample.things) for sample in samples):
        found["faithful"] = {}
    return rewards.load_all(found)


def _room(read: Recipe) -> tuple[int, int]:
    """Return the tokens a row may have, and those of them that stay free for the answer."""
    return read.settings.max_tokens_per_sample, read.args.max_completion_length if read.kind == "rl" else 0

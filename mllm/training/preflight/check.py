"""Runs all checks of a recipe in order, and reports what could not be checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from mllm import rewards
from mllm.config import Settings
from mllm.knowledge.mastery import LEVELS
from mllm.models.checkpoint import Checkpoint
from mllm.pocket.captions import foreign_mark
from mllm.prompting import conversations
from mllm.prompting.tasks import task_of
from mllm.records import Sample
from mllm.rewards import BaseReward
from mllm.training import config_file, dataset, recipe, run, trl_adapter
from mllm.training.dataset import Data
from mllm.training.grpo import bag_curriculum
from mllm.training.grpo.dynamic_sampling import DynamicSampling
from mllm.training.preflight import Finding, State, base_model, findings, parameters, runtime
from mllm.training.preflight.run_spec import Hardware, TokenLengths, max_answer, read_hardware, run_spec, upper_bound
from mllm.training.recipe import Recipe


@dataclass(frozen=True)
class Preflight:
    """A recipe, the hardware it was checked for, and the findings in order."""

    recipe: Recipe
    hardware: Hardware
    findings: tuple[Finding, ...]

    def passed(self, *, strict: bool) -> bool:
        """Whether no finding is bad and, with `strict`, none is unchecked."""
        return not {found.state for found in self.findings} & ({"bad", "not checked"} if strict else {"bad"})


def check_recipe(
    file: Path,
    flags: Sequence[str] = (),
    *,
    accelerate: Path | None = None,
    processes: int | None = None,
    gpu_memory: float | None = None,
    rows: int | None = None,
) -> Preflight:
    """Check a recipe for the hardware that its header names, or for the one given.

    Args:
        file: the recipe's YAML, or its name.
        flags: flags of the recipe, which override the file.
        accelerate: accelerate configuration; None: the one in the command of the recipe's header.
        processes: number of processes; overrides the configuration.
        gpu_memory: GiB per GPU; None: 80 with several processes, 24 with one.
        rows: how many rows there will be, to bound the time before the files exist.

    Raises:
        FieldmarkError: what the recipe itself would refuse: settings, rewards, rows, images, groups that do not fit
            the batch.
    """
    file = config_file.find(file)
    # Before the recipe is read: its batch is that of all processes.
    machine = read_hardware(accelerate or recipe.accelerate_file(file), processes=processes, gpu_memory=gpu_memory)
    read = recipe.read(file, flags, processes=machine.processes)
    settings, missing_tables = _without_missing_tables(read.settings)
    chosen = run.load_rewards(settings) if read.kind == "rl" else {}
    if read.kind == "rl" and settings.dynamic_sampling != "off":
        DynamicSampling(settings.dynamic_sampling).check(read.args, settings.train)
    model = base_model.find_model(read)
    count = parameters.counter(model.config, model.family)
    counts = count(read.settings, model.lora)
    checkpoint, tokenizer_finding = base_model.open_processor(read.settings, model)
    data, rows_finding = read_rows(read)
    found = [findings.model_size(model, counts), findings.trained_parts(counts)]
    found += [tokenizer_finding, rows_finding, *missing_tables]
    lengths = upper_bound(read, model.most_visual_tokens)
    mean_tokens: float = lengths.row
    if data is not None:
        records = [trl_adapter.with_its_image(row) for row in data.train]
        samples = [record for record in records if isinstance(record, Sample)]
        chosen = chosen or _sft_measures(settings, samples)
        length_findings, lengths, mean_tokens = measure(read, data, samples, checkpoint)
        found += length_findings
        for reward, _ in chosen.values():
            reward.check(samples)
        if chosen:
            found.append(findings.gold_answers(samples, chosen, checkpoint))
        if settings.bags is not None and read.kind == "rl":
            found.append(findings.bags(bag_curriculum.sampler(settings.bags, samples, read.args)))
    expected = len(data.train) if data else min(rows, settings.limit or rows) if rows else None
    step_counts = None if expected is None else runtime.count_steps(read, expected)
    spec = run_spec(read, model.lora, machine, lengths)
    found += [findings.batch_sizes(read, step_counts), findings.memory(spec, count)]
    if step_counts is not None:
        found.append(findings.time(spec, counts, step_counts, mean_tokens))
    return Preflight(read, machine, tuple(found))


def read_rows(read: Recipe) -> tuple[Data | None, Finding]:
    """Read and check the rows with the run's own code; None if a file does not exist yet."""
    settings = read.settings
    files = [*settings.train, *settings.mix, *([settings.validation] if settings.validation else [])]
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        folder = Path(missing[0]).parent
        make = "python data_synth/grounding.py"
        if folder in dataset.POCKET_CAPTIONS:
            make = " ".join(["python data_synth/captions.py", *dataset.POCKET_CAPTIONS[folder]])
        elif folder != dataset.POCKET_DATA:
            make += f" --source csv --input photos.csv --knowledge cards.yaml --teacher cards --out {folder}"
        return None, _not_there(missing, "rows", make)
    data = dataset.read_data(settings, answers=read.kind == "sft")
    images = len({row.image for row in data.train if row.image})
    line = f"{len(data.train)} to train on, with {images} images whose sizes match; {len(data.validation)} to validate"
    return data, Finding("rows", "good", (line,))


def measure(
    read: Recipe, data: Data, samples: list[Sample], checkpoint: Checkpoint
) -> tuple[list[Finding], TokenLengths, float]:
    """Measure the rows: visual tokens from image headers, and complete rows if there is a tokenizer.

    Returns the findings, the longest lengths, and the mean length of a row in tokens.
    """
    max_length, max_new_tokens, answers = read.settings.max_tokens_per_sample, max_answer(read), read.kind == "sft"
    note = f", {max_new_tokens} of them kept free for the answer" if max_new_tokens else ""
    # Each sample's size has been compared with its image's header.
    visual = [checkpoint.family.visual_tokens(sample.size, checkpoint.convention.budget) for sample in samples]
    found = [Finding("visual tokens", "good", findings.lengths(visual))]
    if checkpoint.processor is None:
        state: State = "bad" if max(visual) + max_new_tokens > max_length else "not checked"
        line = f"images alone take up to {max(visual)} of max_tokens_per_sample = {max_length}{note}"
        found.append(Finding("row lengths", state, (line, "measured once the tokenizer is there (see above)")))
        lengths = upper_bound(read, max(visual))
        return found, lengths, lengths.row
    dataset.check_rows(data, checkpoint, read.settings, answers=answers, max_completion_length=max_new_tokens)
    prompts = conversations.lengths(samples, checkpoint, answers=False)
    totals = conversations.lengths(samples, checkpoint) if answers else [count + max_new_tokens for count in prompts]
    rows = [row for row in data.train if isinstance(row.record, Sample)]
    order = sorted(range(len(rows)), key=lambda k: (-totals[k], rows[k].record.id))[: read.per_device]
    ids = [rows[k].record.id for k in order]
    batch = f"longest batch: {len(ids) * max(totals)} tokens, padded, in {len(ids)} rows"
    batch += f": {', '.join(ids[:4])}{', ...' * (len(ids) > 4)}"
    found.append(Finding("row lengths", "good", (*findings.lengths(totals, note), batch)))
    answer = max(total - prompt for total, prompt in zip(totals, prompts, strict=True))
    return found, TokenLengths(max(visual), max(prompts), answer, max(totals), True), mean(totals)


def _without_missing_tables(settings: Settings) -> tuple[Settings, list[Finding]]:
    """Replace files that do not exist yet, and report them: a mastery file by the middle level, whose factor is 1,
    and a bag file by no bags."""
    absent = [file for file in settings.tables if not file.is_file()]
    bags = [str(file) for file in absent if settings.bags is not None and file in settings.bags.files]
    masteries = [str(file) for file in absent if str(file) not in bags]
    sections = {name: dict(fields) for name, fields in settings.rewards.items()}
    if sections.get("mastery", {}).get("file") in masteries:
        sections["mastery"] |= {"file": None, "unknown": LEVELS[2]}
    samples, found = settings.train[0] if settings.train else "FILE", []
    if masteries:
        make = f"python eval/mastery.py --model MODEL --samples {samples} --out {Path(masteries[0]).parent}"
        found.append(_not_there(masteries, "mastery", make))
    if bags:
        make = f"python data_synth/bags.py --samples {samples} --out {Path(bags[0]).parent}"
        found.append(_not_there(bags, "bags", make))
        for section in sections.values():
            if "over" in section:
                section["over"] = "batch"
    changes = {"rewards": sections} | ({"bags": None} if bags else {})
    return settings.model_copy(update=changes), found


def _not_there(files: Sequence[str], topic: str, command: str) -> Finding:
    return Finding(topic, "not checked", (f"not there yet: {', '.join(files)}", command))


def _sft_measures(settings: Settings, samples: Sequence[Sample]) -> dict[str, tuple[BaseReward, float]]:
    """Return what scores the gold answers of an SFT run: the benchmarks' measures and the format of the prompt
    style; for captions of the pocket world, whose marks are known, the share of true claims."""
    chosen: dict[str, dict[str, Any]] = {}
    if not all(sample.task == "caption" for sample in samples):
        chosen |= {"format": {"style": settings.style}}
    if any(task_of(sample).has_boxes for sample in samples):
        chosen["iou"] = {}
    if any(sample.task == "name" for sample in samples):
        chosen["name"] = {}
    marks = [thing.marks for sample in samples if sample.task == "caption" for thing in sample.things if thing.marks]
    if marks and not foreign_mark(marks):
        chosen["faithful"] = {}
    return rewards.load_all(chosen)

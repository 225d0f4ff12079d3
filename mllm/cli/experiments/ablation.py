"""An ablation: several ways of training with the same tuning budget, compared in one table.

Each learning rate of an arm is tried once, on the first seed; the best on the validation split is kept, as are
checkpoints. The test split is used once, at the end. Intervals resample images and seeds. A stopped run resumes;
weights, raw outputs and seeds stay in the output folder.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from mllm.cli.experiments.arms import Arm, Sizes, Variant
from mllm.cli.experiments.pipeline import POCKET_DATA, Pipeline, Stage, answers, counts, cpus, training
from mllm.io.files import write_bytes
from mllm.io.tables import MISSING, markdown, percent_interval

BASE = "base"
SEEN_OF = {"seen entities": (True,), "unseen entities": (False,), "all": (True, False, None)}


class AblationTask(ABC):
    """What the models of an ablation learn: their data, how they are measured, and the columns of the table."""

    criterion: ClassVar[str]
    """score on the validation split that chooses rates and checkpoints"""
    columns: ClassVar[tuple[str, ...]]
    """shares, shown in percent with intervals"""
    plain_columns: ClassVar[tuple[str, ...]] = ()
    """numbers that are shown as their mean"""
    also_measured: ClassVar[tuple[str, ...]] = ()
    """rows of the table that belong to no model"""
    row_title, pairing, preface = "arm", "sample", ""

    def __init__(self, out: Path, sizes: Sizes) -> None:
        self.out, self.sizes = out, sizes

    def folder(self, arm: str, seed: int) -> Path:
        """Return the folder of an arm's outputs on the test split."""
        return self.out / "eval" / f"{arm.replace(' ', '_')}-seed{seed}"

    @abstractmethod
    def data(self) -> list[Stage]:
        """Return the stages that make the data."""

    def files(self, arm: Arm) -> Path:
        """Return the folder of an arm's train.jsonl and validation.jsonl."""
        return self.out / "data"

    @abstractmethod
    def measurements(self, models: Sequence[tuple[str, int, str, str]]) -> Iterator[list[Stage]]:
        """Yield stages that measure (arm, seed, style, weights) on the test split; each list needs the one before."""

    @abstractmethod
    def values(self, folder: Path) -> dict[str, list[tuple[float, str]]]:
        """Return for each column the value of each test sample, with the group that the intervals resample."""


class GroundingTask(AblationTask):
    """Boxes of pocket creatures, measured by Acc@0.5 on seen and unseen entities."""

    criterion = "eval/acc"
    columns = tuple(SEEN_OF)

    def data(self) -> list[Stage]:
        """Return the one stage that makes the data."""
        sizes = counts(self.sizes.train, self.sizes.validation, self.sizes.test)
        out = str(self.out / "data")
        return [Stage("data", "mllm.data_synth.grounding", ("--out", out, *sizes, *POCKET_DATA), 60)]

    def measurements(self, models: Sequence[tuple[str, int, str, str]]) -> Iterator[list[Stage]]:
        """Yield the benchmarks of all models."""
        stages = []
        for arm, seed, style, model in models:
            tokens = 32 if style == "direct" else self.sizes.max_new_tokens
            flags = ("--max-new-tokens", tokens, "--batch-size", 48)
            test, out = self.out / "data" / "test.jsonl", self.folder(arm, seed)
            stages.append(answers(f"benchmark of {arm}, seed {seed}", "kvg_bench", model, test, out, flags, 90))
        yield stages

    def values(self, folder: Path) -> dict[str, list[tuple[float, str]]]:
        """Return the hits of each slice, by image."""
        from mllm.evaluation import runs

        cases = runs.load(folder).cases
        return {
            part: [(float(case.hit), case.sample.group) for case in cases if case.sample.seen in seen]
            for part, seen in SEEN_OF.items()
        }


@dataclass(frozen=True, slots=True)
class Ablation:
    """Arms (a start comes before those that start from it), and pairs of arms: the second is compared to the first.

    Each variant is tried once on the arm `screened`, on the first seed; the best on the validation split becomes the
    settings of all arms of its recipe.
    """

    task: type[AblationTask]
    sizes: Sizes
    arms: tuple[Arm, ...]
    comparisons: tuple[tuple[str, str], ...]
    screened: str = ""
    variants: tuple[Variant, ...] = ()


class AblationRun:
    """An ablation in one folder."""

    def __init__(self, out: Path, ablation: Ablation, report: Callable[[str], None]) -> None:
        self.out, self.ablation, self.sizes, self._report = out, ablation, ablation.sizes, report
        self.task = ablation.task(out, ablation.sizes)
        self.pipeline = Pipeline(out, report)
        self.rates: dict[str, str] = {}
        self.variants: dict[str, str] = {}
        """The variant of an arm, where it is not the arm as it is written."""
        self._screening = ""

    def run(self, file: str = "table.md") -> str:
        """Run what is missing; returns the table as markdown and writes it to `file` in the output folder."""
        arms, seeds = self.ablation.arms, self.sizes.seeds
        self.pipeline.run(self.task.data())
        for wave in ([arm for arm in arms if arm.start is None], [arm for arm in arms if arm.start is not None]):
            wave = self._screen(wave)
            self._tune(wave)
            self._train([(arm, seed, self.rates[arm.name]) for seed in seeds[1:] for arm in wave])
        models = [(BASE, 0, "direct", "pocket")]
        models += [(arm.name, seed, arm.style, self._weights(arm.name, seed)) for arm in arms for seed in seeds]
        for stages in self.task.measurements(models):
            self.pipeline.run(stages, cpus())
        table = self.table()
        write_bytes(self.out / file, table.encode())
        return table

    def _screen(self, arms: Sequence[Arm]) -> Sequence[Arm]:
        """Try each variant with its last learning rate; return the arms with the best (the first of equals)."""
        arm = next((arm for arm in arms if arm.name == self.ablation.screened), None)
        if arm is None:
            return arms
        seed, variants = self.sizes.seeds[0], {variant.name: variant for variant in self.ablation.variants}
        tried = {
            name: replace(variant.of(arm), name=f"{arm.name}, {name}" if variant.flags else arm.name)
            for name, variant in variants.items()
        }
        self._train([(one, seed, one.rates[-1]) for one in tried.values()])
        found = {name: self._validation_score(one.name, seed, one.rates[-1]) for name, one in tried.items()}
        best = max(found, key=lambda name: found[name])
        scores = ", ".join(f"{name} {100 * score:.1f}" for name, score in found.items())
        self._screening = f"Screening of {arm.name} on the validation split, seed {seed}: {scores}. {best} is kept.\n\n"
        self._report(self._screening.strip())
        same = {one.name for one in arms if one.config == arm.config}
        self.variants = dict.fromkeys(same, best) if variants[best].flags else {}
        return [variants[best].of(one) if one.name in same else one for one in arms]

    def _validation_score(self, arm: str, seed: int, rate: str) -> float:
        file = self._folder(arm, seed, rate) / "best" / "score.json"
        return float(json.loads(file.read_text(encoding="utf-8"))[self.task.criterion])

    def _tune(self, arms: Sequence[Arm]) -> None:
        """Try each learning rate on the first seed; keep the best on validation (the first of equals)."""
        seed, criterion = self.sizes.seeds[0], self.task.criterion
        self._train([(arm, seed, rate) for arm in arms for rate in arm.rates])
        for arm in arms:
            found = {rate: self._validation_score(arm.name, seed, rate) for rate in arm.rates}
            self.rates[arm.name] = max(found, key=lambda rate: found[rate])
            self._report(f"{arm.name}: validation {criterion} {found}; learning rate {self.rates[arm.name]} is kept")

    def _train(self, runs: Sequence[tuple[Arm, int, str]]) -> None:
        """Train (arm, seed, learning rate), one core each, after measuring the mastery that some of them need."""
        weighted = {(str(arm.start), seed) for arm, seed, _ in runs if "{mastery}" in " ".join(arm.flags)}
        self.pipeline.run([self._measure_mastery(*one) for one in sorted(weighted)], cpus())
        self.pipeline.run([self._training(*one) for one in runs], cpus())

    def _training(self, arm: Arm, seed: int, rate: str) -> Stage:
        mastery = str(self._mastery(arm.start, seed)) if arm.start else ""
        flags = (
            f"--model={self._weights(arm.start, seed) if arm.start else 'pocket'}",
            f"--evaluate.samples={self.sizes.validation}",
            f"--max_steps={arm.steps}",
            f"--learning_rate={rate}",
            f"--seed={seed}",
            "--threads=1",
            *(flag.replace("{mastery}", mastery).replace("{out}", str(self.out)) for flag in arm.flags),
        )
        name, out = f"{self._label(arm.name)}, learning rate {rate}, seed {seed}", self._folder(arm.name, seed, rate)
        return training(name, arm.config, self.task.files(arm), out, flags, arm.expected_s)

    def _measure_mastery(self, arm: str, seed: int) -> Stage:
        arguments = (
            f"--model={self._weights(arm, seed)}",
            f"--samples={self.out / 'data' / 'train.jsonl'}",
            "--by=marks",
            f"--per-entity={self.sizes.per_entity}",
            f"--out={self._mastery(arm, seed).parent}",
        )
        return Stage(f"mastery of {arm}, seed {seed}", "mllm.eval.mastery", arguments, 120)

    def _mastery(self, arm: str, seed: int) -> Path:
        return self.out / "mastery" / f"{arm.replace(' ', '_')}-seed{seed}" / "mastery.json"

    def _folder(self, arm: str, seed: int, rate: str) -> Path:
        return self.out / "weights" / f"{self._label(arm).replace(' ', '_')}-lr{rate}-seed{seed}"

    def _label(self, arm: str) -> str:
        return f"{arm}, {self.variants[arm]}" if arm in self.variants else arm

    def training_folder(self, arm: str, seed: int) -> Path:
        """Return the folder of an arm's training with the learning rate that was kept."""
        return self._folder(arm, seed, self.rates[arm])

    def _weights(self, arm: str, seed: int) -> str:
        return str(self.training_folder(arm, seed) / "best")

    def table(self) -> str:
        """Return each arm's columns and the paired differences, with 95 % intervals over images and seeds."""
        from mllm.metrics import stats

        task, names = self.task, [BASE, *(arm.name for arm in self.ablation.arms), *self.task.also_measured]
        found = {name: self._values(name) for name in names}
        rows = [[task.row_title, "learning rate", *task.columns, *task.plain_columns]]
        for name in names:
            shares = [percent_interval(stats.over_seeds(*found[name][column]).as_dict()) for column in task.columns]
            plain = [values for values, _ in map(found[name].__getitem__, task.plain_columns)]
            means = [_mean([value for seed in values for value in seed]) for values in plain]
            rows.append([name, self.rates.get(name, "-"), *shares, *means])
        pairs = [["second - first", *task.columns]]
        for a, b in self.ablation.comparisons:
            both = [(found[a][column][0], *found[b][column]) for column in task.columns]
            differences = [stats.paired_over_seeds(*one).as_dict() for one in both]
            pairs.append([f"{b} - {a}", *(percent_interval(one, sign=True) for one in differences)])
        title = f"Differences, paired by {task.pairing} and seed:"
        return f"{task.preface}{self._screening}{markdown(rows)}\n\n{title}\n\n{markdown(pairs)}\n"

    def _values(self, name: str) -> Mapping[str, tuple[list[list[float]], list[str]]]:
        """Return for each column the values of every seed, and the group of each sample."""
        seeds = self.sizes.seeds if name in self.rates else (0,)
        tables = [self.task.values(self.task.folder(name, seed)) for seed in seeds]
        found = {}
        for column, first in tables[0].items():
            groups = [group for _, group in first]
            assert all(groups == [group for _, group in table[column]] for table in tables), "same images, same order"
            found[column] = [[value for value, _ in table[column]] for table in tables], groups
        return found


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.1f}" if values else MISSING

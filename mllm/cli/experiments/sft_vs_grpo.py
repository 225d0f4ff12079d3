"""`fieldmark table-spine`: does reasoning first, and then GRPO, help on species never trained on? Six arms, three
seeds, one table.

Every trained arm gets the same tuning budget: each learning rate once on the first seed, chosen by Acc@0.5 on the
validation split (checkpoints too). The test split is used once, at the end. Intervals resample images and
seeds. A stopped run resumes; weights, raw outputs and seeds are kept in the output folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm.cli.experiments.demo import POCKET_DATA, recipe_file
from mllm.cli.experiments.pipeline import Pipeline, Stage, cpus
from mllm.evaluation import runs
from mllm.io.tables import markdown, percent_interval
from mllm.metrics import stats

SEEDS = (0, 1, 2)
SLICES = ("seen entities", "unseen entities", "all")


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of training: which recipe, from where, for how long, and the learning rates that are tried."""

    name: str
    recipe: str
    config: str
    style: str
    steps: int
    rates: tuple[str, ...]
    start: str | None = None
    flags: tuple[str, ...] = ()
    expected_s: float = 300


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of the experiment; the defaults make the table of docs/log.md."""

    train: int = 4000
    validation: int = 160
    test: int = 600
    sft_steps: int = 300
    rl_steps: int = 40
    prompts_per_step: int = 8
    completions: int = 8
    max_new_tokens: int = 256

    def arms(self) -> tuple[Arm, ...]:
        """The arms in an order in which every start comes before those that start from it."""
        answers = self.rl_steps * self.prompts_per_step * self.completions
        more = max(1, answers // 16)  # SFT batches of 16: as many samples as GRPO reads answers
        sft_rates, more_rates, rl_rates = ("3e-4", "1e-3"), ("1e-4", "3e-4"), ("3e-5", "1e-4")
        rl = (
            f"--num_generations={self.completions}",
            f"--per_device_train_batch_size={self.prompts_per_step * self.completions}",
        )
        direct = ("--style=direct", "--rewards.format.style=direct", "--max_completion_length=24")
        return (
            Arm("SFT", "sft", "sft_direct", "direct", self.sft_steps, sft_rates),
            Arm("CoT-SFT", "sft", "sft", "think", self.sft_steps, sft_rates),
            Arm("CoT-SFT continued", "sft", "sft", "think", more, more_rates, "CoT-SFT"),
            Arm("GRPO from SFT", "rl", "rl", "direct", self.rl_steps, rl_rates, "SFT", (*rl, *direct)),
            Arm("GRPO from CoT-SFT", "rl", "rl", "think", self.rl_steps, rl_rates, "CoT-SFT", rl),
        )


COMPARISONS = (
    ("SFT", "CoT-SFT"),
    ("CoT-SFT", "GRPO from CoT-SFT"),
    ("CoT-SFT continued", "GRPO from CoT-SFT"),
    ("SFT", "GRPO from SFT"),
)
"""What the table claims or does not claim: the second over the first."""


class Ablation:
    """The experiment in one folder. A subclass with a plan and comparisons of its own is another experiment."""

    comparisons = COMPARISONS
    seeds = SEEDS
    criterion = "eval/acc"
    """What of the validation split chooses rates and checkpoints."""

    def __init__(self, out: Path, plan: Any, tell: Callable[[str], None], jobs: int | None = None) -> None:
        """`jobs` runs at once share the cores, one core each by default."""
        self.out, self.plan, self._tell, self.jobs = out, plan, tell, jobs or cpus()
        self.pipeline = Pipeline(out, tell)
        self.rates: dict[str, str] = {}

    def run(self) -> str:
        """Run what is missing; returns the table as markdown and writes it to ``table.md``."""
        plan = self.plan
        self.pipeline.run(self._data())
        first = [arm for arm in plan.arms() if arm.start is None]
        later = [arm for arm in plan.arms() if arm.start is not None]
        for wave in (first, later):  # a wave starts from what the one before it left
            self._tune(wave)
            rest = [(arm, seed) for seed in self.seeds[1:] for arm in wave]
            self._prepare(rest)
            self._run([self._train(arm, seed, self.rates[arm.name]) for arm, seed in rest])
        tested = [("base", 0, "direct", "pocket")]
        tested += [
            (arm.name, s, arm.style, str(self._folder(arm.name, s) / "best")) for arm in plan.arms() for s in self.seeds
        ]
        self._measure(tested)
        table = self.table()
        (self.out / "table.md").write_text(table, encoding="utf-8")
        return table

    def _data(self) -> list[Stage]:
        """Stages that make the data."""
        plan = self.plan
        counts = (f"--train={plan.train}", f"--validation={plan.validation}", f"--test={plan.test}", *POCKET_DATA)
        return [Stage("data", "mllm.data_synth.grounding", ("--out", str(self.out / "data"), *counts), 60)]

    def _files(self, arm: Arm) -> Path:
        """The folder of an arm's train.jsonl and validation.jsonl."""
        return self.out / "data"

    def _measure(self, tested: Sequence[tuple[str, int, str, str]]) -> None:
        """Measure (arm, seed, style, weights) on the test split."""
        self._run([self._benchmark(*one) for one in tested])

    def _folder(self, arm: str, seed: int, rate: str | None = None) -> Path:
        rate = rate or self.rates[arm]
        return self.out / "weights" / f"{arm.replace(' ', '_')}-lr{rate}-seed{seed}"

    def _before(self, arm: Arm, seed: int) -> list[Stage]:
        """Stages that an arm's training needs to have been run; none here."""
        return []

    def _flags(self, arm: Arm, seed: int) -> tuple[str, ...]:
        """The arm's own flags for one seed."""
        return arm.flags

    def _train(self, arm: Arm, seed: int, rate: str) -> Stage:
        folder, data = self._folder(arm.name, seed, rate), self._files(arm)
        model = "pocket" if arm.start is None else str(self._folder(arm.start, seed) / "best")
        flags = (
            f"--config={recipe_file(arm.config)}",
            f"--model={model}",
            f"--train={data / 'train.jsonl'}",
            f"--validation={data / 'validation.jsonl'}",
            f"--evaluate.samples={self.plan.validation}",
            f"--output_dir={folder}",
            f"--max_steps={arm.steps}",
            f"--learning_rate={rate}",
            f"--seed={seed}",
            f"--threads={max(1, cpus() // self.jobs)}",
            *self._flags(arm, seed),
        )
        return Stage(
            f"{arm.name}, learning rate {rate}, seed {seed}", f"mllm.recipes.{arm.recipe}", flags, arm.expected_s
        )

    def _run(self, stages: Sequence[Stage]) -> None:
        self.pipeline.run(stages, self.jobs)

    def _tune(self, arms: Sequence[Arm]) -> None:
        """Try each learning rate on the first seed; keep the one that is best on validation (the first of equals)."""
        self._prepare([(arm, self.seeds[0]) for arm in arms])
        self._run([self._train(arm, self.seeds[0], rate) for arm in arms for rate in arm.rates])
        for arm in arms:
            found = {rate: self._validation(self._folder(arm.name, self.seeds[0], rate)) for rate in arm.rates}
            self.rates[arm.name] = max(found, key=lambda rate: found[rate])
            self._tell(f"{arm.name}: validation {self.criterion} {found}; learning rate {self.rates[arm.name]} is kept")

    def _prepare(self, runs: Sequence[tuple[Arm, int]]) -> None:
        """Run what these runs need first, each stage once."""
        self._run(list(dict.fromkeys(stage for arm, seed in runs for stage in self._before(arm, seed))))

    def _validation(self, folder: Path) -> float:
        return float(json.loads((folder / "best" / "score.json").read_text(encoding="utf-8"))[self.criterion])

    def _benchmark(self, arm: str, seed: int, style: str, model: str) -> Stage:
        arguments = (
            "--model", model,
            "--samples", str(self.out / "data" / "test.jsonl"),
            "--out", str(self._eval(arm, seed)),
            "--max-new-tokens", "32" if style == "direct" else str(self.plan.max_new_tokens),
            "--batch-size", "48",
        )  # fmt: skip
        return Stage(f"benchmark of {arm}, seed {seed}", "mllm.eval.kvg_bench", arguments, 90)

    def _eval(self, arm: str, seed: int) -> Path:
        return self.out / "eval" / f"{arm.replace(' ', '_')}-seed{seed}"

    def table(self) -> str:
        """Acc@0.5 of every arm and the paired differences, in percent with 95 % intervals over images and seeds."""
        names = ["base", *(arm.name for arm in self.plan.arms())]
        hits = {name: self._hits(name) for name in names}
        head = ["arm", "learning rate", *SLICES]
        rows = [[name, self.rates.get(name, "-"), *(cell(*hits[name][part]) for part in SLICES)] for name in names]
        text = [markdown([head, *rows]), "", "Differences, paired by sample and seed:", ""]
        pairs = [
            [f"{b} - {a}", *(difference(hits[a][part], hits[b][part]) for part in SLICES)] for a, b in self.comparisons
        ]
        return "\n".join([*text, markdown([["second - first", *SLICES], *pairs]), ""])

    def _hits(self, arm: str) -> dict[str, tuple[list[list[float]], list[str]]]:
        """For each slice: hits of every seed, and the image of each sample."""
        tables = [runs.load(self._eval(arm, seed)).cases for seed in (self.seeds if arm != "base" else self.seeds[:1])]
        found = {}
        for part in SLICES:
            wanted = {"seen entities": True, "unseen entities": False}.get(part)
            kept = [[case for case in cases if wanted is None or case.sample.seen is wanted] for cases in tables]
            found[part] = (
                [[float(case.hit) for case in cases] for cases in kept],
                [case.sample.group for case in kept[0]],
            )
        return found


def cell(hits: Sequence[Sequence[float]], groups: Sequence[str]) -> str:
    """A share over seeds in percent, with its interval."""
    return percent_interval(stats.over_seeds(hits, groups).as_dict())


def difference(a: tuple[list[list[float]], list[str]], b: tuple[list[list[float]], list[str]]) -> str:
    """The second less the first, paired by sample and seed, in percent with its interval."""
    return percent_interval(stats.paired_over_seeds(a[0], b[0], a[1]).as_dict(), sign=True)

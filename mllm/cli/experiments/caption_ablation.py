"""`fieldmark table-captions`: what self-retrieval gains and what it costs, from sparse and from boosted captions.

Base; MLE on sparse and on boosted captions (VCB); plain self-retrieval and BagCurri from each, the latter also with an
anchor (claims held against known marks); CLIP reward, with and without grammar; and, by no model, captions that tell
every true mark, which show the best score the judge allows. Every rewarded arm has the same tuning budget, steps,
images and captions: each learning rate once on the first seed, chosen by R@1 in validation bags (checkpoints too).
The test bags are scored once, at the end, by the encoder that was not used as a reward. Intervals resample families of
look-alikes and seeds. A stopped run resumes; weights, captions and seeds are kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mllm.captions import caption_of, words
from mllm.cli.experiments.demo import LEVEL
from mllm.cli.experiments.pipeline import Stage
from mllm.cli.experiments.sft_vs_grpo import SEEDS, Ablation, Arm, cell, difference
from mllm.evaluation import runs
from mllm.evaluation.report.caption_bags import SCORES
from mllm.io.tables import markdown
from mllm.models import families
from mllm.pocket.captions import judge, rich
from mllm.records import Answer, Completion, load_samples

BASE, SPARSE, VCB = "base", "MLE sparse", "MLE VCB"
PLAIN, CURRICULUM, CLIP = "self-retrieval", "BagCurri", "CLIP reward"
ANCHORED, FLUENT = "BagCurri and anchor", "CLIP reward and grammar"
TRUTH = "every true mark"
"""Captions with every true mark and nothing else: their score is the best that the judge allows."""
SIZES = (3, 5, 7)

Values = tuple[list[list[float]], list[str]]
"""Values of every seed, and the family of look-alikes of each."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of the experiment; the defaults take about an hour on two idle cores without AVX-512.

    The starts' learning rate is not searched for; it is the same for both.
    """

    train: int = 1000
    validation: int = 140
    test: int = 210
    sft_steps: int = 200
    stage: int = 8
    """Steps of one stage of BagCurri: an epoch. All rewarded arms take as many steps as its stages together."""
    bags: tuple[int, ...] = (2, 3, 5, 7)
    images_per_step: int = 14
    completions: int = 8
    sft_rates: tuple[str, ...] = ("5e-4",)
    rates: tuple[str, ...] = ("3e-5", "1e-4")
    max_new_tokens: int = 56
    seeds: tuple[int, ...] = SEEDS

    def arms(self) -> tuple[Arm, ...]:
        """The arms, what others start from first."""
        steps = self.stage * len(self.bags)
        rl = (
            f"--limit={self.images_per_step * self.stage}",
            f"--num_generations={self.completions}",
            f"--per_device_train_batch_size={self.images_per_step * self.completions}",
            f"--evaluate.every={self.stage}",
            f"--max_completion_length={self.max_new_tokens}",
            f"--evaluate.max_new_tokens={self.max_new_tokens}",
        )
        schedule = json.dumps([[1, size] for size in self.bags], separators=(",", ":"))
        grown = f"--bags.schedule={schedule}"
        limit = (f"--evaluate.max_new_tokens={self.max_new_tokens}",)
        mle = [
            Arm(name, "sft", config, "direct", self.sft_steps, self.sft_rates, None, limit, 130)
            for name, config in ((SPARSE, "captions_sft"), (VCB, "captions_vcb_sft"))
        ]
        rewarded = [
            (f"{PLAIN} from {SPARSE}", "captions_self_retrieval", SPARSE, rl),
            (f"{PLAIN} from {VCB}", "captions_self_retrieval", VCB, rl),
            (f"{CURRICULUM} from {SPARSE}", "captions_bagcurri_vcb", SPARSE, (*rl, grown)),
            (f"{CURRICULUM} from {VCB}", "captions_bagcurri_vcb", VCB, (*rl, grown)),
            (f"{ANCHORED} from {VCB}", "captions_bagcurri_anchor", VCB, (*rl, grown)),
            (f"{CLIP} from {VCB}", "captions_clip_reward", VCB, rl),
            (f"{FLUENT} from {VCB}", "captions_clip_grammar", VCB, rl),
        ]
        return (
            *mle,
            *(Arm(name, "rl", config, "direct", steps, self.rates, start, flags, 130)
              for name, config, start, flags in rewarded),
        )  # fmt: skip


class CaptionsTable(Ablation):
    """The experiment in one folder."""

    criterion = "eval/r1"
    comparisons = (
        (SPARSE, VCB),
        (SPARSE, f"{PLAIN} from {SPARSE}"),
        (SPARSE, f"{CURRICULUM} from {SPARSE}"),
        (VCB, f"{PLAIN} from {VCB}"),
        (VCB, f"{CURRICULUM} from {VCB}"),
        (f"{PLAIN} from {VCB}", f"{CURRICULUM} from {VCB}"),
        (f"{CURRICULUM} from {SPARSE}", f"{CURRICULUM} from {VCB}"),
        (VCB, f"{ANCHORED} from {VCB}"),
        (f"{PLAIN} from {VCB}", f"{ANCHORED} from {VCB}"),
        (f"{CURRICULUM} from {VCB}", f"{ANCHORED} from {VCB}"),
        (VCB, f"{CLIP} from {VCB}"),
        (VCB, f"{FLUENT} from {VCB}"),
        (f"{CLIP} from {VCB}", f"{FLUENT} from {VCB}"),
    )

    def __init__(self, out: Path, plan: Plan, tell: Callable[[str], None], jobs: int | None = None) -> None:
        super().__init__(out, plan, tell, jobs)
        self.plan: Plan = plan
        self.seeds = plan.seeds

    def _data(self) -> list[Stage]:
        """Make the same images twice: with captions as people write them, and with boosted ones."""
        plan = self.plan
        counts = (f"--level={LEVEL}", f"--train={plan.train}", f"--validation={plan.validation}", f"--test={plan.test}")
        return [
            Stage(f"data, {which}", "mllm.data_synth.captions", (f"--out={self._set(which)}", *counts, *flags), 40)
            for which, flags in (("sparse", ()), ("vcb", ("--strategy=holistic",)))
        ]

    def _set(self, which: str) -> Path:
        return self.out / "data" / which

    def _files(self, arm: Arm) -> Path:
        """Return the captions that an arm, or its start, was trained on."""
        return self._set("sparse" if SPARSE in (arm.name, arm.start) else "vcb")

    def _measure(self, tested: Sequence[tuple[str, int, str, str]]) -> None:
        """Let every model caption the test images, then ask the judge; of true captions too."""
        self._run([self._benchmark(*one) for one in tested])
        self._write_true_captions()
        self._run([self._judged(arm, seed) for arm, seed in [*((one[0], one[1]) for one in tested), (TRUTH, 0)]])

    def _write_true_captions(self) -> None:
        """Write the true captions as if a model had written them."""
        folder, file = self._eval(TRUTH, 0), self._set("vcb") / "test.jsonl"
        samples = load_samples(file)
        convention = asdict(families.Convention("pocket", "direct", families.load("pocket").budget))
        done = runs.begin(folder, {"model": TRUTH, "convention": convention}, samples, file.parent)
        for sample in samples:
            if sample.id not in done:
                text = rich(sample.domain, [thing.marks for thing in sample.things])
                runs.append(folder, Completion(sample.id, text, Answer(None, None, (), (), None)))

    def _benchmark(self, arm: str, seed: int, style: str, model: str) -> Stage:
        arguments = (
            "--model", model,
            "--samples", str(self._set("vcb") / "test.jsonl"),
            "--out", str(self._eval(arm, seed)),
            "--max-new-tokens", str(self.plan.max_new_tokens),
            "--batch-size", "60",
        )  # fmt: skip
        return Stage(f"captions of {arm}, seed {seed}", "mllm.eval.captions", arguments, 20)

    def _judged(self, arm: str, seed: int) -> Stage:
        folder, bags = self._eval(arm, seed), self._set("vcb") / "bags" / "test"
        arguments = (
            "--captions", str(folder / "outputs.jsonl"),
            "--samples", str(self._set("vcb") / "test.jsonl"),
            "--bags", *(str(bags / f"bags-{size}-{LEVEL}.jsonl") for size in SIZES),
            "--late",
            "--out", str(folder / SCORES),
        )  # fmt: skip
        return Stage(f"judgement of {arm}, seed {seed}", "mllm.eval.truematch", arguments, 15)

    def table(self) -> str:
        """R@1, marks and length of every arm, and paired differences, with intervals over families and seeds."""
        names = [BASE, *(arm.name for arm in self.plan.arms()), TRUTH]
        found = {name: self._values(name) for name in names}
        shares = [f"R@1 of {size}" for size in SIZES] + ["marks right", "marks told"]
        rows = [["captions of", "learning rate", *shares, "words"]]
        for name in names:
            length = found[name]["words"][0]
            mean = sum(map(sum, length)) / sum(map(len, length))
            cells = [cell(*found[name][column]) for column in shares]
            rows.append([name, self.rates.get(name, "-"), *cells, f"{mean:.1f}"])
        pairs = [["second - first", *shares]]
        for a, b in self.comparisons:
            pairs.append([f"{b} - {a}", *(difference(found[a][column], found[b][column]) for column in shares)])
        chance = ", ".join(f"{100 / size:.1f} of {size}" for size in SIZES)
        text = [f"In percent; chance: {chance}.", "", markdown(rows), "", "Differences, paired by image and seed:"]
        return "\n".join([*text, "", markdown(pairs), ""])

    def _values(self, arm: str) -> Mapping[str, Values]:
        """For each column: the values of every seed, and the family of each."""
        seeds = self.seeds if arm not in (BASE, TRUTH) else (0,)
        found: dict[str, tuple[list[list[float]], list[str]]] = {}
        for seed in seeds:
            folder = self._eval(arm, seed)
            _, samples, rows = runs.read_whole(folder)
            family = {sample.id: sample.bag or sample.id for sample in samples}
            matches = json.loads((folder / SCORES).read_text(encoding="utf-8"))["matches"]
            for size in SIZES:
                hits = [(row["hit"], family[row["image"]]) for row in matches[str(size)]]
                _add(found, f"R@1 of {size}", hits)
            texts = [(caption_of(rows[one.id]), one) for one in samples]
            marks = [(judge(text, [thing.marks for thing in one.things]), family[one.id]) for text, one in texts]
            _add(found, "marks right", [(one.precision, group) for one, group in marks])
            _add(found, "marks told", [(one.recall, group) for one, group in marks])
            _add(found, "words", [(float(len(words(text))), family[one.id]) for text, one in texts])
        return found


def _add(found: dict[str, Values], column: str, pairs: Sequence[tuple[float, str]]) -> None:
    """Add one seed's values to a column."""
    values, groups = found.setdefault(column, ([], [group for _, group in pairs]))
    assert groups == [group for _, group in pairs], "every seed is measured on the same images in the same order"
    values.append([value for value, _ in pairs])

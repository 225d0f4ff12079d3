"""Scores of a benchmark, case by case (`Case`) and as a table of plain data for a json file.

Slices are averaged over cases, as KVG-Bench's own averages; intervals resample images.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mllm.boxes import Frame
from mllm.errors import FieldmarkError
from mllm.evaluation import kvg_published
from mllm.io.tables import MISSING, interval, markdown, percent
from mllm.metrics import reasoning, stats
from mllm.models.families import Family
from mllm.prompting.tasks import score_of, task_of
from mllm.records import Completion, Sample


@dataclass(frozen=True, slots=True)
class Case:
    """One judged completion. `iou` is its score (`tasks.score_of`), 0 where the text could not be read.

    `published` is the IoU by each of KVG-Bench's own scorers, empty where they do not apply.
    """

    sample: Sample
    completion: Completion
    iou: float
    published: Mapping[str, float]
    steps: reasoning.StepCounts | None

    @property
    def hit(self) -> bool:
        """Whether the answer is right: its box at IoU 0.5, exactly all boxes, or none where nothing is there."""
        return task_of(self.sample).is_right(self.completion.answer, self.sample)


def judge(
    samples: Sequence[Sample],
    completions: Iterable[Completion],
    family: Family,
    frame: Callable[[Sample], Frame],
    *,
    published: bool = False,
) -> list[Case]:
    """Judge each sample's completion, in the order of `samples`.

    `frame` returns the frame on which the family writes a sample's boxes. `published` adds KVG-Bench's own rules.
    Raises `FieldmarkError`: a sample has no completion, or two.
    """
    found: dict[str, Completion] = {}
    for completion in completions:
        if found.setdefault(completion.sample_id, completion) is not completion:
            raise FieldmarkError(f"sample {completion.sample_id!r} has two completions")
    if missing := [sample.id for sample in samples if sample.id not in found]:
        raise FieldmarkError(
            f"{len(missing)} of {len(samples)} samples have no completion, the first is {missing[0]!r}; "
            "run the benchmark again with the same --out: it continues where it stopped"
        )
    ordered = [found[sample.id] for sample in samples]
    return [
        Case(
            sample,
            completion,
            score_of(sample, completion.answer),
            kvg_published.published_ious(completion.text, sample.boxes[0]) if published and sample.boxes else {},
            reasoning.judge_steps(sample, completion.answer, family, frame(sample)),
        )
        for sample, completion in zip(samples, ordered, strict=True)
    ]


def slices(cases: Sequence[Case]) -> dict[str, list[Case]]:
    """Return the slices of a benchmark by name, without empty ones.

    They are: all; seen and unseen entities and domains; present and absent things, if some are absent; each domain that
    samples name. An entity is seen if its samples say so. Seen domains are those with a seen entity; where KVG-Bench's
    own rules apply, and where no sample is marked as seen, they are its five.
    """
    seen_domains = {case.sample.domain for case in cases if case.sample.seen and not case.published}
    seen_domains = seen_domains or set(kvg_published.SEEN_DOMAINS)
    table: dict[str, list[Case]] = {"all": list(cases)}
    table["seen entities"] = [case for case in cases if case.sample.seen is True]
    table["unseen entities"] = [case for case in cases if case.sample.seen is False]
    table["seen domains"] = [case for case in cases if case.sample.domain in seen_domains]
    table["unseen domains"] = [case for case in cases if case.sample.domain and case.sample.domain not in seen_domains]
    if any(not case.sample.boxes for case in cases):
        table["present"] = [case for case in cases if case.sample.boxes]
        table["absent"] = [case for case in cases if not case.sample.boxes]
    for domain in sorted({case.sample.domain for case in cases} - {""}, key=kvg_published.domain_order):
        table[f"domain {domain}"] = [case for case in cases if case.sample.domain == domain]
    return {name: part for name, part in table.items() if part}


def measure(cases: Sequence[Case], *, seed: int = 0) -> dict[str, Any]:
    """Measure one slice: Acc@0.5 and mean IoU with intervals, chance, unreadable and truncated shares, tokens."""
    groups = [case.sample.group for case in cases]
    acc = stats.mean([float(case.hit) for case in cases], groups, seed=seed)
    mean_iou = stats.mean([case.iou for case in cases], groups, seed=seed)
    tokens = [case.completion.tokens for case in cases if case.completion.tokens is not None]
    row: dict[str, Any] = {
        "samples": len(cases),
        "images": len(set(groups)),
        "acc": acc.as_dict(),
        "iou": mean_iou.as_dict(),
        "chance": stats.chance_floor([case.sample for case in cases]),
        "unreadable": sum(case.completion.answer.problem is not None for case in cases) / len(cases),
        "truncated": sum(case.completion.truncated for case in cases) / len(cases),
        "tokens": sum(tokens) / len(tokens) if tokens else None,
    }
    for rule in kvg_published.RULES:
        ious = [case.published[rule] for case in cases if rule in case.published]
        if len(ious) == len(cases):
            row[f"{rule}_acc"] = stats.mean([float(v >= 0.5) for v in ious], groups, seed=seed).as_dict()
            row[f"{rule}_iou"] = sum(ious) / len(ious)
    return row


def table(cases: Sequence[Case], *, seed: int = 0) -> dict[str, Any]:
    """Measure every slice, count problems by name, and score the reasoning steps of samples with known marks."""
    parts = slices(cases)
    whole = {name: part for name, part in parts.items() if not name.startswith("domain ")}
    counts = {name: [case.steps for case in part if case.steps is not None] for name, part in whole.items()}
    return {
        "slices": {name: measure(part, seed=seed) for name, part in parts.items()},
        "problems": dict(Counter(case.completion.answer.problem for case in cases if case.completion.answer.problem)),
        "links": {name: reasoning.sum_steps(part) for name, part in counts.items() if part},
    }


def compare(a: Sequence[Case], b: Sequence[Case], *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Compare run b with run a on every slice, sample by sample: differences of Acc@0.5 and of mean IoU.

    Raises `FieldmarkError`: the runs answered different samples.
    """
    before, after = ({case.sample.id: case for case in run} for run in (a, b))
    if before.keys() != after.keys():
        odd = sorted(before.keys() ^ after.keys())
        raise FieldmarkError(
            f"the runs answered different samples: {len(odd)} are in one only, e.g. {odd[0]!r}; "
            "compare runs on one samples file with the same --limit"
        )
    for key, case in before.items():
        if case.sample.boxes != after[key].sample.boxes:
            raise FieldmarkError(f"sample {key!r} has different gold boxes in the two runs: their files differ")
    result = {}
    for name, part in slices(a).items():
        others = [after[case.sample.id] for case in part]
        groups = [case.sample.group for case in part]
        hits = [[float(case.hit) for case in cases] for cases in (part, others)]
        ious = [[case.iou for case in cases] for cases in (part, others)]
        result[name] = {
            "acc": stats.paired(hits[0], hits[1], groups, seed=seed).as_dict(),
            "iou": stats.paired(ious[0], ious[1], groups, seed=seed).as_dict(),
        }
    return result


def ordering(a: str, b: str, part: str, row: Mapping[str, Any]) -> str:
    """Describe a paired difference of two runs on a slice; an order is claimed only if the interval excludes zero."""
    change = f"{percent(row['value'], sign=True)} points, 95 % {interval(row)}, n={row['samples']}, p={row['p']:.3f}"
    if row["clear"]:
        return f"{part}: {b} is {'above' if row['value'] > 0 else 'below'} {a} ({change})."
    return f"{part}: no order of {b} and {a} can be claimed ({change})."


def text_table(scores: Mapping[str, Any]) -> str:
    """Write the slices of a score table in Markdown, shares in percent; and, if no answer is right, why."""
    rows: list[tuple[str, ...]] = [("slice", "n", "images", "Acc@0.5", "95 %", "IoU", "chance", "unreadable", "tokens")]
    for name, row in scores["slices"].items():
        shares = percent(row["iou"]["value"]), percent(row["chance"]), percent(row["unreadable"])
        tokens = MISSING if row["tokens"] is None else f"{row['tokens']:.0f}"
        counts = str(row["samples"]), str(row["images"])
        rows.append((name, *counts, percent(row["acc"]["value"]), interval(row["acc"]), *shares, tokens))
    every = scores["slices"].get("all")
    return markdown(rows) + (f"\n\n{_why_zero(every)}" if every and not every["acc"]["value"] else "")


def _why_zero(row: Mapping[str, Any]) -> str:
    """Say where most answers fail if none is right."""
    why = "most can be read, but their boxes are elsewhere; train longer, or on more samples"
    if row["unreadable"] > 0.5:
        why = "most cannot be read; a few training steps do not teach this form of answer, and another --style may fit"
    if row["truncated"] > 0.5:
        why = "most end at --max-new-tokens; raise it, or train longer, since answers end once that has been learned"
    return f"No answer is right: {why}."

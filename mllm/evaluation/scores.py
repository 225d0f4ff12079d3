"""Completions against their samples: what a benchmark reports, case by case and as a table.

A `Case` is one judged completion; a table is plain data, ready for a json file. Slices are counted over cases
(case-weighted, as KVG-Bench's own averages); intervals draw images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mllm.boxes import Frame
from mllm.errors import FieldmarkError
from mllm.evaluation import kvg_published
from mllm.metrics import reasoning, stats
from mllm.models.families import Family
from mllm.prompting.tasks import score_of, task_of
from mllm.prompting.tasks.ground import is_hit
from mllm.records import Completion, Sample


@dataclass(frozen=True, slots=True)
class Case:
    """One judged completion. `iou` is its score (`tasks.score_of`), 0 where the text could not be read (`problem` says why)."""

    sample: Sample
    completion: Completion
    iou: float
    published: float | None
    chain: reasoning.Chain | None

    @property
    def hit(self) -> bool:
        """Whether the answer is right: its box at IoU 0.5, all its boxes and none too many, or rightly none."""
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

    `frame` gives the paper on which the family wrote a sample's boxes. `published` adds KVG-Bench's own rule.

    Raises:
        FieldmarkError: a sample has no completion, or two.
    """
    found: dict[str, Completion] = {}
    for completion in completions:
        if found.setdefault(completion.sample_id, completion) is not completion:
            raise FieldmarkError(f"sample {completion.sample_id!r} has two completions")
    if missing := [sample.id for sample in samples if sample.id not in found]:
        raise FieldmarkError(
            f"{len(missing)} of {len(samples)} samples have no completion, the first is {missing[0]!r}; "
            "run the benchmark again with the same --out: it goes on where it stopped"
        )
    ordered = [found[sample.id] for sample in samples]
    return [
        Case(
            sample,
            completion,
            score_of(sample, completion.answer),
            kvg_published.published_iou(completion.text, sample.boxes[0]) if published and sample.boxes else None,
            reasoning.chain(sample, completion.answer, family, frame(sample)),
        )
        for sample, completion in zip(samples, ordered, strict=True)
    ]


def slices(cases: Sequence[Case], seen_domains: Collection[str] | None = None) -> dict[str, list[Case]]:
    """Name the parts of a benchmark: all, seen and unseen (entities, domains), present and absent things where some are
    absent, each domain; empty ones are left out.

    An entity is seen where its sample says that it was trained on; a domain is seen where it is one of `seen_domains`:
    unless given, those of which some entity is seen, and KVG-Bench's own where no sample says that it is.
    """
    if seen_domains is None:
        seen_domains = {case.sample.domain for case in cases if case.sample.seen} or kvg_published.SEEN_DOMAINS
    table: dict[str, list[Case]] = {"all": list(cases)}
    table["seen entities"] = [case for case in cases if case.sample.seen is True]
    table["unseen entities"] = [case for case in cases if case.sample.seen is False]
    table["seen domains"] = [case for case in cases if case.sample.domain in seen_domains]
    table["unseen domains"] = [case for case in cases if case.sample.domain not in seen_domains]
    if any(not case.sample.boxes for case in cases):
        table["present"] = [case for case in cases if case.sample.boxes]
        table["absent"] = [case for case in cases if not case.sample.boxes]
    known = [*kvg_published.SEEN_DOMAINS, *kvg_published.UNSEEN_DOMAINS]
    for domain in sorted(
        {case.sample.domain for case in cases}, key=lambda d: (known.index(d) if d in known else len(known), d)
    ):
        table[f"domain {domain}"] = [case for case in cases if case.sample.domain == domain]
    return {name: part for name, part in table.items() if part}


def measure(cases: Sequence[Case], *, seed: int = 0, resamples: int = stats.RESAMPLES) -> dict[str, Any]:
    """Measure one slice: Acc@0.5 and mean IoU with intervals, chance floor, unreadable and truncated shares, tokens."""
    groups = [case.sample.group for case in cases]
    acc = stats.mean([float(case.hit) for case in cases], groups, seed=seed, resamples=resamples)
    mean_iou = stats.mean([case.iou for case in cases], groups, seed=seed, resamples=resamples)
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
    if all(case.published is not None for case in cases):
        ious = [case.published or 0.0 for case in cases]
        row["published_acc"] = stats.mean([float(is_hit(v)) for v in ious], groups, seed=seed).as_dict()
        row["published_iou"] = sum(ious) / len(ious)
    return row


def table(cases: Sequence[Case], *, seed: int = 0, resamples: int = stats.RESAMPLES) -> dict[str, Any]:
    """Measure every slice, count the problems by name, and measure the links where samples know their marks."""
    parts = slices(cases)
    chains = {name: [case.chain for case in part if case.chain is not None] for name, part in parts.items()}
    return {
        "slices": {name: measure(part, seed=seed, resamples=resamples) for name, part in parts.items()},
        "problems": dict(Counter(case.completion.answer.problem for case in cases if case.completion.answer.problem)),
        "links": {
            name: [link.as_dict() for link in reasoning.table(part)]
            for name, part in chains.items()
            if part and not name.startswith("domain ")
        },
    }


def compare(a: Sequence[Case], b: Sequence[Case], *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Compare run b with run a on every slice, sample by sample: differences of Acc@0.5 and of mean IoU.

    Raises:
        FieldmarkError: the runs answered different samples.
    """
    before, after = ({case.sample.id: case for case in run} for run in (a, b))
    if before.keys() != after.keys():
        odd = sorted(before.keys() ^ after.keys())
        raise FieldmarkError(
            f"the runs answered different samples: {len(odd)} are in one only, e.g. {odd[0]!r}; "
            "compare runs of one samples file with the same --limit"
        )
    for key, case in before.items():
        if case.sample.boxes != after[key].sample.boxes:
            raise FieldmarkError(f"sample {key!r} has different gold boxes in the two runs: their files differ")
    result = {}
    for name, part in slices(a).items():
        pairs = [(case, after[case.sample.id]) for case in part]
        groups = [case.sample.group for case in part]
        result[name] = {
            "acc": stats.paired(
                [float(x.hit) for x, _ in pairs], [float(y.hit) for _, y in pairs], groups, seed=seed
            ).as_dict(),
            "iou": stats.paired([x.iou for x, _ in pairs], [y.iou for _, y in pairs], groups, seed=seed).as_dict(),
        }
    return result


def ordering(a: str, b: str, part: str, row: Mapping[str, Any]) -> str:
    """Say what a paired difference of two runs shows on a slice; no order is claimed that its interval cannot carry."""
    change = f"{100 * row['value']:+.1f} points, 95 % {interval(row)}, n={row['samples']}, p={row['p']:.3f}"
    if row["clear"]:
        return f"{part}: {b} is {'above' if row['value'] > 0 else 'below'} {a} ({change})."
    return f"{part}: no order of {b} and {a} can be claimed ({change})."


def text_table(scores: Mapping[str, Any]) -> str:
    """Write the slices of a score table as Markdown, shares in percent."""
    rows = [("slice", "n", "images", "Acc@0.5", "95 %", "IoU", "chance", "unreadable", "tokens")]
    for name, row in scores["slices"].items():
        rows.append(
            (
                name,
                str(row["samples"]),
                str(row["images"]),
                percent(row["acc"]["value"]),
                interval(row["acc"]),
                percent(row["iou"]["value"]),
                percent(row["chance"]),
                percent(row["unreadable"]),
                "–" if row["tokens"] is None else f"{row['tokens']:.0f}",
            )
        )
    return markdown(rows)


def percent(share: float | None) -> str:
    """Write a share as percent with one decimal; a dash for None."""
    return "–" if share is None else f"{100 * share:.1f}"


def interval(row: Mapping[str, Any]) -> str:
    """Write an interval's ends as percent; a dash where there is none."""
    return "–" if row["low"] is None else f"{100 * row['low']:.1f} to {100 * row['high']:.1f}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Write rows (the first is the head) as an aligned Markdown table."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)

"""Counts of a caption set, for its manifest and its data card."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mllm.data import caption_stats
from mllm.records import Sample
from mllm.synthesis.captioning import CaptionResult

PLUMBING = (
    "The captions were put together by rules (teacher `cards`), without a model and without looking at any image. "
    "They show that the programs work on real photos; their quality was not measured."
)


def facts(
    sides: Mapping[str, Sequence[Sample]],
    results: Mapping[str, CaptionResult],
    strategy: str,
    teacher: str,
    checker: str | None,
) -> dict[str, Any]:
    """Count the samples of each side and the rejected captions; list licences, writer and checker."""
    refused = Counter(reason for row in results.values() for reason in row.refused)
    licences = Counter(sample.licence for rows in sides.values() for sample in rows)
    return {
        "samples": {side: _counted(rows) for side, rows in sides.items()},
        "drafts": sum(len(row.captions) for row in results.values()) + refused.total(),
        "refused": dict(sorted(refused.items())),
        "left out": sum(not row.captions for row in results.values()),
        "notes": dict(sorted(sum((Counter(row.notes) for row in results.values()), Counter()).items())),
        "licences": dict(sorted(licences.items())),
        "teachers": {"writer": teacher, "checker": checker or "none"},
        "plumbing": PLUMBING if teacher == "cards" and strategy != "human" else "",
    }


def _counted(rows: Sequence[Sample]) -> dict[str, Any]:
    """Return the numbers of one side: images, captions, length, diversity, and correctness where marks are known."""
    first = {row.id: row.captions[0] for row in rows}
    scores = caption_stats.caption_scores(first, rows)
    return {
        "images": len(rows),
        "captions": sum(len(row.captions) for row in rows),
        "families of look-alikes": len({row.bag for row in rows} - {None}),
        "captions that another image has too": sum(n for n in Counter(first.values()).values() if n > 1),
        **{name: round(scores[name], 4) for name in ("words", "distinct1", "distinct2")},
        **{f"marks, {name}": round(scores[name]["value"], 4) for name in ("precision", "recall") if name in scores},
    }

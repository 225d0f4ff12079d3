"""What a set of captions holds, counted, for its manifest and its card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mllm.data import caption_stats
from mllm.records import Sample
from mllm.synthesis.captioning import CaptionResult

PLUMBING = (
    "The captions were put together by rules (teacher `cards`), without a model and without a look at any image. "
    "They show that the programs work on real photos; nothing is claimed of how good they are."
)


def facts(
    made: Mapping[str, Sequence[Sample]],
    boosted: Mapping[str, CaptionResult],
    strategy: str,
    teacher: str,
    checker: str | None,
) -> dict[str, Any]:
    """Count what was made of each side and what was refused, and name licences and who wrote and looked."""
    every = [sample for rows in made.values() for sample in rows]
    refused = Counter(reason for row in boosted.values() for reason in row.refused)
    return {
        "samples": {side: counted(rows) for side, rows in made.items()},
        "drafts": sum(len(row.captions) for row in boosted.values()) + refused.total(),
        "refused": dict(sorted(refused.items())),
        "left out": sum(not row.captions for row in boosted.values()),
        "notes": dict(sorted(sum((Counter(row.notes) for row in boosted.values()), Counter()).items())),
        "licences": dict(sorted(Counter(sample.provenance["licence"] for sample in every).items())),
        "teachers": {"writer": teacher, "checker": checker or "nobody looked"},
        "plumbing": PLUMBING if teacher == "cards" and strategy != "human" else "",
    }


def counted(rows: Sequence[Sample]) -> dict[str, Any]:
    """Numbers of one side: images, captions, their length and variety, and what is true of them where it is known."""
    first = {row.id: row.captions[0] for row in rows}
    told = caption_stats.caption_scores(first, rows)
    bagged = Counter(row.bag for row in rows if row.bag is not None)
    result: dict[str, Any] = {"images": len(rows), "captions": sum(len(row.captions) for row in rows)}
    result |= {"families of look-alikes": len(bagged), "captions that another image has too": _shared(first)}
    result |= {name: round(told[name], 4) for name in ("words", "distinct1", "distinct2")}
    for name in ("precision", "recall"):
        if name in told:
            result[f"marks, {name}"] = round(told[name]["value"], 4)
    return result


def _shared(captions: Mapping[str, str]) -> int:
    """How many images have a caption that is not theirs alone."""
    return sum(count for count in Counter(captions.values()).values() if count > 1)

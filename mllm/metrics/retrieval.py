"""Do captions find their own images again? Shared by TrueMatch, random distractors and ImageCoDe.

A retrieval number alone can be bought with long or invented captions, so each comes with how long the captions are, how
varied, how many were too long for the judge, and, where the marks are known, how many of their claims are true.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mllm.errors import FieldmarkError
from mllm.metrics import stats
from mllm.metrics.ranking import hit_share
from mllm.models.similarity import Embedder, similarity


@dataclass(frozen=True, slots=True)
class Query:
    """One caption asked among candidates: `candidates` are image names, `own` which of them it was written for."""

    group: str
    caption: str
    candidates: tuple[str, ...]
    own: int


@dataclass(frozen=True, slots=True)
class Match:
    """What became of a query: shares of first and first-five places (ties shared), the similarity to its own, and
    which candidate came out on top (the first of equals)."""

    query: Query
    hit: float
    hit5: float
    similarity: float
    cut: bool
    found: str = ""


def bag_queries(bags: Sequence[Sequence[str]], captions: Mapping[str, str], what: str = "bags") -> list[Query]:
    """Every image's caption asked within its bag; bags are the groups of the interval.

    Raises:
        FieldmarkError: an image without a caption.
    """
    missing = sorted({name for bag in bags for name in bag if name not in captions})
    if missing:
        raise FieldmarkError(f"{what}: {len(missing)} images have no caption ({', '.join(missing[:3])}, ...)")
    return [
        Query(str(number), captions[name], tuple(bag), own)
        for number, bag in enumerate(bags)
        for own, name in enumerate(bag)
    ]


def match(encoder: Embedder, queries: Sequence[Query], files: Mapping[str, Path]) -> list[Match]:
    """Ask every query; images are embedded once each.

    Raises:
        FieldmarkError: a candidate without a file; ImageError for one that cannot be read.
    """
    names = sorted({name for query in queries for name in query.candidates})
    if absent := [name for name in names if name not in files]:
        raise FieldmarkError(f"{len(absent)} images have no file ({', '.join(absent[:3])}, ...)")
    place = {name: number for number, name in enumerate(names)}
    seen = encoder.images([files[name] for name in names])
    found = []
    for query in queries:
        texts = encoder.texts([query.caption])
        row = similarity(texts, seen[[place[name] for name in query.candidates]], encoder.pool)[0]
        found.append(
            Match(
                query,
                hit_share(row, query.own),
                hit_share(row, query.own, 5),
                float(row[query.own]),
                bool(texts.cut[0]),
                query.candidates[int(row.argmax())],
            )
        )
    return found


def retrieval_scores(matches: Sequence[Match], seed: int = 0) -> dict[str, Any]:
    """R@1 and R@5 with intervals over groups, chance, and the published "CLIP score" (100 * cosine, clamped at 0)."""
    groups = [one.query.group for one in matches]
    chance = float(np.mean([1 / len(one.query.candidates) for one in matches]))
    return {
        "r1": stats.mean([one.hit for one in matches], groups, seed=seed).as_dict(),
        "r5": stats.mean([one.hit5 for one in matches], groups, seed=seed).as_dict(),
        "chance": chance,
        "clip_score": float(np.mean([100 * max(one.similarity, 0.0) for one in matches])),
        "cut": float(np.mean([one.cut for one in matches])),
    }

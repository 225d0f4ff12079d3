"""Do captions retrieve their own images? Shared by TrueMatch, random distractors and ImageCoDe.

Long or invented captions can raise a retrieval score: report it with length, diversity and the share of true claims.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mllm.errors import FieldmarkError
from mllm.metrics import stats
from mllm.models.similarity import Embedder, similarity


@dataclass(frozen=True, slots=True)
class Query:
    """One caption and its candidates: `candidates` are image names, `own` the index of the caption's image."""

    group: str
    caption: str
    candidates: tuple[str, ...]
    own: int


@dataclass(frozen=True, slots=True)
class Match:
    """The result of a query.

    `hit` and `hit5` are the probabilities of rank 1 and of rank 1 to 5 with ties broken at random, `similarity` is that
    to the caption's own image, `cut` whether the caption was too long for the judge, `found` the best candidate.
    `published_hit` is the rule of TrueMatch's script: the caption is cut at the judge's context, and a tie is a hit.
    """

    query: Query
    hit: float
    hit5: float
    similarity: float
    cut: bool
    found: str = ""
    published_hit: bool = False
    published_similarity: float = 0.0


def bag_queries(bags: Sequence[Sequence[str]], captions: Mapping[str, str], what: str = "bags") -> list[Query]:
    """Return a query for every image's caption within its bag; bags are the groups of the interval.

    Raises `FieldmarkError`: an image without a caption.
    """
    if missing := sorted({name for bag in bags for name in bag if name not in captions}):
        raise FieldmarkError(f"{what}: {len(missing)} images have no caption ({', '.join(missing[:3])}, ...)")
    return [
        Query(str(number), captions[name], tuple(bag), own)
        for number, bag in enumerate(bags)
        for own, name in enumerate(bag)
    ]


def match(encoder: Embedder, queries: Sequence[Query], files: Mapping[str, Path]) -> list[Match]:
    """Run every query; each image is embedded once.

    Raises `FieldmarkError`: a candidate without a file; ImageError for one that cannot be read.
    """
    names = sorted({name for query in queries for name in query.candidates})
    if absent := [name for name in names if name not in files]:
        raise FieldmarkError(f"{len(absent)} images have no file ({', '.join(absent[:3])}, ...)")
    place = {name: number for number, name in enumerate(names)}
    seen = encoder.images([files[name] for name in names])
    found = []
    for query in queries:
        texts = encoder.texts([query.caption])
        places = [place[name] for name in query.candidates]
        row = similarity(texts, seen[places], encoder.pool)[0]
        hits = stats.hit_share(row, query.own), stats.hit_share(row, query.own, 5)
        about = float(row[query.own]), bool(texts.cut[0]), query.candidates[int(row.argmax())]
        if len(texts.owner_S) > 1:  # scored sentence by sentence
            row = similarity(encoder.texts([query.caption], whole=True), seen[places], encoder.pool)[0]
        found.append(Match(query, *hits, *about, bool(row[query.own] == row.max()), float(row[query.own])))
    return found


def retrieval_scores(matches: Sequence[Match], seed: int = 0) -> dict[str, Any]:
    """Return R@1 and R@5 with intervals over groups, chance, and R@1 and "CLIP score" by the published rule."""
    groups = [one.query.group for one in matches]
    return {
        "r1": stats.mean([one.hit for one in matches], groups, seed=seed).as_dict(),
        "r5": stats.mean([one.hit5 for one in matches], groups, seed=seed).as_dict(),
        "chance": float(np.mean([1 / len(one.query.candidates) for one in matches])),
        "published_r1": float(np.mean([one.published_hit for one in matches])),
        "clip_score": float(np.mean([100 * max(one.published_similarity, 0.0) for one in matches])),
        "cut": float(np.mean([one.cut for one in matches])),
    }

"""Chooses the questions that a report shows with images: alternating hits and misses, and those where runs differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mllm.evaluation import kvg_published
from mllm.evaluation.runs import BenchmarkRun
from mllm.evaluation.scores import Case


def cases(runs: Iterable[BenchmarkRun]) -> list[Case]:
    """Return the questions that one run answers right and another wrong, as the first run answered them.

    Questions that the first run has right and those it has wrong alternate, over all domains.
    """
    answered: dict[str, list[Case]] = {}
    for run in runs:
        for case in run.cases:
            answered.setdefault(case.sample.id, []).append(case)
    return mixed([each[0] for each in answered.values() if len({case.hit for case in each}) > 1])


def mixed(cases: Sequence[Case]) -> list[Case]:
    """Order cases so that every beginning of the list has hits and misses, seen and unseen, and many domains."""
    order = [*kvg_published.SEEN_DOMAINS, *kvg_published.UNSEEN_DOMAINS]
    kinds: dict[tuple[bool, str], list[Case]] = {}
    for case in cases:
        kinds.setdefault((case.hit, case.sample.domain), []).append(case)
    hits, misses = (
        [
            kinds[key]
            for key in sorted(kinds, key=lambda k: (order.index(k[1]) if k[1] in order else 99, k[1]))
            if key[0] == hit
        ]
        for hit in (True, False)
    )
    misses = (
        misses[len(misses) // 2 :] + misses[: len(misses) // 2]
    )  # so that neighbouring hits and misses come from other domains
    mixed: list[Case] = []
    for depth in range(max((len(part) for part in kinds.values()), default=0)):
        lanes = [[part[depth] for part in parts if depth < len(part)] for parts in (hits, misses)]
        for k in range(max(map(len, lanes))):
            mixed += [lane[k] for lane in lanes if k < len(lane)]
    return mixed

"""Which questions a report shows with images: hits and misses in turn, and those on which runs disagree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mllm.evaluation import kvg_published
from mllm.evaluation.runs import BenchmarkRun
from mllm.evaluation.scores import Case


def cases(runs: Iterable[BenchmarkRun]) -> list[Case]:
    """The questions that one run gets right and another wrong, each as the first run that was asked answered it.

    What the first run had right (and another lost) and what it had wrong (and another won) take turns, over all
    domains.
    """
    answered: dict[str, list[Case]] = {}
    for run in runs:
        for case in run.cases:
            answered.setdefault(case.sample.id, []).append(case)
    return mixed([each[0] for each in answered.values() if len({case.hit for case in each}) > 1])


def mixed(cases: Sequence[Case]) -> list[Case]:
    """Order cases so that any beginning of the list has hits and misses, seen and unseen, and many domains."""
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
    misses = misses[len(misses) // 2 :] + misses[: len(misses) // 2]  # other domains than the hits beside them
    mixed: list[Case] = []
    for depth in range(max((len(part) for part in kinds.values()), default=0)):
        lanes = [[part[depth] for part in parts if depth < len(part)] for parts in (hits, misses)]
        for k in range(max(map(len, lanes))):
            mixed += [lane[k] for lane in lanes if k < len(lane)]
    return mixed

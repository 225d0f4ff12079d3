"""Knowledge against grounding: the cases that a model knows and finds, knows but does not find, and so on.

KARL (arXiv 2503.12797v3) reports for Qwen3-VL-8B on KVG-Bench: 46.1 % both, 22.9 % known but not found, 11.1 % found
but not known, 19.9 % neither.
"""

from collections.abc import Sequence
from typing import Any

from mllm.evaluation import scores
from mllm.evaluation.scores import Case
from mllm.knowledge.mastery import HIGH, LEVELS, Entry, MasteryTable

KNOWN_FROM = 0.5
"""Share of right answers from which an entity counts as known."""
QUADRANTS = ("knows and grounds", "knows, cannot ground", "grounds, does not know", "neither")


def knows(entry: Entry) -> bool:
    """Whether an entity counts as known: half of its answers right, or a high level where there are no counts."""
    return entry.level in HIGH if entry.accuracy is None else entry.accuracy >= KNOWN_FROM


def shares(pairs: Sequence[tuple[bool, bool]]) -> dict[str, float]:
    """Return the share of each quadrant, from pairs of (known, found)."""
    order = ((True, True), (True, False), (False, True), (False, False))
    return {name: pairs.count(pair) / len(pairs) for name, pair in zip(QUADRANTS, order, strict=True)}


def measure(cases: Sequence[Case], table: MasteryTable, *, seed: int = 0) -> dict[str, Any]:
    """Split the cases of present things by how well their entities are known.

    Returns plain values: `file`; `unknown`, the entities that the table lacks (their cases are left out and counted in
    `left_out`; the published scorer would stop at the first); `quadrants`, shares that sum to 1; `published_quadrants`
    where KVG-Bench's rules apply: known from `partially correct` on, found by KARL's scorer; `levels`, with `high` and
    `low` among them, each like a slice of `scores.table`.
    """
    present = [case for case in cases if case.sample.boxes]
    kept = [case for case in present if case.sample.entity in table]
    found: dict[str, Any] = {
        "file": table.origin,
        "unknown": table.missing(case.sample.entity for case in present),
        "left_out": len(present) - len(kept),
        "quadrants": {},
        "levels": {},
    }
    if not kept:
        return found
    entries = [table[case.sample.entity] for case in kept]
    found["quadrants"] = shares([(knows(entry), case.hit) for entry, case in zip(entries, kept, strict=True)])
    if all(case.published for case in kept):
        hits = [case.published["published"] >= 0.5 for case in kept]
        known = [entry.level in HIGH for entry in entries]
        found["published_quadrants"] = shares(list(zip(known, hits, strict=True)))
    parts = {name: [case for case in kept if table[case.sample.entity].level == name] for name in LEVELS}
    parts["high"] = [case for name in HIGH for case in parts[name]]
    parts["low"] = [case for name in LEVELS if name not in HIGH for case in parts[name]]
    found["levels"] = {name: scores.measure(part, seed=seed) for name, part in parts.items() if part}
    return found

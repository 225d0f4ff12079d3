"""What a report says first: a few sentences about its last run, made from the numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from mllm.evaluation.scores import Case
from mllm.io.tables import interval, percent

UNSEEN = "unseen entities"


def sentences(tables: Mapping[str, Mapping[str, Any]], differences: Sequence[Mapping[str, Any]]) -> list[str]:
    """Compare the last run with the one before it: right answers, those on unseen entities, and how it reasons.

    Args:
        tables: score tables by run, in the order of the report.
        differences: the report's paired differences of the two.
    """
    if len(tables) < 2:
        return []
    (before, old), (after, new) = list(tables.items())[-2:]
    changes = {row["slice"]: row["acc"] for row in differences if (row["a"], row["b"]) == (before, after)}
    found = []
    for part, words in (("all", "questions"), (UNSEEN, "questions about species that training never showed")):
        if changes.get(part) is not None and part in new["slices"]:
            a, b = old["slices"][part]["acc"], new["slices"][part]["acc"]
            share = (
                f"{after} answers {percent(b['value'])} % ({interval(b)}) of {new['slices'][part]['samples']} {words}"
            )
            rest = f"right, {before} {percent(a['value'])} % ({interval(a)}): {_change(changes[part])}."
            found.append(f"{share} {rest}")
    reasoning = _reasoning(before, old, after, new)
    return [*found, reasoning] if reasoning else found


def _change(change: Mapping[str, Any]) -> str:
    points = f"{percent(abs(change['value']))} points {'more' if change['value'] >= 0 else 'fewer'}"
    clear = "" if change["clear"] else ", so no order can be claimed"
    return f"{points} (95 % interval of the difference {interval(change)}{clear})"


def _reasoning(before: str, old: Mapping[str, Any], after: str, new: Mapping[str, Any]) -> str | None:
    """Say how long answers are and how many things they look at; None if the lengths are unknown."""
    tokens = [table["slices"]["all"]["tokens"] for table in (old, new)]
    if None in tokens:
        return None
    length = f"An answer of {after} has {tokens[1]:.0f} tokens, one of {before} {tokens[0]:.0f}"
    looks = []
    for table in (old, new):
        rows = {row["name"]: row for row in table["links"].get("all", [])}
        looks.append(rows["found"]["share"] if rows.get("found") and rows["form"]["right"] else None)
    if looks[1] is None:
        return f"{length}."
    was = "none" if looks[0] is None else f"{percent(looks[0])} %"
    return f"{length}; its reasoning looks at {percent(looks[1])} % of the things in the image ({before}: {was})."


def changed(before: Sequence[Case], after: Sequence[Case]) -> list[tuple[Case, Case]]:
    """Return the answers to the same question of which only one is right: first those that the second run gained."""
    old = {case.sample.id: case for case in before}
    pairs = [(old[case.sample.id], case) for case in after if case.sample.id in old]
    different = [pair for pair in pairs if pair[0].hit != pair[1].hit]
    return sorted(different, key=lambda pair: pair[0].hit)

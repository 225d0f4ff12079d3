"""Merge captions of one image by rules, without a model: no detail lost, none added, and no style.

The result reads like notes; for captions worth training on, use a teacher with a model.
"""

from __future__ import annotations

from collections.abc import Sequence

from mllm.captions import clauses
from mllm.errors import FieldmarkError
from mllm.metrics import claims


def blend(captions: Sequence[str]) -> str:
    """Return the caption with the most details, followed by what the others add, one sentence each.

    Where people give a thing different colours or numbers, the majority's version is used, the first one on ties.
    """
    written = [" ".join(caption.split()) for caption in captions]
    if not any(written):
        raise FieldmarkError("a blend needs at least one caption")
    settled = [claims.settled(caption, written) for caption in written]
    first = max(range(len(settled)), key=lambda index: len(claims.details(settled[index])))
    merged = _append(settled[first], settled[:first] + settled[first + 1 :])
    for clause in (clause for caption in settled for clause in clauses(caption)):
        longer = f"{merged} {_sentence(clause)}"
        if claims.kept_share(written, longer) > claims.kept_share(written, merged):  # same words, but the winning claim
            merged = longer
    return merged


def expand(caption: str, description: str) -> str:
    """Return the caption followed by what a description adds; where the two disagree, the caption wins."""
    trusted = " ".join(caption.split())
    return _append(trusted, [claims.settled(description, [trusted, description])])


def _append(caption: str, others: Sequence[str]) -> str:
    """Append those clauses of other captions that hold a detail the caption does not have yet."""
    found = [f"{caption.rstrip(' .')}."]
    for clause in (clause for other in others for clause in clauses(other)):
        if claims.added(found, clause):
            found.append(_sentence(clause))
    return " ".join(found)


def _sentence(clause: str) -> str:
    return f"{clause[0].upper()}{clause[1:]}."

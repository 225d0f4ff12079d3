"""Captions of one image put together by rules, without a model: no detail lost, none added, and no style.

What comes out reads like notes, not like prose. It shows that a pipeline works, and is what a teacher without a model
can do; for captions to learn from, take a teacher with one.
"""

from __future__ import annotations

from collections.abc import Sequence

from mllm.captions import clauses
from mllm.errors import FieldmarkError
from mllm.metrics import claims


def blend(captions: Sequence[str]) -> str:
    """Return the caption with most details, and what the others add to it, a sentence each.

    Where people give a thing different colours or numbers, the side that most of them take is told, the first on ties.
    """
    told = [" ".join(caption.split()) for caption in captions]
    if not any(told):
        raise FieldmarkError("a blend needs at least one caption")
    spoken = [claims.settled(caption, told) for caption in told]
    first = max(range(len(spoken)), key=lambda place: len(claims.details(spoken[place])))
    whole = _with(spoken[first], spoken[:first] + spoken[first + 1 :])
    for clause in (clause for caption in spoken for clause in clauses(caption)):
        more = f"{whole} {_sentence(clause)}"
        if claims.kept_share(told, more) > claims.kept_share(told, whole):  # the winning side, of words told before
            whole = more
    return whole


def expand(caption: str, description: str) -> str:
    """Return the caption and what a description adds to it; where the two disagree the caption's word stands."""
    trusted = " ".join(caption.split())
    return _with(trusted, [claims.settled(description, [trusted, description])])


def _with(whole: str, others: Sequence[str]) -> str:
    """Append those clauses of other captions that hold a detail which is not told yet."""
    sentences = [f"{whole.rstrip(' .')}."]
    for clause in (clause for caption in others for clause in clauses(caption)):
        if claims.added(sentences, clause):
            sentences.append(_sentence(clause))
    return " ".join(sentences)


def _sentence(clause: str) -> str:
    """Give a clause a capital and a full stop."""
    return f"{clause[0].upper()}{clause[1:]}."

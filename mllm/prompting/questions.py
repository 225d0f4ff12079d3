"""How a question is worded: by name, by marks that only one thing of the image shows, or for all of a kind.

Descriptions for a share of the questions keep a model from relying on names alone (DesCo, arXiv 2306.14060).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mllm.errors import FieldmarkError
from mllm.knowledge.cards import has_mark
from mllm.knowledge.domains import Domain
from mllm.prompting import prose
from mllm.records import QuestionKind

NAME: Final = "name"
DESCRIPTION: Final = "description"
ABSENT: Final = "absent"
SEVERAL: Final = "several"

MOST_ASKED = 4
"""A description holds at most so many marks."""
_BY_MARKS_PLAIN = "Find the {noun} with marks {marks}."
_BY_MARKS: dict[prose.Way, tuple[str, ...]] = {
    "has": ("Find the {noun} with {marks}.", "One of these {plural} has {marks}. Where is it?"),
    "is": ("Find the {noun} that is {marks}.", "One of these {plural} is {marks}. Where is it?"),
    "note": (
        "Which of the {plural} has these marks: {marks}? Box it.",
        "Point at the {noun} that fits this description: {marks}.",
    ),
}
_ALL = (
    "Find every {noun} {entity}.",
    "Box each {entity} that you can see among these {plural}.",
    "There is more than one {entity} here: point out all of them.",
)
RECALLS = (
    "What are the marks of {name}?",
    "Describe {name}.",
    "How do I know {name}?",
    "Tell me about the {noun} {name}.",
    "{name}: marks?",
    "Which marks has the {noun} {name}?",
)
"""What asks for a thing's marks, without an image. The pocket base was taught in these words."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """Shares of the kinds of questions, 0..1; the rest asks by name."""

    descriptions: float = 0.0
    absent: float = 0.0
    several: float = 0.0

    def __post_init__(self) -> None:
        for name in ("descriptions", "absent", "several"):
            if not 0 <= getattr(self, name) <= 1:
                raise FieldmarkError(f"--{name}: a share from 0 to 1 is needed, got {getattr(self, name)}")
        if self.descriptions + self.absent + self.several > 1:
            raise FieldmarkError("--descriptions, --absent and --several together exceed 1")

    def draw(self, rng: random.Random) -> QuestionKind:
        """Draw a kind."""
        thrown = rng.random()
        shares: dict[QuestionKind, float] = {DESCRIPTION: self.descriptions, ABSENT: self.absent, SEVERAL: self.several}
        for kind, share in shares.items():
            if thrown < share:
                return kind
            thrown -= share
        return NAME


def question(domain: Domain, kind: str, entity: str, marks: Sequence[str], rng: random.Random, *, plain: bool) -> str:
    """Word a question; `plain` takes the first wording (the pocket model's)."""
    if kind in (NAME, ABSENT):  # one asks in the same words for what is there and for what is not
        return domain.question(entity, 0 if plain else rng.randrange(len(domain.questions)))
    words = {"noun": domain.noun, "plural": domain.plural}
    if kind == SEVERAL:
        return (_ALL[0] if plain else rng.choice(_ALL)).format(entity=entity, **words)
    if plain:
        return _BY_MARKS_PLAIN.format(marks=listed(marks), **words)
    way, text = prose.stated(marks)
    return rng.choice(_BY_MARKS[way] + (_BY_MARKS["note"] if way == "has" else ())).format(marks=text, **words)


def recalls(entity: str, noun: str | None) -> list[str]:
    """Ask for the marks of an entity in every wording; without its noun, in those that do without."""
    return [words.format(name=entity, noun=noun) for words in RECALLS if noun or "{noun}" not in words]


def telling(own: Sequence[str], others: Sequence[Sequence[str]], rng: random.Random) -> tuple[str, ...] | None:
    """Choose marks of `own`, in their order, that none of `others` has all of; None where nothing tells them apart."""
    most = min(MOST_ASKED, len(own))
    lacking = [[not has_mark(other, mark) for other in others] for mark in own]
    for _ in range(12):
        chosen = sorted(rng.sample(range(len(own)), rng.randint(1, most))) if most else []
        if chosen and all(any(lacking[mark][other] for mark in chosen) for other in range(len(others))):
            return tuple(own[mark] for mark in chosen)
    whole = all(any(row[other] for row in lacking) for other in range(len(others)))
    return tuple(own) if own and len(own) <= MOST_ASKED and whole else None


def listed(marks: Sequence[str]) -> str:
    """Write marks as a list; those that hold commas of their own are parted by semicolons."""
    return ("; " if any("," in mark for mark in marks) else ", ").join(marks)

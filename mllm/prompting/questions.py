"""How a question is worded: by name, by marks of one thing alone, for all of a kind, or for the name of a thing.

Descriptions for a share of the questions keep a model from relying on names alone (DesCo, arXiv 2306.14060).
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
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
NAMING: Final = "naming"
MOST_LETTERS = len(ascii_uppercase)
"""Most names that one question can list with letters."""

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
NAMINGS = ("What species of {noun} is {place}?", "Which {noun} is {place}?", "What is {place}? Name the {noun}.")
_LETTERED = " Answer with the letter."
_ASKS_NAME = re.compile(
    "|".join(
        re.escape(words).replace(r"\{noun\}", r"[^?.]{1,60}").replace(r"\{place\}", r"(?:this|at [^?]{1,200})")
        for words in NAMINGS
    )
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
    """share of questions that ask by marks, not by name"""
    absent: float = 0.0
    """share of questions about something that is not in the image"""
    several: float = 0.0
    """share of questions about all things of a kind, of which there are several"""
    naming: float = 0.0
    """share of questions that ask what a thing is: at a box or, with one question an image, on the whole photo"""

    def __post_init__(self) -> None:
        shares = {name: getattr(self, name) for name in ("descriptions", "absent", "several", "naming")}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise FieldmarkError(f"--{name}: a share from 0 to 1 is needed, got {share}")
        if sum(shares.values()) > 1:
            raise FieldmarkError("--descriptions, --absent, --several and --naming together exceed 1")

    def draw(self, rng: random.Random) -> QuestionKind:
        """Draw a kind."""
        thrown = rng.random()
        shares: dict[QuestionKind, float] = {DESCRIPTION: self.descriptions, ABSENT: self.absent, SEVERAL: self.several}
        shares[NAMING] = self.naming  # last: a set without it is drawn as before
        for kind, share in shares.items():
            if thrown < share:
                return kind
            thrown -= share
        return NAME


def question(
    domain: Domain,
    kind: str,
    entity: str,
    marks: Sequence[str],
    rng: random.Random,
    *,
    plain: bool,
    scene: bool = False,
) -> str:
    """Word a question; `plain` takes the first wording (the pocket model's).

    In a `scene` other things may be of other domains: wordings that call all by the domain's plural are not used.
    """
    text = ""
    if kind != DESCRIPTION:  # one asks in the same words for what is there and for what is not
        wordings = _ALL if kind == SEVERAL else domain.questions
    elif plain:
        wordings, text = (_BY_MARKS_PLAIN,), listed(marks)
    else:
        way, text = prose.stated(marks)
        wordings = _BY_MARKS[way] + (_BY_MARKS["note"] if way == "has" else ())
    if scene:
        wordings = [one for one in wordings if "{plural}" not in one and f"these {domain.plural}" not in one]
    return domain.worded(wordings[0] if plain else rng.choice(wordings), entity, marks=text)


def naming(noun: str, place: str = "this", names: Sequence[str] = (), which: int = 0) -> str:
    """Ask what a thing is, open or with a letter before each of `names`, at most 26; `place` is `this` or `at BOX`.

    The first wording is the one that the chat, the page and `fieldmark identify` use; that with letters is KARL's.
    """
    if len(names) > MOST_LETTERS:
        raise FieldmarkError(f"{len(names)} names are too many for one question, which has letters for {MOST_LETTERS}")
    if not names:
        return NAMINGS[which % len(NAMINGS)].format(noun=noun, place=place)
    listed = " ".join(f"{letter}. {name}." for letter, name in zip(ascii_uppercase, names, strict=False))
    return f"Which {noun} is {place}? {listed}{_LETTERED}"


def lettered(question: str) -> bool:
    """Whether a question lists names with letters to choose from."""
    return question.endswith(_LETTERED)


def asks_for_name(question: str) -> bool:
    """Whether a question is worded as `naming` words it."""
    return lettered(question) or _ASKS_NAME.fullmatch(question) is not None


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

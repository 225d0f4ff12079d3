"""How much of the entity's card the thought recalls before it looks: meant to be logged, not trained on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mllm.knowledge.cards import Cards, load_cards
from mllm.models.box_notation import first_box
from mllm.records import Completion, Sample, Score
from mllm.rewards import BaseReward

_DENIAL = r"(?:no|not|without|lacks|lacking|never)(?: (?:a|an|any|the))?"


@dataclass(frozen=True)
class Reward(BaseReward):
    """R = max(0, recalled - contradicted) / marks of the entity's card, 0..1 (ours).

    Looked at is what the thought says before it first mentions a box; marks told of candidates do not count. A mark is
    recalled where its words stand there in a row. It is contradicted where it is denied ("no blue cap") or, for a mark
    of several words, where its last word, the part, stands with other words only ("red cap"). Marks of one word have no
    part to be wrong about; wrong ones earn nothing.

    The card is that of `cards` (a file of `mllm.knowledge.cards`) or else the marks of the sample's own thing; where neither
    knows the entity: None. Weight 0 by default: a reward for naming marks can be earned by listing many.
    """

    weight: ClassVar[float] = 0.0
    cards: str | None = None

    def __post_init__(self) -> None:
        """Read the card file once, so that a bad one is found at once."""
        object.__setattr__(self, "_cards", load_cards(Path(self.cards)) if self.cards else None)

    def __call__(self, samples: Sequence[Sample], completions: Sequence[Completion]) -> list[Score]:
        """Score each completion; parts: recalled and contradicted, as shares of the card's marks."""
        return [self._score(s, c) for s, c in zip(samples, completions, strict=True)]

    def _score(self, sample: Sample, completion: Completion) -> Score:
        """Score one completion."""
        marks = self._card(sample)
        if not marks:
            return Score(None)
        thought = completion.answer.thought or ""
        said = _plain(thought[: first_box(thought)])
        recalled = sum(_states(said, mark) for mark in marks)
        contradicted = sum(_contradicts(said, mark, marks) for mark in marks)
        value = max(0, recalled - contradicted) / len(marks)
        return Score(value, {"recalled": recalled / len(marks), "contradicted": contradicted / len(marks)})

    def _card(self, sample: Sample) -> tuple[str, ...]:
        """Return the plain marks of the entity that was asked for; empty where nobody knows them."""
        cards: Cards | None = self._cards  # pyright: ignore[reportAttributeAccessIssue]
        if cards is not None:
            found: Iterable[str] = cards[sample.entity] if sample.entity in cards else ()
        else:
            found = next((thing.marks for thing in sample.things if thing.entity == sample.entity), ())
        return tuple(dict.fromkeys(plain for mark in found if (plain := _plain(mark))))


def _plain(text: str) -> str:
    """Lower case, sentence and clause ends as ` , `, and single blanks: what two wordings of a mark have in common."""
    text = re.sub(r"[.,;:!?()\n]", " , ", text.lower())
    return " ".join(re.sub(r"[^\w,]+", " ", text).split())


def _states(said: str, mark: str) -> bool:
    """Whether a mark's words stand in a text in a row and are not denied."""
    return bool(re.search(rf"(?<!\w){re.escape(mark)}(?!\w)", _undenied(said, mark)))


def _undenied(said: str, mark: str) -> str:
    """Return the text without denials of a mark."""
    return re.sub(rf"(?<!\w){_DENIAL} {re.escape(mark)}(?!\w)", " ", said)


def _contradicts(said: str, mark: str, card: Sequence[str]) -> bool:
    """Whether a mark is denied, or its part stands in the text with words that no mark of the card has."""
    if _undenied(said, mark) != said:
        return True
    *words, part = mark.split()
    if not words or _states(said, mark):
        return False
    for own in (other for other in card if other.split()[-1] == part):
        said = re.sub(rf"(?<!\w){re.escape(own)}(?!\w)", ",", said)
    return bool(re.search(rf"(?<!\w)(?!(?:a|an|the|its|of)\b)\w+ {re.escape(part)}(?!\w)", said))

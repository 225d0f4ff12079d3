"""How much of the entity's card the thought recalls before its first box: meant to be logged, not trained on."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mllm.knowledge.cards import Cards, load_cards
from mllm.models.box_notation import first_box
from mllm.records import Completion, Sample, Score
from mllm.rewards import SampleReward

_DENIAL = r"(?:no|not|without|lacks|lacking|never)(?: (?:a|an|any|the))?"


@dataclass(frozen=True)
class Reward(SampleReward):
    """R = max(0, recalled - contradicted) / marks of the entity's card, 0..1 (ours).

    Only the thought before its first box counts; marks of candidates do not. A mark is recalled if its words occur
    there in a row. It is contradicted if it is denied ("no blue cap") or, for a mark of several words, if its last
    word, the part, occurs with other words only ("red cap"). Marks of one word cannot be contradicted by their part;
    wrong ones earn nothing.

    The card comes from `cards` (a file for `mllm.knowledge.cards`), or else from the marks of the sample's own thing;
    if neither has the entity, and for samples of task `name`: None. Weight 0 by default: naming many marks would
    earn it.
    """

    weight: ClassVar[float] = 0.0
    cards: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_cards", load_cards(Path(self.cards)) if self.cards else None)

    def score(self, sample: Sample, completion: Completion) -> Score:
        """Score one completion; parts: recalled and contradicted, as shares of the card's marks."""
        marks = self._card(sample)
        if not marks or sample.task == "name":
            return Score(None)
        thought = completion.answer.thought or ""
        text = _plain(thought[: first_box(thought)])
        recalled = sum(_states(text, mark) for mark in marks)
        contradicted = sum(_contradicts(text, mark, marks) for mark in marks)
        value = max(0, recalled - contradicted) / len(marks)
        return Score(value, {"recalled": recalled / len(marks), "contradicted": contradicted / len(marks)})

    def _card(self, sample: Sample) -> tuple[str, ...]:
        """Return the plain marks of the sample's entity; empty if they are not known."""
        cards: Cards | None = self._cards  # pyright: ignore[reportAttributeAccessIssue]
        if cards is not None:
            marks: Iterable[str] = cards[sample.entity] if sample.entity in cards else ()
        else:
            marks = next((thing.marks for thing in sample.things if thing.entity == sample.entity), ())
        return tuple(dict.fromkeys(plain for mark in marks if (plain := _plain(mark))))


def _plain(text: str) -> str:
    """Normalise a text: lower case, ends of sentences and clauses as ` , `, and single blanks."""
    text = re.sub(r"[.,;:!?()\n]", " , ", text.lower())
    return " ".join(re.sub(r"[^\w,]+", " ", text).split())


def _states(text: str, mark: str) -> bool:
    return bool(re.search(rf"(?<!\w){re.escape(mark)}(?!\w)", _undenied(text, mark)))


def _undenied(text: str, mark: str) -> str:
    return re.sub(rf"(?<!\w){_DENIAL} {re.escape(mark)}(?!\w)", " ", text)


def _contradicts(text: str, mark: str, card: Sequence[str]) -> bool:
    """Whether a mark is denied, or its part occurs in the text with words that no mark of the card has."""
    if _undenied(text, mark) != text:
        return True
    *words, part = mark.split()
    if not words or _states(text, mark):
        return False
    for own in (other for other in card if other.split()[-1] == part):
        text = re.sub(rf"(?<!\w){re.escape(own)}(?!\w)", ",", text)
    return bool(re.search(rf"(?<!\w)(?!(?:a|an|the|its|of)\b)\w+ {re.escape(part)}(?!\w)", text))

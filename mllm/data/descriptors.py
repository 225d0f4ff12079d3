"""Reads published descriptors of classes into knowledge cards. Forms:

    {entity: [mark, ...]}            class descriptors, and every card file (`mllm.knowledge.card_files`)
    {entity_0: [mark, ...], ...}     json: marks of numbered single images; their share becomes the confidence

An entity with an empty list, of which published files have some, is passed over. In json and yaml, marks of more than
`LONG` words are split at commas and full stops. A mark stays unverified until it is checked.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mllm.io import strict_json, words
from mllm.knowledge.card_files import Card, KnowledgeError, Mark, read
from mllm.knowledge.cards import has_mark, part_of

LONG = 12
_NUMBERED = re.compile(r"(.+)_\d+")


def load(file: str | Path) -> dict[str, Card]:
    """Read one file; the keys are the entities as written. Every mark gets its part and its source.

    Raises `KnowledgeError`: an unreadable file. Names file, entity or line, and field.
    """
    file = Path(file)
    if not (cards := _of_images(file)):
        for name, card in read(file, skip_empty=True).items():
            split = () if file.suffix == ".csv" else (one for mark in card.marks for one in _phrases(mark))
            cards[name] = replace(card, marks=tuple(split) or card.marks)
    for name, card in cards.items():
        named = card.source or file.name
        marks = (replace(m, part=m.part or part_of(m.text), source=m.source or named) for m in card.marks)
        cards[name] = replace(card, marks=tuple(marks), source=named)
    return cards


def merge(entity: str, domain: str, cards: Sequence[Card]) -> Card:
    """Merge several sources' cards of one entity. With several, a mark's confidence is the share that agrees."""
    marks: list[Mark] = []
    for card in cards:
        marks += [mark for mark in card.marks if not has_mark([known.text for known in marks], mark.text)]
    if len(cards) > 1:
        for place, mark in enumerate(marks):
            agreeing = sum(has_mark([known.text for known in card.marks], mark.text) for card in cards)
            marks[place] = replace(mark, confidence=round(agreeing / len(cards), 3))
    sources = dict.fromkeys(card.source for card in cards if card.source)
    return Card(entity, domain, tuple(marks), ", ".join(sources))


def _phrases(mark: Mark) -> Iterator[Mark]:
    if len(mark.text.split()) <= LONG:
        yield mark
        return
    phrases: list[str] = []
    end = ""
    for phrase, after in re.findall(r"([^,.;]*)([,.;](?:\s+and\b)?|$)", mark.text):
        if phrases and not (part_of(phrase) and part_of(phrases[-1])):  # "a thick, double coat": one of the two alone
            phrases[-1] += f"{end}{phrase}"
        elif phrase.strip():
            phrases.append(phrase)
        end = after
    yield from (replace(mark, text=phrase.strip(" .")) for phrase in phrases)


def _of_images(file: Path) -> dict[str, Card]:
    """Read marks of single images; empty if the file has another form."""
    if file.suffix != ".json" or not file.is_file():
        return {}
    try:
        content: Any = strict_json.load(file)
    except ValueError:
        return {}  # `card_files.read` names the error
    if not isinstance(content, dict) or not content or not all(map(_NUMBERED.fullmatch, content)):
        return {}
    images: dict[str, list[set[str]]] = defaultdict(list)
    for name, marks in content.items():
        if not isinstance(marks, list) or not all(isinstance(mark, str) and mark.strip() for mark in marks):
            raise KnowledgeError(f"{file}: card {name!r}: a list of texts is needed, got {marks!r:.60}")
        for text in (name, *marks):
            words.check(text, f"{file}: card {name!r}", KnowledgeError)
        images[name.rpartition("_")[0]].append({mark.strip().lower() for mark in marks})
    cards = {}
    for name, sets in images.items():
        counts = Counter(mark for marks in sets for mark in marks)
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))  # the most frequent first
        cards[name] = Card(name, marks=tuple(Mark(text, confidence=round(n / len(sets), 3)) for text, n in ordered))
    return cards

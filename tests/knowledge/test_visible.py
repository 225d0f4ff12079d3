"""Marks that no photo can show: by hand-made examples, and against labels of published descriptors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from mllm.knowledge.card_files import Card, Mark
from mllm.knowledge.visible import unseen, without_unseen
from mllm.pocket.species import species

LABELS = Path(__file__).with_name("visible_labels.txt")
"""Set, first digits of the sha1 of `entity|mark`, and whether no photo can show it (1), as a person who read it judged.

Set A: the 260 of 4,713 descriptors with the smallest hashes. Set B: of the rest, 358 with a word that could hint at
something invisible ("found", "sweet", "engine").
"""


@pytest.mark.parametrize(
    ("mark", "reason"),
    [
        ("high energy level", "temper or behaviour"),
        ("friendly temperament", "temper or behaviour"),
        ("loud song", "sound"),
        ("found in North America", "place"),
        ("weighs 30 kg", "weight or size in units"),
        ("a wingspan of 2 m", "weight or size in units"),
        ("a sweet scent", "smell or taste"),
        ("perennial", "season or age"),
        ("a V8 engine", "engine or equipment"),
        ("often served as a snack", "use"),
    ],
)
def test_what_no_photo_shows_has_a_reason(mark: str, reason: str) -> None:
    assert unseen(mark) == reason == unseen(mark.upper())


@pytest.mark.parametrize(
    "mark",
    [
        "a small songbird",
        "can be found in clusters",
        "large, fragrant flowers",
        "18-inch alloy wheels",
        "two engines mounted under the wings",
        "black spots found on the wings",
        "a tail often held upright",
        "served with rice",
        "an expressive face",
    ],
)
def test_what_a_photo_shows_is_kept(mark: str) -> None:
    assert unseen(mark) is None


def test_no_mark_of_the_drawn_world_is_dropped() -> None:
    assert not [mark for one in species() for mark in one.marks if unseen(mark)]


def test_cards_are_divided() -> None:
    song, tail = Mark("a loud song"), Mark("a short tail")
    (card,), dropped = without_unseen([Card("wren", "bird", (song, tail))])
    assert card.marks == (tail,) and [(one.entity, mark, reason) for one, mark, reason in dropped] == [
        ("wren", song, "sound")
    ]


@pytest.mark.parametrize(("which", "count"), [("A", 260), ("B", 358)])
def test_precision_and_recall_on_published_descriptors(shared_data: Path, which: str, count: int) -> None:
    rows = [line.split() for line in LABELS.read_text(encoding="utf-8").splitlines()]
    labels = {key: label == "1" for name, key, label in rows if name == which}
    pairs = []
    for file in sorted((shared_data / "fg_knowledge" / "descriptors").glob("*.json")):
        for entity, marks in json.loads(file.read_text(encoding="utf-8")).items():
            for mark in marks:
                key = hashlib.sha1(f"{entity}|{mark}".encode(), usedforsecurity=False).hexdigest()[:10]
                if key in labels:
                    pairs.append((unseen(mark) is not None, labels[key]))
    right = sum(found and wanted for found, wanted in pairs)
    assert len(pairs) == count
    assert right / sum(found for found, _ in pairs) >= 0.95 and right / sum(wanted for _, wanted in pairs) >= 0.95

"""KARL's reward with its file: entities known and unknown. Its numbers are in test_published.py."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from mllm.boxes import Box, Frame
from mllm.errors import FieldmarkError
from mllm.models import families
from mllm.prompting import answers
from mllm.records import Completion, Sample
from mllm.rewards.mastery import Reward

SAMPLE = Sample("a", "ground", "a.png", Frame(96, 96), "bird", "wren", "Find it.", (Box(0, 0, 0.5, 1),))
HIT = "<answer>(0,0),(50,100)</answer>"
MISS = "<answer>(50,0),(100,100)</answer>"


def read(text: str) -> Completion:
    return Completion("a", text, answers.parse(text, families.load("pocket"), Frame(100, 100)))


@pytest.fixture
def file(tmp_path: Path) -> str:
    """KARL's own kind of file."""
    rows = {"wren": {"knowledge_category": "completely correct"}, "kite": {"knowledge_category": "mostly incorrect"}}
    path = tmp_path / "results-visual_knowledge.json"
    path.write_text(json.dumps(rows))
    return str(path)


def test_an_entity_gets_its_level(file: str) -> None:
    reward = pickle.loads(pickle.dumps(Reward(file=file)))
    kite = replace(SAMPLE, entity="Kite")
    values = [score.value for score in reward([SAMPLE, SAMPLE, kite, kite], [read(t) for t in (HIT, MISS) * 2])]
    assert values == [0.65, -0.6, 1.0, -0.2]


def test_an_unknown_entity_is_an_error_before_training_unless_configured(file: str) -> None:
    owl = replace(SAMPLE, entity="owl")
    with pytest.raises(FieldmarkError, match="1 entities of the data are not in it: owl.*eval/mastery.py"):
        Reward(file=file).check([SAMPLE, owl])
    with pytest.raises(FieldmarkError, match="no level for 'owl' among its 2 entities"):
        Reward(file=file)([owl], [read(HIT)])
    lenient = Reward(file=file, unknown="completely incorrect")
    lenient.check([SAMPLE, owl])
    assert lenient([owl], [read(MISS)])[0].value == 0.0
    Reward(file=file).check([replace(owl, boxes=())])  # never scored


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "needs `file`"),
        ({"file": "nowhere.json"}, "nowhere.json: no such mastery file"),
        ({"unknown": "some"}, "unknown must be one of completely correct"),
        ({"unknown": "mostly correct", "tau": 1.0}, "tau must be"),
        ({"unknown": "mostly correct", "plus": [1.0]}, "plus needs 5 numbers, got 1"),
        ({"unknown": "mostly correct", "minus": [-2.0, 0, 0, 0, 0]}, "minus from -1 to 1"),
    ],
)
def test_settings_without_meaning_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(FieldmarkError, match=message):
        Reward(**wrong)

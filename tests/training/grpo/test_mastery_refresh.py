"""Mastery estimated again during training, from levels with counts and without."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import Trainer

from mllm.config import MasteryWeight, Refresh
from mllm.evaluation import knowledge_probe
from mllm.knowledge.mastery import LEVELS, Entry, load_mastery
from mllm.training import validation
from mllm.training.grpo.mastery_refresh import MasteryRefresh
from mllm.training.grpo.weighted_advantages import AdvantageWeights


@pytest.mark.parametrize("counted", [False, True], ids=["KARL's levels without counts", "counts"])
def test_entities_that_are_not_asked_about_keep_their_levels(
    counted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    level = {"right": 1, "asked": 4} if counted else {"knowledge_category": LEVELS[3]}
    rows = {"wren": level, "owl": level}
    file = tmp_path / "levels.json"
    file.write_text(json.dumps({"schema": "fieldmark.mastery/1", "entities": rows} if counted else rows))
    weights = AdvantageWeights(MasteryWeight(file=file), load_mastery(file))
    made = object.__new__(MasteryRefresh)
    trainer: Any = SimpleNamespace()
    checkpoint: Any = SimpleNamespace()
    made.trainer, made.checkpoint, made.weights = trainer, checkpoint, weights
    made.settings, made.folder, made.questions = Refresh(every=2), tmp_path / "out" / "mastery", []
    monkeypatch.setattr(validation, "answers", lambda *_, **__: {})
    monkeypatch.setattr(knowledge_probe, "grade_choices", lambda *_: [("owl", 1.0), ("owl", 1.0)])
    logged: list[dict[str, float]] = []
    monkeypatch.setattr(Trainer, "log", lambda _, values: logged.append(values))
    state = SimpleNamespace(global_step=2, max_steps=9, is_world_process_zero=True)
    made.on_step_end(None, state, SimpleNamespace(should_log=False))
    assert weights.table.level("owl") == LEVELS[0] and logged[0]["mastery/right"] == 1
    assert weights.table["wren"] == (Entry(LEVELS[3], 1, 4) if counted else Entry(LEVELS[3]))
    weights.table = load_mastery(file)
    made.on_train_begin(None, state, None)  # resumed
    assert weights.table.level("owl") == LEVELS[0] and weights.table.level("wren") == LEVELS[3]

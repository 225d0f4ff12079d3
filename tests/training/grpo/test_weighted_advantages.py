"""The hook into TRL: what a real GRPO step makes of weights, and mastery estimated anew while training."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import yaml

from mllm import config
from mllm.errors import FieldmarkError
from mllm.knowledge.mastery import LEVELS, MasteryTable, load_mastery
from mllm.models import checkpoint as models
from mllm.records import load_samples, read_jsonl
from mllm.training.grpo import mastery_refresh
from mllm.training.grpo.weighted_advantages import Weighing, WeightedAdvantages
from mllm.training.trl_adapter import Row
from tests.support.scenes import make_data

WEIGHTS = [0.5, 1.0, 1.0, 1.0, 2.0]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_data(tmp_path_factory.mktemp("weighted"), train=4, validation=1)


class Drawn:
    """In TRL's place: a batch of two prompts, two answers each, as TRL would have normalised it."""

    num_generations = 2

    def __init__(self) -> None:
        from types import SimpleNamespace

        self.model = SimpleNamespace(training=True)
        self.accelerator = SimpleNamespace(gather=lambda x: x, process_index=0, device=torch.device("cpu"))
        self._metrics = {"train": {"advantage/weight": []}}
        self.texts: list[str] = []

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list) -> str:
        return "rewards"

    def _generate_and_score_completions(self, inputs) -> dict[str, torch.Tensor]:
        said = [[{"role": "assistant", "content": text}] for text in self.texts]
        assert self._calculate_rewards(inputs, inputs, said, [[1]] * len(said)) == "rewards"
        return {"advantages": torch.tensor([1.0, -1.0, 0.5, -0.5])}


class Weighted(WeightedAdvantages, Drawn):
    pass


def inputs(data: tuple[Path, Path]) -> list[dict]:
    first, second = load_samples(data[0])[:2]
    return [{"sample": sample} for sample in (first, first, second, second)]


def gold(rows: list[dict], which: list[bool]) -> list[str]:
    """Right answers, or none, to each row."""
    from mllm.boxes import Frame
    from mllm.models import families
    from mllm.prompting import prompts

    pocket = families.load("pocket")
    return [
        prompts.target(row["sample"], "direct", pocket, Frame(100, 100)) if right else "?"
        for row, right in zip(rows, which, strict=True)
    ]


def test_difficulty_and_mastery_multiply_what_was_normalised(data, pocket_folder, tmp_path) -> None:
    rows = inputs(data)
    table = {rows[0]["sample"].entity: 1.0, rows[2]["sample"].entity: 0.0}
    for sample in load_samples(data[0]):
        table.setdefault(sample.entity, 0.5)
    file = MasteryTable.counted(table.items()).save(tmp_path / "m.json")
    settings = config.Advantage(difficulty="univg", mastery=config.MasteryWeight(file=file, weights=tuple(WEIGHTS)))
    checkpoint = models.open_checkpoint(pocket_folder)
    trainer = Weighted()
    trainer.weighing = Weighing.build(settings, checkpoint, load_samples(data[0]))
    trainer.texts = gold(rows, [True, False, False, False])
    found = trainer._generate_and_score_completions(rows)["advantages"]
    # Group 1: mean IoU just below 1/2 (hundredths are rounded), best known: exp(1 - m) * 0.5; group 2: e * 2.
    iou = trainer.weighing.measure(None, [[{"content": trainer.texts[0]}]], [[1]], [rows[0]["sample"]])[0]
    first, second = math.exp(1 - iou / 2) * 0.5, math.e * 2
    assert 0.85 < iou <= 1
    assert found.tolist() == pytest.approx([first, -first, 0.5 * second, -0.5 * second])
    assert trainer._metrics["train"]["advantage/weight"] == [pytest.approx((first + second) / 2)]
    trainer.model.training = False  # evaluation is left alone
    assert trainer._generate_and_score_completions(rows)["advantages"].tolist() == [1.0, -1.0, 0.5, -0.5]


def test_without_weights_nothing_changes(data) -> None:
    trainer = Weighted()
    trainer.texts = ["?"] * 4
    assert trainer._generate_and_score_completions(inputs(data))["advantages"].tolist() == [1.0, -1.0, 0.5, -0.5]


def test_an_unknown_entity_is_an_error_before_training(data, pocket_folder, tmp_path) -> None:
    file = MasteryTable.counted([("wren", 1.0)]).save(tmp_path / "m.json")
    checkpoint, samples = models.open_checkpoint(pocket_folder), load_samples(data[0])
    settings = config.Advantage(mastery=config.MasteryWeight(file=file))
    with pytest.raises(FieldmarkError, match="entities of the training data are not in it.*eval/mastery.py"):
        Weighing.build(settings, checkpoint, samples)
    lenient = config.Advantage(mastery=config.MasteryWeight(file=file, unknown="mostly incorrect"))
    assert Weighing.build(lenient, checkpoint, samples).levels(samples[:1]) == [3]


def test_a_run_weighs_and_asks_anew(data, pocket_folder, tmp_path) -> None:
    """recipes/rl.py with both weights: TRL's own trainer, its log, the refreshed table and the raw answers."""
    from recipes import rl

    names = {thing.entity for sample in load_samples(data[0]) for thing in sample.things}
    file = MasteryTable.counted([(name, 1.0) for name in sorted(names)]).save(tmp_path / "start.json")
    ours = {
        "model": str(pocket_folder),
        "train": str(data[0]),
        "max_tokens_per_sample": 512,
        "dtype": "float32",
        "rewards": {"format": {}, "iou": {}, "recall": {}, "mastery": {"weight": 0, "file": str(file)}},
        "advantage": {
            "difficulty": "univg",
            "mastery": {
                "file": str(file),
                "refresh": {"every": 1, "by": "marks", "per_entity": 1, "max_new_tokens": 3},
            },
        },
    }
    theirs = {
        "output_dir": str(tmp_path / "out"), "max_steps": 2, "per_device_train_batch_size": 4, "num_generations": 2,
        "max_completion_length": 4, "learning_rate": 1e-3, "logging_steps": 1, "save_steps": 2,
        "gradient_checkpointing": False, "bf16": False, "use_cpu": True,
    }  # fmt: skip
    path = tmp_path / "rl.yaml"
    path.write_text(yaml.safe_dump({"fieldmark": ours, **theirs}))
    rl.main(["--config", str(path)])
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    weights = [row["advantage/weight"] for row in log if "advantage/weight" in row]
    assert weights[0] == pytest.approx(torch.e * 0.65, rel=1e-5)  # nothing readable: exp(1); all best known at first
    assert weights[1] == pytest.approx(torch.e * 1.2, rel=0.1)  # random weights: four names fit alike, a guess is 1/4
    assert [row["step"] for row in log if "mastery/right" in row] == [1]
    table = load_mastery(tmp_path / "out" / "mastery" / "step-1.json")
    assert set(table) == names and table.shares()[LEVELS[3]] > 0.5
    from mllm.records import Completion

    raw = list(read_jsonl(tmp_path / "out" / "mastery" / "step-1.outputs.jsonl", Completion))
    assert len(raw) >= len(names)


def test_composites_cannot_be_asked_with_names(data, pocket_folder) -> None:
    rows = [Row(sample, data[0].parent / sample.image) for sample in load_samples(data[0])]
    with pytest.raises(FieldmarkError, match="by: marks"):
        mastery_refresh.questions(rows, config.Refresh(by="choices"), models.open_checkpoint(pocket_folder), 0)

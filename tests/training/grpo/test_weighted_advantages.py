"""Weights on advantages: by hand, why KARL's factors belong after the normalisation, and in a real GRPO step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from mllm import config, rewards
from mllm.boxes import Box, Frame
from mllm.errors import ConfigError, FieldmarkError
from mllm.io.jsonl import read_jsonl
from mllm.knowledge.mastery import LEVELS, MasteryTable, load_mastery
from mllm.models import families
from mllm.models.checkpoint import open_checkpoint
from mllm.prompting import answers
from mllm.records import Completion, Sample, image_path, load_samples
from mllm.training.grpo import mastery_refresh
from mllm.training.grpo.weighted_advantages import AdvantageWeights, entity_weights
from mllm.training.trl_adapter import Row
from tests.support.scenes import make_data
from tests.training.grpo.test_trainer import generated, trainer

SAMPLE = Sample("a", "ground", "a.png", Frame(100, 100), "bird", "wren", "Find it.", (Box(0, 0, 1, 1),))
PLUS = (0.65, 0.85, 1.0, 1.2, 1.4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_data(tmp_path_factory.mktemp("weighted"), train=4, validation=1)


def normalised(rewards_N: torch.Tensor) -> torch.Tensor:
    """GRPO's advantages of one group as TRL computes them: (r - mean) / (std + 1e-4), with the unbiased std."""
    return (rewards_N - rewards_N.mean()) / (rewards_N.std() + 1e-4)


def karl(ious: list[float], level: str) -> torch.Tensor:
    """KARL's rewards, by the reward itself, of four answers with these IoUs with a true box that is the image."""
    family, frame = families.load("qwen2_vl"), Frame(1000, 1000)
    texts = [f"<answer>(0,0),(1000,{round(1000 * u)})</answer>" for u in ious]
    completions = [Completion("a", text, answers.parse(text, family, frame)) for text in texts]
    reward = rewards.load("mastery", unknown=level)
    return torch.tensor([score.value for score in reward([SAMPLE] * len(ious), completions)])


def test_group_standardisation_cancels_karls_factors_where_one_answer_is_right() -> None:
    """One success in four: the same advantages for the best known and the least known entity, as without factors."""
    for level in LEVELS:
        found = normalised(karl([0.9, 0.3, 0.2, 0.1], level)).tolist()
        assert found == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=2e-3)


def test_what_is_left_of_karls_factors() -> None:
    """Two successes: from (.934, .795) at the top levels to a tie at the lowest, where the cap erases the gradation."""
    found = {level: normalised(karl([0.9, 0.8, 0.3, 0.1], level)).tolist() for level in LEVELS}
    assert found[LEVELS[-1]] == pytest.approx([0.866, 0.866, -0.866, -0.866], abs=2e-3)
    for level in LEVELS:
        assert 0.86 < found[level][0] < 0.95 and 0.78 < found[level][1] < 0.87
    all_right = {level: normalised(karl([0.95, 0.9, 0.8, 0.72], level)).tolist() for level in LEVELS}
    assert all_right[LEVELS[-1]] == [0, 0, 0, 0]  # 1.4 * 0.72 is above the cap already: nothing is learned
    for level in LEVELS[:3]:
        assert all_right[level] == pytest.approx([1.05, 0.56, -0.41, -1.19], abs=1e-2)


def test_weights_after_normalisation_are_kept() -> None:
    """The least known entity's advantages are 1.4 / 0.65 times the best known one's, whatever the group did."""
    for ious in ([0.9, 0.3, 0.2, 0.1], [0.9, 0.8, 0.3, 0.1], [0.95, 0.9, 0.8, 0.72]):
        plain_N = normalised(torch.tensor(ious))
        for k, factor in enumerate(PLUS):
            weighted_N = plain_N * entity_weights(plain_N, [k] * 4, PLUS)
            assert torch.allclose(weighted_N, factor * plain_N)
            assert weighted_N.sum().abs() < 1e-5  # still a group's advantages: they sum to 0


def test_negative_weights_apply_below_the_mean_only() -> None:
    given_N = torch.tensor([1.5, -0.5, -0.5, 0.0])
    found = entity_weights(given_N, [0, 0, 4, None], PLUS, negative=(1.4, 1.2, 1.0, 0.85, 0.65))
    assert found.tolist() == pytest.approx([0.65, 1.4, 0.65, 1.0])


def test_settings_without_meaning_are_refused() -> None:
    with pytest.raises(ConfigError, match="weights must be finite and at least 0"):
        entity_weights(torch.zeros(1), [0], (-1.0, 1, 1, 1, 1))
    with pytest.raises(ValueError, match="2 advantages and 1 levels"):
        entity_weights(torch.zeros(2), [0], PLUS)


def test_the_trainer_weighs_what_was_normalised(data, pocket_folder: Path, tmp_path: Path) -> None:
    """The same batch with and without the hook: each group's advantages times its entity's weight."""
    samples = load_samples(data[0])
    rows = [Row(sample, image_path(data[0], sample)) for sample in samples]
    shares = {sample.entity: 1.0 if k == 0 else 0.5 for k, sample in enumerate(samples)}
    file = MasteryTable.counted(shares.items()).save(tmp_path / "m.json")
    weights = AdvantageWeights.build(config.MasteryWeight(file=file, weights=(0.5, 1, 1.5, 2, 3)), samples)
    plain = trainer(rows, pocket_folder, tmp_path / "plain")
    weighted = trainer(rows, pocket_folder, tmp_path / "weighted", reweight=weights)
    expected, found = generated(plain)["advantages"], generated(weighted)["advantages"]
    ids = [row["sample"] for row in next(iter(weighted.get_train_dataloader()))]
    factors = torch.tensor([(0.5, 1, 1.5, 2, 3)[level or 0] for level in weights.levels(ids)])
    assert set(factors.tolist()) > {0.5} and expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected * factors)
    assert weighted._metrics["train"]["advantage/weight"] == [pytest.approx(factors.mean().item())]
    assert "advantage/weight" not in plain._metrics["train"]


def test_an_unknown_entity_is_an_error_before_training(data, tmp_path: Path) -> None:
    file = MasteryTable.counted([("wren", 1.0)]).save(tmp_path / "m.json")
    samples = load_samples(data[0])
    with pytest.raises(FieldmarkError, match="entities of the data are not in it.*eval/mastery.py"):
        AdvantageWeights.build(config.MasteryWeight(file=file), samples)
    lenient = config.MasteryWeight(file=file, unknown="mostly incorrect")
    assert AdvantageWeights.build(lenient, samples).levels(samples[:1]) == [3]


@pytest.mark.ci
def test_a_run_weighs_and_estimates_again(data, pocket_folder: Path, tmp_path: Path) -> None:
    """recipes/rl.py with weights by mastery: TRL's own trainer, its log, the new table and the raw answers."""
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
    assert weights[0] == pytest.approx(0.65)  # all best known at first
    assert weights[1] == pytest.approx(1.2, rel=0.1)  # random weights: four names fit alike, a guess is 1/4
    assert [row["step"] for row in log if "mastery/right" in row] == [1]
    table = load_mastery(tmp_path / "out" / "mastery" / "step-1.json")
    assert set(table) == names and table.shares()[LEVELS[3]] > 0.5
    raw = list(read_jsonl(tmp_path / "out" / "mastery" / "step-1.outputs.jsonl", Completion))
    assert len(raw) >= len(names)


def test_composites_cannot_be_asked_with_names(data, pocket_folder: Path) -> None:
    rows = [Row(sample, data[0].parent / sample.image) for sample in load_samples(data[0])]
    with pytest.raises(FieldmarkError, match="by: marks"):
        mastery_refresh.questions(rows, config.Refresh(by="choices"), open_checkpoint(pocket_folder), 0)

"""Groups without advantage: replaced by fresh prompts' in bounded rounds, every tensor still with its own row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mllm.config import Settings
from mllm.errors import ConfigError
from mllm.training.dataset import Row
from mllm.training.grpo import dynamic_sampling
from mllm.training.grpo.dynamic_sampling import DynamicSampling
from tests.support.scenes import make_scene
from tests.training.grpo.test_trainer import agree, drift, trainer


def batch(
    prompts: list[list[int]], answers: list[list[int]], advantages: list[float], run: list[int]
) -> dict[str, Any]:
    """Two rows a group; zeros are padding."""
    ids, answers_NT = torch.tensor(prompts), torch.tensor(answers)
    return {
        "prompt_ids": ids,
        "prompt_mask": ids.ne(0).long(),
        "completion_ids": answers_NT,
        "completion_mask": answers_NT.ne(0).long(),
        "mm_token_type_ids": torch.cat([ids.ne(0), torch.zeros_like(answers_NT)], 1).long(),
        "advantages": torch.tensor(advantages),
        "num_items_in_batch": answers_NT.ne(0).sum(),
        "run": run,
        "num_images": [1] * len(run),
        "image_grid_thw": torch.tensor([[1, 2, 2 + int(ids[row, -1])] for row in range(len(run))]),
        "pixel_values": torch.cat([torch.full((2 * (2 + int(row[-1])), 3), float(row[-1])) for row in ids]),
    }


def test_a_group_is_replaced_by_hand() -> None:
    """The second of two groups gives way to the first of two; what was narrower is padded where padding belongs."""
    old = batch([[1], [1], [2], [2]], [[5, 6], [7, 0], [8, 8], [8, 8]], [1, -1, 0, 0], [0, 0, 1, 1])
    new = batch([[3, 3], [3, 3], [0, 4], [0, 4]], [[9], [6], [5], [5]], [2, -2, 0, 0], [0, 0, 1, 1])
    found = dynamic_sampling.replaced(old, new, [(1, 0)], size=2, pad=0)
    assert found["prompt_ids"].tolist() == [[0, 1], [0, 1], [3, 3], [3, 3]]
    assert found["completion_ids"].tolist() == [[5, 6], [7, 0], [9, 0], [6, 0]]
    assert found["mm_token_type_ids"].tolist() == [[0, 1, 0, 0]] * 2 + [[1, 1, 0, 0]] * 2
    assert found["advantages"].tolist() == [1, -1, 2, -2] and found["run"] == [0, 0, 1, 1]
    assert found["image_grid_thw"][:, 2].tolist() == [3, 3, 5, 5]
    assert found["pixel_values"][:, 0].tolist() == [1.0] * 12 + [3.0] * 20


@pytest.fixture(scope="module")
def resampled(
    pocket_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, list[dict[str, Any]], dict[str, Any]]:
    """A trainer half of whose prompts never have an advantage, the rows and the batch of one draw."""
    folder = tmp_path_factory.mktemp("resampled")
    scenes = [make_scene(folder, k, "train", across=1 + k % 2, down=1) for k in range(4)]
    rows = [Row(scene, folder / scene.image) for scene in scenes]
    made = trainer(rows, pocket_folder, folder, dynamic_sampling=DynamicSampling("resample"), loss_type="dapo")
    made.model.train()
    inputs = next(iter(made.get_train_dataloader()))
    torch.manual_seed(5)
    return made, inputs, made._generate_and_score_completions(inputs)


def test_rounds_leave_fewer_groups_without_advantage(resampled: tuple[Any, list[dict[str, Any]], Any]) -> None:
    made, inputs, found = resampled
    metrics = {name: values[-1] for name, values in made._metrics["train"].items() if "dynamic" in name}
    assert metrics["dynamic_sampling/resampled"] + metrics["dynamic_sampling/dropped"] == pytest.approx(0.5)
    assert metrics["dynamic_sampling/resampled"] >= 0.25 and 1 <= metrics["dynamic_sampling/rounds"] <= 3
    live = found["advantages"].reshape(4, 4).ne(0).any(1).tolist()
    assert [int(row["sample"].id[-1]) % 2 == 0 for row in inputs[::4]] == live, "the rows go with the batch"
    assert found["num_items_in_batch"] == found["completion_mask"].sum()


def test_the_batch_is_scored_as_trl_would(resampled: tuple[Any, list[dict[str, Any]], Any]) -> None:
    made, _, found = resampled
    drift(made.model)
    agree(made, found)


def test_what_is_drawn_follows_from_seed_and_step(resampled: tuple[Any, list[dict[str, Any]], Any]) -> None:
    made, _, _ = resampled

    def ids(number: int) -> list[str]:
        return [row["sample"].id for row in dynamic_sampling._random_rows(made, 8, number)]

    assert ids(0) == ids(0) != ids(1)


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"per_device_train_batch_size": 3, "steps_per_generation": 2}, "is not a multiple of"),
        ({"scale_rewards": "batch"}, "scale_rewards: group"),
    ],
)
def test_settings_that_cannot_resample_are_refused(
    how: dict[str, Any], named: str, resampled: tuple[Any, Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _, _ = resampled
    for name, value in how.items():
        monkeypatch.setattr(made.args, name, value)
    with pytest.raises(ConfigError, match=named):
        DynamicSampling("resample").check(made.args, made.train_dataset)


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "sapo", "luspo"])
def test_drop_is_refused_where_it_would_change_nothing(loss: str) -> None:
    with pytest.raises(ConfigError, match=f"loss_type: {loss} is divided by the number of answers"):
        DynamicSampling("drop").check(SimpleNamespace(loss_type=loss), [])
    DynamicSampling("drop").check(SimpleNamespace(loss_type="dapo"), [])


@pytest.mark.parametrize(("first", "dropped"), [([-1.0, 1.0], False), ([0.0, 0.0], True)])
def test_a_group_on_two_processes_is_judged_whole(first: list[float], dropped: bool) -> None:
    """Rewards 0, 1, .5, .5 with two rows a process: the second process's own half has no advantage."""
    live = iter([torch.tensor([int(one != 0) for one in [*first, 0.0, 0.0]])])
    accelerator = SimpleNamespace(process_index=1, device=torch.device("cpu"), gather=lambda own: next(live, own))
    made = SimpleNamespace(num_generations=4, accelerator=accelerator, _metrics={"train": defaultdict(list)})
    output = {"advantages": torch.zeros(2), "completion_mask": torch.ones(2, 3)}
    found = DynamicSampling("drop").apply(made, [], output, lambda rows: {})
    assert found["completion_mask"].eq(0).all(1).tolist() == [dropped] * 2


def test_weights_and_bags_are_refused() -> None:
    with pytest.raises(ValueError, match="dynamic_sampling: drop"):
        Settings.model_validate(
            {
                "model": "pocket",
                "train": "x.jsonl",
                "dynamic_sampling": "resample",
                "advantage": {"mastery": {"file": "mastery.json"}},
            }
        )


@pytest.mark.ci
@pytest.mark.timeout(1800)
def test_two_processes_stay_in_step(pocket_folder: Path, tmp_path: Path, root: Path) -> None:
    """One process has a group to replace, the other none: both draw, only one replaces, and both take the step."""
    config = root / "accelerate_configs" / "cpu_two_processes.yaml"
    program = [str(root / "tests" / "training" / "resampling.py"), str(pocket_folder), str(tmp_path)]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config), *program]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=env, text=True, capture_output=True, timeout=1500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [one["before"] for one in ranks] == [[True], [False]], "one process alone has to replace"
    assert [one["after"] for one in ranks] == [[True], [True]]
    assert ranks[0]["items"] == ranks[1]["items"] == sum(one["tokens"] for one in ranks)
    assert ranks[0]["metrics"] == ranks[1]["metrics"]
    assert ranks[0]["metrics"]["dynamic_sampling/resampled"] == 0.5
    assert ranks[0]["weights"] == ranks[1]["weights"] != ranks[0]["start"]

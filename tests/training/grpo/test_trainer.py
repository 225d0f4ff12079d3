"""The trainer that shares prefixes: TRL's rollouts, TRL's losses and gradients, on the same batches."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mllm.models import checkpoint
from mllm.training import arguments, trl_adapter
from mllm.training.dataset import Row
from mllm.training.engine import shared_prefix
from mllm.training.grpo.dynamic_sampling import DynamicSampling
from mllm.training.grpo.trainer import PrefixGRPOTrainer
from tests.support.scenes import make_scene

from trl import GRPOConfig, GRPOTrainer  # isort: skip

ENDS = list(range(40, 120))  # a random model rarely writes its end token: these end a completion as well


def reward(completion_ids: list[list[int]], sample: list[Any], **_: Any) -> list[float]:
    """Something that differs within a group, except in every second prompt's."""
    return [0.0 if int(s.id[-1]) % 2 else float(sum(ids) % 7) for ids, s in zip(completion_ids, sample, strict=True)]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    folder = tmp_path_factory.mktemp("scenes")
    scenes = [make_scene(folder, k, "train", across=1 + k % 2, down=1) for k in range(4)]
    return [Row(scene, folder / scene.image) for scene in scenes]


def trainer(
    rows: list[Row],
    pocket_folder: Path,
    folder: Path,
    kind: Any = PrefixGRPOTrainer,
    freeze: Any = ("vision",),
    **how: Any,
) -> Any:
    loaded = checkpoint.load(str(pocket_folder), freeze=[*freeze, *(["projector"] if freeze else [])])
    hooks = {
        name: how.pop(name) for name in ("engine", "dynamic_sampling", "sampler", "reweight", "credit") if name in how
    }
    settings = {
        "output_dir": str(folder), "per_device_train_batch_size": 8, "num_generations": 4, "steps_per_generation": 2,
        "gradient_accumulation_steps": 1, "max_completion_length": 10, "num_iterations": 1, "temperature": 0.9,
        "bf16": False, "gradient_checkpointing": False, "report_to": "none", "seed": 0,
        "beta": 0.0, "shuffle_dataset": False, "disable_tqdm": True, "remove_unused_columns": False,
    }  # fmt: skip
    settings |= arguments.devices()
    made = kind(
        model=loaded.model,
        reward_funcs=reward,
        args=GRPOConfig(**(settings | how)),
        train_dataset=trl_adapter.dataset(rows, loaded.convention, answers=False),
        processing_class=loaded.processor,
        **hooks,
    )
    made.eos_token_ids = [*made.eos_token_ids, *ENDS]
    made.generation_config.eos_token_id = made.eos_token_ids
    made.current_gradient_accumulation_steps = made.args.gradient_accumulation_steps
    return made


def generated(made: Any, seed: int = 5) -> dict[str, Any]:
    """One generation batch, from the trainer's own data loader."""
    made.model.train()
    inputs = next(iter(made.get_train_dataloader()))
    torch.manual_seed(seed)
    return made._generate_and_score_completions(inputs)


def drift(model: Any) -> None:
    """Move the policy away from the one that sampled."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)


def loss_and_gradients(made: Any, batch: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    made.model.zero_grad()
    loss = made._compute_loss(made.model, batch)
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in made.model.named_parameters() if p.grad is not None}


def agree(made: Any, batch: dict[str, Any]) -> None:
    """Same loss to 1e-5, same gradients to 1e-4, with and without sharing, on the same rows; same metrics too."""
    without = {key: value for key, value in batch.items() if key not in ("run", "features")}
    calls = _count_calls(made)
    made._metrics["train"].clear()
    (theirs, stock), metrics = loss_and_gradients(made, without), _metrics(made)
    (ours, shared), also = loss_and_gradients(made, batch), _metrics(made)
    assert calls["tokens"][1] < 0.8 * calls["tokens"][0], "the prefix was not shared"
    assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    assert stock.keys() == shared.keys()
    for name, gradient in stock.items():
        assert (shared[name] - gradient).abs().max() <= 1e-4 * gradient.abs().max().clamp(min=1e-6), name
    for name in metrics:  # the mean entropy is taken over the completions that were read
        assert also[name] == pytest.approx(metrics[name], rel=1e-4, abs=0.1 if name == "entropy" else 1e-5), name


def _metrics(made: Any) -> dict[str, float]:
    found = {name: values[-1] for name, values in made._metrics["train"].items() if values}
    made._metrics["train"].clear()
    return found


def _count_calls(made: Any) -> dict[str, list[int]]:
    """Tokens that go through the model in each forward from now on."""
    seen: dict[str, list[int]] = {"tokens": []}
    core = shared_prefix.multimodal_core(made.model)
    layer = core.language_model.layers[0]  # pyright: ignore[reportOptionalMemberAccess]
    layer._forward_pre_hooks.clear()
    layer.register_forward_pre_hook(lambda module, args: seen["tokens"].append(args[0].shape[0] * args[0].shape[1]))
    return seen


def test_rollouts_are_trls_and_images_are_seen_once(rows: list[Row], pocket_folder: Path, tmp_path: Path) -> None:
    ours = trainer(rows, pocket_folder, tmp_path / "ours", beta=0.1)
    stock = trainer(rows, pocket_folder, tmp_path / "stock", kind=GRPOTrainer, beta=0.1)
    seen: list[int] = []
    core = shared_prefix.multimodal_core(ours.model)
    core.visual.register_forward_pre_hook(lambda module, args: seen.append(1))  # pyright: ignore
    found, expected = generated(ours), generated(stock)
    assert len(seen) == 1, "rollout, old and reference pass look at one encoding of the images"
    assert found["run"] == [row // 4 for row in range(16)]
    for name in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages", "pixel_values"):
        torch.testing.assert_close(found[name], expected[name])
    for name in ("old_per_token_logps", "ref_per_token_logps"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5)
    lengths = found["completion_mask"].sum(1)
    assert lengths.min() < lengths.max(), "completions of different lengths"
    assert (found["advantages"].view(4, 4) == 0).all(1).tolist() == [False, True, False, True]


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_prompts_that_teach_nothing_are_counted_however_rewards_are_scaled(
    scale: str, rows: list[Row], pocket_folder: Path, tmp_path: Path
) -> None:
    made = trainer(rows, pocket_folder, tmp_path, scale_rewards=scale)
    flat = (generated(made)["advantages"].view(4, 4) == 0).all(1)
    assert flat.tolist() == [False, True, False, True]
    assert _metrics(made)["frac_reward_zero_std"] == 0.5


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_equal_rewards_give_no_advantage(scale: str, rows: list[Row], pocket_folder: Path, tmp_path: Path) -> None:
    """A float32 mean of 8 times 1.7342 is not 1.7342: TRL's advantages are up to 5e-3."""
    made = trainer(rows, pocket_folder, tmp_path, scale_rewards=scale, num_generations=8)
    values = iter([1.7342] * 8 + [0.1] * 7 + [0.4])
    made.reward_funcs[0] = lambda completion_ids, **_: [next(values) for _ in completion_ids]
    advantages = generated(made)["advantages"].view(2, 8)
    assert advantages[0].eq(0).all() and advantages[1].ne(0).all()
    assert _metrics(made)["frac_reward_zero_std"] == 0.5


LOSSES = [
    {"loss_type": "grpo"},
    {"loss_type": "dr_grpo"},
    {"loss_type": "dapo", "beta": 0.1},
    {"loss_type": "grpo", "importance_sampling_level": "sequence", "beta": 0.05},
    pytest.param({"loss_type": "bnpo"}, marks=pytest.mark.ci),
    pytest.param({"loss_type": "cispo", "epsilon_high": 2.0}, marks=pytest.mark.ci),
    pytest.param({"loss_type": "dapo", "entropy_coef": 0.01, "_entropy_bonus_enabled": True}, marks=pytest.mark.ci),
    pytest.param({"loss_type": "dapo", "top_entropy_quantile": 0.5}, marks=pytest.mark.ci),
]


@pytest.fixture(scope="module")
def drifted(rows: list[Row], pocket_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    made = trainer(rows, pocket_folder, tmp_path_factory.mktemp("drifted"), beta=0.1)
    batch = generated(made)
    drift(made.model)
    return made, batch


@pytest.mark.parametrize("how", LOSSES, ids=lambda how: "-".join(str(value) for value in how.values()))
def test_losses_and_gradients_are_trls(
    how: dict[str, Any], drifted: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, batch = drifted
    for name, value in ({"beta": 0.0} | how).items():
        assert hasattr(made, name)
        monkeypatch.setattr(made, name, value)
    agree(made, batch)


@pytest.mark.ci
def test_a_trained_vision_tower_gets_its_gradients(rows: list[Row], pocket_folder: Path, tmp_path: Path) -> None:
    made = trainer(rows, pocket_folder, tmp_path, freeze=())
    batch = generated(made)
    assert "features" not in batch
    drift(made.model)
    agree(made, batch)


def test_groups_without_advantage_are_not_read(drifted: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made, batch = drifted
    monkeypatch.setattr(made, "beta", 0.0)
    calls = _count_calls(made)
    loss_and_gradients(made, copy.copy(batch) | {"advantages": torch.ones_like(batch["advantages"])})
    loss_and_gradients(made, batch)
    dead = copy.copy(batch) | {"advantages": torch.zeros_like(batch["advantages"])}
    loss, gradient = loss_and_gradients(made, dead)
    whole, half, least = calls["tokens"]
    assert least < half < 0.7 * whole
    assert loss == 0 and gradient and all(one.abs().max() == 0 for one in gradient.values()), "in step, but still"
    monkeypatch.setattr(made, "beta", 0.1)  # now every completion has a part in the loss
    loss_and_gradients(made, dead)
    assert calls["tokens"][-1] == whole


def test_dropped_groups_do_not_count(drifted: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of four groups are without advantage: dapo's loss is divided by the tokens of the other two alone."""
    made, batch = drifted
    for name, value in {"beta": 0.0, "loss_type": "dapo"}.items():
        monkeypatch.setattr(made, name, value)
    fewer = DynamicSampling("drop").apply(made, [], dict(batch), made._draw)
    live = batch["advantages"].view(4, 4).ne(0).any(1).repeat_interleave(4)  # one answer may earn its group's mean
    left, all_tokens = batch["completion_mask"][live].sum(), batch["completion_mask"].sum()
    assert fewer["num_items_in_batch"] == left < all_tokens == batch["num_items_in_batch"]
    assert made._metrics["train"]["dynamic_sampling/dropped"][-1] == 0.5
    whole, _ = loss_and_gradients(made, batch)
    part, _ = loss_and_gradients(made, fewer)
    assert part == pytest.approx(whole * (all_tokens / left).item(), rel=1e-4)
    agree(made, fewer)


def test_micro_batches_keep_neighbours_together(
    drifted: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, rows: list[Row]
) -> None:
    made, batch = drifted
    monkeypatch.setattr(made, "_generate_and_score_completions", lambda inputs: dict(batch))
    monkeypatch.setattr(made, "beta", 0.0)
    parts = []
    for step in range(2):
        made._step = step
        parts.append(made._prepare_inputs([]))
    assert [part["run"] for part in parts] == [[0] * 4 + [1] * 4, [2] * 4 + [3] * 4]
    for part in parts:
        agree(made, part)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("loss", "how"),
    [
        pytest.param("grpo", "cpu_two_processes", marks=pytest.mark.slow),
        pytest.param("dapo", "cpu_two_processes", marks=pytest.mark.ci),
        pytest.param("dapo", "cpu_zero2", marks=pytest.mark.slow),
    ],
)
def test_two_processes_take_the_step_that_trl_takes(
    loss: str, how: str, pocket_folder: Path, tmp_path: Path, root: Path
) -> None:
    """One process has no advantage in one of its micro-batches, and one group lies on both: no process waits."""
    config = root / "accelerate_configs" / f"{how}.yaml"
    program = [str(root / "tests" / "training" / "two_processes.py"), str(pocket_folder), str(tmp_path), loss]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config), *program]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=env, text=True, capture_output=True, timeout=1500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    ours, stock = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("prefix", "stock"))
    assert ours["how"] == stock["how"] == ("DEEPSPEED" if how == "cpu_zero2" else "MULTI_CPU")
    assert ours["world"] == stock["world"] == 2 and stock["grad_norm"] > 1e-3
    assert ours["grad_norm"] == pytest.approx(stock["grad_norm"], rel=1e-4)
    assert ours["loss"] == pytest.approx(stock["loss"], rel=1e-5, abs=1e-5)
    assert ours["reward"] == stock["reward"] and ours["moved"] == pytest.approx(stock["moved"], rel=1e-4)


@pytest.mark.parametrize(
    ("how", "reason"),
    [({"engine": "stock"}, "engine: stock"), ({"cache_implementation": "static"}, "cannot share a prefill")],
    ids=["asked for", "static cache"],
)
def test_what_cannot_share_is_trls_own_and_says_so_once(
    how: dict[str, Any], reason: str, rows: list[Row], pocket_folder: Path, tmp_path: Path, caplog: Any
) -> None:
    caplog.set_level("INFO", logger="mllm")
    made = trainer(rows, pocket_folder, tmp_path, **how)
    info = [record.getMessage() for record in caplog.records if "engine" in record.getMessage()]
    assert not made.shares_prefix and len(info) == 1 and reason in info[0]


def test_the_settings_name_the_engine() -> None:
    settings, _ = arguments.read(["--engine", "stock"], Path("recipes/rl.yaml"), GRPOConfig)
    assert settings.engine == "stock"

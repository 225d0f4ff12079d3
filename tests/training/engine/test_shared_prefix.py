"""Packed rows give the plain forward's log-probabilities, entropies and gradients, in every family."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from mllm.models import cpu_kernels
from mllm.training.engine import attention, cost_model, logprobs, shared_prefix
from mllm.training.engine.logprobs import Images
from tests.training import tiny

from trl import GRPOTrainer  # isort: skip
from trl.trainer.utils import add_fused_lm_head  # isort: skip

STOCK = inspect.unwrap(GRPOTrainer._get_per_token_logps_and_entropies)
GROUPS = [(5, 1, [4, 7, 1]), (9, 2, [3, 6]), (3, 0, [5, 5, 2])]
TEXT_ONLY = [(5, 0, [4, 7, 1]), (9, 0, [3, 6])]
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "qwen3")


def groups_of(family: str) -> list[tuple[int, int, list[int]]]:
    return TEXT_ONLY if family == "qwen3" else GROUPS


def stock(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """TRL's own function, all rows at once."""
    trainer: Any = SimpleNamespace(accelerator=SimpleNamespace(autocast=nullcontext))
    logps, entropies, _ = STOCK(trainer, model, **batch, compute_entropy=True)
    return logps, entropies  # pyright: ignore[reportReturnType]


def packed(
    model: Any, batch: dict[str, Any], share: int = 9, frozen: bool = False, wanted: list[int] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ours, at most `share` completions in a row."""
    core, images = shared_prefix.multimodal_core(model), Images.read(batch)
    width = batch["logits_to_keep"]
    ids, mask = batch["input_ids"], batch["attention_mask"]
    places = [(images.count(k), tuple(ids[k, :-width].tolist())) for k in range(len(ids))]
    taken = logprobs.read(core, ids, mask, width, shared_prefix.runs(places), batch)
    wanted = wanted if wanted is not None else list(range(len(ids)))
    mine = [[b for b in wanted if taken.prompt_of[b] == number] for number in range(len(taken.prompts))]
    rows = [group[k : k + share] for group in mine for k in range(0, len(group), share)]
    features = None
    if frozen:
        encoded = [
            shared_prefix.encode(core, **_pixels(images, row)) if images.count(row) else [] for row in taken.first
        ]
        features = [encoded[number] for number in taken.prompt_of]
    return logprobs.score(model, taken, rows, features, ids.device, nullcontext)


def _pixels(images: Images, row: int) -> dict[str, Any]:
    found = images.arguments([row])
    return {"pixel_values": found["pixel_values"], "grids": found["image_grid_thw"]}


def gradients(model: Any, logps: torch.Tensor, entropies: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients of a loss in which every token and every entropy has a weight of its own."""
    generator = torch.Generator().manual_seed(3)
    model.zero_grad()
    (logps * torch.randn(logps.shape, generator=generator)).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def agree(model: Any, batch: dict[str, Any], **how: Any) -> None:
    """Same numbers to 1e-5, same gradients to 1e-4 of each parameter's largest."""
    expected, found = stock(model, batch), packed(model, batch, **how)
    for theirs, ours in zip(expected, found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    theirs, ours = gradients(model, *expected), gradients(model, *packed(model, batch, **how))
    assert theirs.keys() == ours.keys() and theirs
    for name, gradient in theirs.items():
        worst = (ours[name] - gradient).abs().max() / gradient.abs().max().clamp(min=1e-6)
        assert worst < 1e-4, f"{name}: off by {worst:.1e}"


def prepared(family: str, **how: Any) -> Any:
    model = tiny.build(family, **how)
    add_fused_lm_head(model, temperature=0.7, outputs=("log_probs", "entropy"))
    return model


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_shared_prefix_changes_nothing(family: str, tied: bool) -> None:
    """With one mask over the row, and with attention cut around the prompt."""
    model = prepared(family, tied=tied)
    batch = tiny.batch(model, groups_of(family))
    agree(model, batch, share=2)
    attention.in_rows(model)
    assert shared_prefix.unsupported(model) is None and attention.cuts(model)
    agree(model, batch)
    agree(model, batch, share=2)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_images_of_a_frozen_tower_are_encoded_once(family: str) -> None:
    model = prepared(family)
    shared_prefix.multimodal_core(model).visual.requires_grad_(False)  # pyright: ignore[reportOptionalMemberAccess]
    agree(model, tiny.batch(model, GROUPS), frozen=True)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_with_adapters_and_gradient_checkpointing(family: str) -> None:
    base = prepared(family, tied=False)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=r".*language_model.*(q_proj|v_proj|up_proj)"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    attention.in_rows(base)
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    agree(model, tiny.batch(base, GROUPS), frozen=True)


def test_with_the_detour_for_cpus() -> None:
    model = prepared("qwen3_vl")
    cpu_kernels.use_fast_kernels(model)
    attention.in_rows(model)
    assert shared_prefix.unsupported(model) is None and attention.cuts(model)
    agree(model, tiny.batch(model, GROUPS))


def test_a_completion_sees_no_other() -> None:
    """Other neighbours, same numbers: a leak between completions of a row would show."""
    model = prepared("qwen3_vl")
    attention.in_rows(model)
    one, two = (tiny.batch(model, [(5, 1, [4, 4, 4])], seed=1) for _ in range(2))
    two["input_ids"][0, -4:] = 7
    with torch.no_grad():
        first, second = packed(model, one)[0], packed(model, two)[0]
    torch.testing.assert_close(first[1:], second[1:], rtol=1e-6, atol=1e-6)
    assert (first[0] - second[0]).abs().max() > 1e-2


def test_completions_may_be_left_out_or_empty() -> None:
    model = prepared("qwen3_vl")
    batch = tiny.batch(model, GROUPS)
    with torch.no_grad():
        expected = stock(model, batch)[0]
        found = packed(model, batch, wanted=[1, 3])[0]
    torch.testing.assert_close(found[[1, 3]], expected[[1, 3]], rtol=1e-5, atol=1e-5)
    assert found[[0, 2, 4, 5, 6, 7]].abs().max() == 0
    batch["attention_mask"][1, -batch["logits_to_keep"] :] = 0  # a truncated completion that TRL masks away
    agree(model, batch)
    attention.in_rows(model)
    agree(model, batch)


def test_eager_attention_and_unknown_models_are_refused() -> None:
    model = prepared("qwen3_vl")
    model.set_attn_implementation("eager")
    assert shared_prefix.unsupported(model) == "attention 'eager' (sdpa is needed)"
    other = prepared("qwen3")
    other.config.model_type = "gemma3"
    assert "model type 'gemma3'" in str(shared_prefix.unsupported(other))
    sliding = prepared("qwen3")
    sliding.config.layer_types = ["full_attention", "sliding_attention"]
    assert shared_prefix.unsupported(sliding) == "layers with sliding_attention"


def test_runs() -> None:
    assert shared_prefix.runs(["a", "a", "b", "a"]) == [0, 0, 1, 2]
    assert shared_prefix.firsts([4, 4, 5, 9, 9]) == [0, 2, 3]
    assert shared_prefix.runs([]) == [] and shared_prefix.firsts([]) == []


def test_layout_by_hand() -> None:
    """Prompt 5 6 7, completions 8 9 and 4: 5 6 | 7 8 | 7, which predicts - - | 8 9 | 4; then prompt 3 2 with 6."""
    prompts, answers = (
        [torch.tensor([5, 6, 7]), torch.tensor([3, 2])],
        [torch.tensor(ids) for ids in ([8, 9], [4], [6])],
    )
    places = [torch.arange(3)[None], torch.arange(2)[None]]
    layout = shared_prefix.pack(prompts, places, answers, [[0, 1], [2]], [0, 0, 1], width=3)
    assert layout.input_ids_1T.tolist() == [[5, 6, 7, 8, 7, 3, 2]]
    assert layout.labels_1T.tolist() == [[-100, -100, 8, 9, 4, -100, 6]]
    assert layout.position_ids.tolist() == [[0, 1, 2, 3, 2, 0, 1]]
    assert layout.place_BC.tolist() == [[2, 3, -1], [4, -1, -1], [6, -1, -1]]
    assert layout.parts == ((2, 2, 1), (1, 1)) and layout.prompt_of_group == (0, 1)
    assert layout.allowed_11TT()[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1, 1],
    ]


QWEN3_VL_8B = cost_model.Costs(per_token=8.2e9, per_pair=2 * 36 * 4096)


@pytest.mark.parametrize(
    ("prompt", "completion", "size"), [(300, 128, 8), (1000, 256, 8), (2500, 256, 8), (2500, 256, 16)]
)
def test_long_prompts_are_shared_by_the_whole_group_on_a_large_model(prompt: int, completion: int, size: int) -> None:
    rows = cost_model.plan(QWEN3_VL_8B, [0] * size, [prompt], [completion] * size)
    assert rows == [list(range(size))]


def test_the_cheaper_route_is_chosen() -> None:
    """Counted by hand in a model in which attention is dear: 8 completions of 50 after 500, and of 600 after 5."""
    dear = cost_model.Costs(per_token=1e6, per_pair=2e3)
    assert cost_model.packed(dear, [(500, [50] * 8)], 0) == 899e6 + 2 * (125_000 + 8 * 50 * 550) * 2e3
    assert cost_model.stock(dear, [500] * 8, [50] * 8, [0] * 8) == 4400e6 + 2 * (8 * 550 * 550 / 2) * 2e3
    assert cost_model.plan(dear, [0] * 8, [500], [50] * 8) == [list(range(8))]
    assert cost_model.packed(dear, [(5, [600] * 8)], 0) > cost_model.stock(dear, [5] * 8, [600] * 8, [0] * 8)
    assert cost_model.plan(dear, [0] * 8, [5], [600] * 8) is None
    assert cost_model.plan(QWEN3_VL_8B, [0, 1], [900, 900], [90, 90]) is None, "nothing is shared"


def test_groups_are_never_mixed() -> None:
    rows = cost_model.plan(QWEN3_VL_8B, [0, 0, 0, 1, 1, 2], [900, 800, 700], [10, 20, 30, 10, 20, 30])
    assert rows is not None and sorted(b for row in rows for b in row) == list(range(6))
    assert all(len({[0, 0, 0, 1, 1, 2][b] for b in row}) == 1 for row in rows)


def test_costs_are_read_off_the_model() -> None:
    """Multiply-adds of the tiny text model, by its weights: every matrix that a token goes through."""
    model = tiny.build("qwen3", tied=False)
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name)
    assert cost_model.of_model(model.config).per_token == matrices
    assert cost_model.of_model(model.config).per_pair == 2 * 2 * 4 * 8  # scores and values, 2 layers, 4 heads of 8

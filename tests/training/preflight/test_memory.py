"""Memory by arithmetic: against numbers worked by hand, and against what torch really holds for the pocket model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from mllm.config import Lora, Settings
from mllm.models import checkpoint
from mllm.training.preflight import memory, parameters
from mllm.training.preflight.hardware import Machine
from mllm.training.preflight.memory import Draw, Load
from mllm.training.preflight.parameters import Anatomy, Sizes

QWEN3_8B = Sizes(
    layers=36, hidden=4096, heads=32, kv_heads=8, head_dim=128, inner=12288, vocabulary=151936, normed=True,
    vision_layers=27, vision_hidden=1152, vision_inner=4304, gated=False, patches=4, patch_values=1536,
)  # fmt: skip
TOTAL = {"vision": 415_891_440, "projector": 160_496_896, "llm": 8_190_735_360}
P = 8_767_123_696
FULL = Anatomy(QWEN3_8B, TOTAL, TOTAL, 0, 0, True, 0)
QLORA = Anatomy(QWEN3_8B, TOTAL, dict.fromkeys(TOTAL, 0), 87_293_952, 7_517_270_016, False, 36_864)
LOAD = Load(
    rows=2, length=2000, scored=1500, visual=392, held=4, width=2, bf16=True, checkpointing=True, eager=False,
    optim="adamw_torch_fused", reference=True, dropout=False, draws=(Draw("rollouts", 4, 500, 2000),),
)  # fmt: skip
ZERO2 = Machine(8, 2, True, False, 80)
ZERO3 = replace(ZERO2, zero=3)
ALONE = Machine(1, 0, False, False, 24)


def test_zero_as_in_its_paper() -> None:
    """16 bytes a parameter: 2 weights, 2 gradients, 12 masters and moments; stages 2 and 3 share them out."""
    bucket = 2 * 500_000_000
    assert memory.weights(FULL, LOAD, ZERO2) == 2 * P
    assert memory.gradients(FULL, LOAD, ZERO2) == 2 * P / 8 + bucket
    assert memory.optimizer(FULL, LOAD, ZERO2) == 12 * P / 8
    assert memory.reference(FULL, LOAD, ZERO2) == 2 * P
    assert memory.update(FULL, ZERO2) == {"gradients in float32": 4 * P / 8}
    assert memory.weights(FULL, LOAD, ZERO3) == 2 * P / 8 + 2 * bucket
    assert memory.reference(FULL, LOAD, ZERO3) == 2 * P / 8
    assert memory.gradients(FULL, LOAD, replace(ZERO2, zero=1)) == 2 * P
    assert memory.optimizer(FULL, LOAD, replace(ZERO2, offload=True)) == 0
    assert memory.optimizer(FULL, replace(LOAD, optim="paged_adamw_8bit"), ZERO2) == P * (4 + 2 + 8 / 256) / 8


def test_data_parallel_holds_gradients_twice() -> None:
    load = replace(LOAD, width=4)
    assert memory.weights(FULL, load, ALONE) == 4 * P
    assert memory.gradients(FULL, load, ALONE) == 4 * P
    assert memory.gradients(FULL, load, replace(ALONE, processes=2)) == 8 * P
    assert memory.optimizer(FULL, load, ALONE) == 8 * P
    assert memory.learning(FULL, load, ALONE)["bfloat16 copies of weights"] == 2 * P


def test_qlora_by_hand() -> None:
    """0.5 bytes and 0.127 bits a weight in NF4; the other weights and the adapters in two bytes."""
    nf4 = 7_517_270_016 * (0.5 + 0.126953125 / 8)
    assert memory.weights(QLORA, LOAD, ALONE) == pytest.approx(nf4 + (P - 7_517_270_016) * 2 + 87_293_952 * 2)
    assert memory.gradients(QLORA, LOAD, ALONE) == 87_293_952 * 2
    assert memory.optimizer(QLORA, replace(LOAD, optim="paged_adamw_8bit"), ALONE) == 87_293_952 * 2 * (1 + 4 / 256)
    assert memory.reference(QLORA, LOAD, ALONE) == 87_293_952 * 2  # the adapter's copy: the base is its own reference


def test_cache_output_layer_and_inputs_by_hand() -> None:
    assert memory.kv_bytes(QWEN3_8B, 1) == 147_456  # 2 x 36 layers x 1,024 features x 2 bytes
    drawn = memory.drawing(FULL, LOAD, LOAD.draws[0], ZERO2)
    assert drawn["KV cache"] == pytest.approx(147_456 * 8000 * 37 / 36)
    assert "gathered weights" not in drawn
    assert memory.drawing(FULL, LOAD, LOAD.draws[0], ZERO3)["gathered weights"] == 2 * P
    tile, hidden, head = 3000 * 32768 * 2, 3000 * 4096 * 4, 151936 * 4096 * 4
    assert memory.output_bytes(FULL, 3000, 2) == tile + hidden + head
    assert memory.output_bytes(QLORA, 9000, 2) == 4096 * 32768 * 2 + 9000 * 4096 * 4
    learning = memory.learning(FULL, LOAD, ZERO2)
    assert learning["layer inputs"] == 36 * 4000 * 4096 * 2
    assert learning["images"] == 4 * 392 * 4 * 1536 * 4
    assert learning["attention mask"] == 2 * 2000 * 2000 * 3


def test_one_layer_by_hand() -> None:
    """Qwen3-VL-8B in two bytes: 2x6h + 6(a+k) + 4h + 8a + 128 + 2a + 8f, h = a = 4096, k = 1024, f = 12288."""
    assert memory.layer_bytes(FULL, 2) == 12 * 4096 + 6 * 5120 + 4 * 4096 + 8 * 4096 + 128 + 2 * 4096 + 8 * 12288
    assert memory.layer_bytes(QLORA, 2, dropout=True) == (8 * 4096 + 4 * 5120 + 8 * 4096 + 128 + 6 * 12288 + 36_864 * 3)


def test_without_checkpointing_every_layer_is_kept() -> None:
    kept = memory.learning(FULL, replace(LOAD, checkpointing=False), ZERO2)
    assert kept["layers"] == 36 * 4000 * memory.layer_bytes(FULL, 2)
    assert sum(kept.values()) > 10 * sum(memory.learning(FULL, LOAD, ZERO2).values()) / 2


def test_the_peak_is_the_worst_moment_and_leaves_room() -> None:
    found = memory.estimate(FULL, LOAD, ZERO2)
    moment, peak = found.peak
    assert moment == "learning"
    assert peak == sum(found.stays.values()) + max(sum(parts.values()) for parts in found.moments.values())
    for gpu in (peak + memory.CONTEXT) / 0.95 / memory.GIB * torch.tensor([0.999, 1.001]).double():
        assert found.fits(replace(ZERO2, gpu_memory=float(gpu))) == (gpu > (peak + memory.CONTEXT) / 0.95 / memory.GIB)


# What torch really holds.


def pocket(pocket_folder: Any, lora: Lora | None, dtype: str = "float32") -> tuple[Any, Anatomy]:
    loaded = checkpoint.load(pocket_folder, checkpoint.LoadOptions(dtype), freeze=("vision", "projector"), lora=lora)
    config = loaded.model.config
    return loaded.model.train(), parameters.dissect(config, loaded.family, Settings(), lora)


def text_pass(model: Any, rows: int = 2, length: int = 64) -> torch.Tensor:
    ids = torch.randint(5, 90, (rows, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0  # padded, as batches are: without a mask other kernels would run
    return model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float().logsumexp(-1).mean()


@pytest.mark.parametrize("lora", [None, Lora(r=4)], ids=["full", "lora"])
def test_weights_gradients_and_states_are_what_torch_allocates(pocket_folder: Any, lora: Lora | None) -> None:
    model, body = pocket(pocket_folder, lora)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    text_pass(model).backward()
    optimizer.step()
    load = replace(LOAD, width=4, bf16=False)
    assert memory.weights(body, load, ALONE) == sum(p.nbytes for p in model.parameters())
    assert memory.gradients(body, load, ALONE) == sum(p.grad.nbytes for p in trained if p.grad is not None)
    states = [value for state in optimizer.state.values() for name, value in state.items() if name != "step"]
    assert memory.optimizer(body, load, ALONE) == sum(value.nbytes for value in states)


@pytest.mark.parametrize("lora", [None, Lora(r=4)], ids=["full", "lora"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_layer_keeps_what_the_formula_says(pocket_folder: Any, lora: Lora | None, dtype: str) -> None:
    """Autograd's saved tensors of five layers less those of one, weights left out: 15 per cent are allowed."""
    model, body = pocket(pocket_folder, lora, dtype)
    if lora is not None:
        model.enable_input_require_grads()
    layers = model.get_base_model().model.language_model.layers if lora else model.model.language_model.layers
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def kept() -> int:
        storages: dict[int, Any] = {}

        def remember(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                storages[storage.data_ptr()] = storage  # held, so that no address is used again
            return tensor

        trained_so = torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16")  # as with `bf16: true`
        with trained_so, torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
            text_pass(model)
        return sum(storage.nbytes() for storage in storages.values())

    whole = kept()
    taken = list(layers[1:])
    del layers[1:]
    one = kept()
    per_token = (whole - one) / len(taken) / (2 * 64)
    assert memory.layer_bytes(body, 4 if dtype == "float32" else 2) == pytest.approx(per_token, rel=0.15)

"""Memory by arithmetic: against numbers calculated by hand, and against what torch holds for the pocket model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from mllm.config import Lora, Settings
from mllm.models import checkpoint
from mllm.training.preflight import memory, parameters
from mllm.training.preflight.parameters import Dimensions, ParameterCounts
from mllm.training.preflight.run_spec import GenerationBatch, Hardware, RunSpec, TokenLengths

QWEN3_8B = Dimensions(
    layers=36, hidden=4096, heads=32, kv_heads=8, head_dim=128, inner=12288, vocabulary=151936, normed=True,
    vision_layers=27, vision_hidden=1152, vision_inner=4304, gated=False, patches=4, patch_values=1536,
)  # fmt: skip
TOTAL = {"vision": 415_891_440, "projector": 160_496_896, "llm": 8_190_735_360}
P = 8_767_123_696
FULL = ParameterCounts(QWEN3_8B, TOTAL, TOTAL, 0, 0, True, 0)
QLORA = ParameterCounts(QWEN3_8B, TOTAL, dict.fromkeys(TOTAL, 0), 87_293_952, 7_517_270_016, False, 36_864)
ZERO2 = Hardware(8, 2, True, False, 80)
ZERO3 = replace(ZERO2, zero=3)
ALONE = Hardware(1, 0, False, False, 24)
RUN = RunSpec(
    settings=Settings(), lora=None, hardware=ZERO2, lengths=TokenLengths(392, 500, 1500, 2000, True), rl=True,
    per_device=2, accumulation=1, steps_per_generation=2, max_completion_length=1500, beta=0.02,
    optim="adamw_torch_fused", checkpointing=True, bf16=True, vllm_share=0.0,
)  # fmt: skip
FLOAT32 = RUN.with_settings(dtype="float32")


def on(hardware: Hardware, spec: RunSpec = RUN, **changes: Any) -> RunSpec:
    return replace(spec, hardware=hardware, **changes)


def test_zero_as_in_its_paper() -> None:
    """16 bytes per parameter: 2 weights, 2 gradients, 12 master weights and moments; stages 2 and 3 shard them."""
    bucket = 2 * 500_000_000
    assert memory.weights(FULL, RUN) == 2 * P
    assert memory.gradients(FULL, RUN) == 2 * P / 8 + bucket
    assert memory.optimizer(FULL, RUN) == 12 * P / 8
    assert memory.reference(FULL, RUN) == 2 * P
    assert memory.optimizer_step(FULL, ZERO2) == {"gradients in float32": 4 * P / 8}
    assert memory.weights(FULL, on(ZERO3)) == 2 * P / 8 + 2 * bucket
    assert memory.reference(FULL, on(ZERO3)) == 2 * P / 8
    assert memory.gradients(FULL, on(replace(ZERO2, zero=1))) == 2 * P
    assert memory.optimizer(FULL, on(replace(ZERO2, offload=True))) == 0
    assert memory.optimizer(FULL, replace(RUN, optim="paged_adamw_8bit")) == P * (4 + 2 + 8 / 256) / 8


def test_data_parallel_holds_gradients_twice() -> None:
    alone = on(ALONE, FLOAT32)
    assert memory.weights(FULL, alone) == 4 * P
    assert memory.gradients(FULL, alone) == 4 * P
    assert memory.gradients(FULL, on(replace(ALONE, processes=2), FLOAT32)) == 8 * P
    assert memory.optimizer(FULL, alone) == 8 * P
    assert memory.training_pass(FULL, alone)["bfloat16 copies of weights"] == 2 * P


def test_qlora_by_hand() -> None:
    """0.5 bytes and 0.127 bits per weight in NF4; the other weights and the adapters in two bytes."""
    nf4, alone = 7_517_270_016 * (0.5 + 0.126953125 / 8), on(ALONE)
    assert memory.weights(QLORA, alone) == pytest.approx(nf4 + (P - 7_517_270_016) * 2 + 87_293_952 * 2)
    assert memory.gradients(QLORA, alone) == 87_293_952 * 2
    assert memory.optimizer(QLORA, replace(alone, optim="paged_adamw_8bit")) == 87_293_952 * 2 * (1 + 4 / 256)
    assert memory.reference(QLORA, alone) == 87_293_952 * 2  # the adapter's copy: the base is its own reference


def test_cache_output_layer_and_inputs_by_hand() -> None:
    assert memory.kv_cache_bytes(QWEN3_8B, 1) == 147_456  # 2 x 36 layers x 1,024 features x 2 bytes
    (rollouts,) = RUN.generations
    assert rollouts == GenerationBatch("rollouts", 4, 500, 2000)
    generated = memory.generation(FULL, RUN, rollouts)
    assert generated["KV cache"] == pytest.approx(147_456 * 4 * (500 + 256 + 5 * 257) * 37 / 36)  # for 2,000 tokens
    short = memory.generation(FULL, RUN, GenerationBatch("evaluation", 32, 300, 332))
    assert short["KV cache"] == 147_456 * 32 * 556  # 2.44 GiB: 256 tokens more than the prompt, although 32 are written
    assert "gathered weights" not in generated
    assert memory.generation(FULL, on(ZERO3), rollouts)["gathered weights"] == 2 * P
    tile, hidden, head = 3000 * 32768 * 2, 3000 * 4096 * 4, 151936 * 4096 * 4
    assert memory.output_bytes(FULL, 3000, 2) == tile + hidden + head
    assert memory.output_bytes(QLORA, 9000, 2) == 4096 * 32768 * 2 + 9000 * 4096 * 4
    training = memory.training_pass(FULL, RUN)
    assert training["layer inputs"] == 36 * 4000 * 4096 * 2
    assert training["images"] == 4 * 392 * 4 * 1536 * 4
    assert training["attention mask"] == 2 * 2000 * 2000 * 3


def test_one_layer_by_hand() -> None:
    """Qwen3-VL-8B in two bytes: 2x6h + 6(a+k) + 4h + 8a + 128 + 2a + 8f, h = a = 4096, k = 1024, f = 12288."""
    assert memory.layer_bytes(FULL, 2) == 12 * 4096 + 6 * 5120 + 4 * 4096 + 8 * 4096 + 128 + 2 * 4096 + 8 * 12288
    assert memory.layer_bytes(QLORA, 2, dropout=True) == (8 * 4096 + 4 * 5120 + 8 * 4096 + 128 + 6 * 12288 + 36_864 * 3)


def test_without_checkpointing_every_layer_is_kept() -> None:
    kept = memory.training_pass(FULL, replace(RUN, checkpointing=False))
    assert kept["layers"] == 36 * 4000 * memory.layer_bytes(FULL, 2)
    assert sum(kept.values()) > 10 * sum(memory.training_pass(FULL, RUN).values()) / 2


def test_the_peak_is_the_worst_phase_and_leaves_space() -> None:
    found = memory.estimate(FULL, RUN)
    phase, peak = found.peak
    assert phase == "learning"
    assert peak == sum(found.always.values()) + max(sum(parts.values()) for parts in found.phases.values())
    needed = (peak + memory.CUDA_CONTEXT) / 0.95 / memory.GIB
    for gpu in (0.999 * needed, 1.001 * needed):
        assert found.fits(replace(ZERO2, gpu_memory=gpu)) == (gpu > needed)


# What torch holds.


def pocket(pocket_folder: Any, lora: Lora | None, dtype: str = "float32") -> tuple[Any, ParameterCounts]:
    loaded = checkpoint.load(pocket_folder, checkpoint.LoadOptions(dtype), freeze=("vision", "projector"), lora=lora)
    config = loaded.model.config
    return loaded.model.train(), parameters.count(config, loaded.family, Settings(), lora)


def text_pass(model: Any, rows: int = 2, length: int = 64) -> torch.Tensor:
    ids = torch.randint(5, 90, (rows, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0  # padded, as batches are: without a mask other kernels would run
    return model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float().logsumexp(-1).mean()


@pytest.mark.ci
@pytest.mark.parametrize("lora", [None, Lora(r=4)], ids=["full", "lora"])
def test_weights_gradients_and_states_are_what_torch_allocates(pocket_folder: Any, lora: Lora | None) -> None:
    model, counts = pocket(pocket_folder, lora)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    text_pass(model).backward()
    optimizer.step()
    spec = on(ALONE, FLOAT32, bf16=False)
    assert memory.weights(counts, spec) == sum(p.nbytes for p in model.parameters())
    assert memory.gradients(counts, spec) == sum(p.grad.nbytes for p in trained if p.grad is not None)
    states = [value for state in optimizer.state.values() for name, value in state.items() if name != "step"]
    assert memory.optimizer(counts, spec) == sum(value.nbytes for value in states)


@pytest.mark.ci
@pytest.mark.parametrize("lora", [None, Lora(r=4)], ids=["full", "lora"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_layer_keeps_what_the_formula_says(pocket_folder: Any, lora: Lora | None, dtype: str) -> None:
    """Autograd's saved tensors of five layers less those of one, without weights: 15 per cent are allowed."""
    model, counts = pocket(pocket_folder, lora, dtype)
    if lora is not None:
        model.enable_input_require_grads()
    layers = model.get_base_model().model.language_model.layers if lora else model.model.language_model.layers
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def kept() -> int:
        storages: dict[int, Any] = {}

        def remember(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                storages[storage.data_ptr()] = storage  # kept alive, so that no address is reused
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
    assert memory.layer_bytes(counts, 4 if dtype == "float32" else 2) == pytest.approx(per_token, rel=0.15)

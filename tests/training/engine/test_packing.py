"""Packed SFT rows: the padded batch's losses and gradients, whatever lies beside them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mllm.training.engine import attention, packing, shared_prefix
from tests.training import tiny

from trl.trainer import utils as trl_utils  # isort: skip
from trl.trainer.utils import add_fused_lm_head  # isort: skip

GROUPS = [(5, 1, [4]), (17, 2, [9]), (3, 0, [5]), (8, 1, [2])]
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3")


def rows_of(model: Any) -> dict[str, Any]:
    """A batch as TRL's collator makes it: prompt and answer, padded right, the loss on the answer."""
    text_only = model.config.model_type == "qwen3"
    groups = [(words, 0 if text_only else images, lengths) for words, images, lengths in GROUPS]
    batch = tiny.batch(model, groups)
    space = batch.pop("logits_to_keep")
    batch.pop("num_images", None)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    labels[:, :-space] = -100
    found = batch | {"labels": labels}
    for name in ("input_ids", "labels", "mm_token_type_ids", "attention_mask"):
        if name in found:
            shifts = [int(row.argmax()) for row in batch["attention_mask"]]
            found[name] = torch.stack([one.roll(-k) for one, k in zip(found[name], shifts, strict=True)])
    return found


def loss_and_gradients(model: Any, inputs: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    out = model(**inputs, fused_lm_head=True)
    (-out.log_probs.sum() / 20).backward()
    return -out.log_probs.sum().item() / 20, {
        n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
    }


def test_positions_start_again_with_each_row_and_no_row_foretells_the_next() -> None:
    inputs = {
        "input_ids": torch.tensor([[0, 5, 6, 7], [8, 9, 0, 0]]),
        "attention_mask": torch.tensor([[0, 1, 1, 1], [1, 1, 0, 0]]),
        "labels": torch.tensor([[-100, 5, 6, 7], [8, 9, -100, -100]]),
    }
    packed = packing.pack(None, inputs)
    assert packed["input_ids"].tolist() == [[5, 6, 7, 8, 9]] and packed["row_lengths"] == (3, 2)
    assert packed["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert packed["labels"].tolist() == [[-100, 6, 7, -100, 9]], "a row's first token is foretold by nothing of its own"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
def test_packed_rows_have_the_padded_batchs_gradients(family: str, checkpointing: bool) -> None:
    model = tiny.build(family, tied=False)
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    inputs = rows_of(model)
    theirs, stock = loss_and_gradients(model, inputs)
    attention.in_rows(model)
    packed = packing.pack(shared_prefix.multimodal_core(model), inputs)
    assert packed["input_ids"].shape == (1, int(inputs["attention_mask"].sum()))
    with attention.labelled_only():
        ours, found = loss_and_gradients(model, packed)
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert stock.keys() == found.keys()
    for name, gradient in stock.items():
        assert (found[name] - gradient).abs().max() <= 1e-4 * gradient.abs().max().clamp(min=1e-6), name


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_read_packed_are_those_of_the_padded_batch(family: str) -> None:
    model = tiny.build(family)
    inputs = {name: value for name, value in rows_of(model).items() if name != "labels"}
    real_BT = inputs["attention_mask"].bool()
    with torch.no_grad():
        padded = model.model(**inputs, output_hidden_states=True).hidden_states
        attention.in_rows(model)
        packed = packing.hidden_states(model, inputs)
    assert len(padded) == len(packed) > 2 and not real_BT.all()
    for one, other in zip(padded, packed, strict=True):
        torch.testing.assert_close(other[real_BT], one[real_BT], rtol=1e-4, atol=1e-5)
        assert not other[~real_BT].any()


def test_a_row_sees_no_other() -> None:
    model = tiny.build("qwen3_vl")
    add_fused_lm_head(model)
    attention.in_rows(model)
    inputs = rows_of(model)
    other = {**inputs, "input_ids": inputs["input_ids"].clone(), "pixel_values": inputs["pixel_values"].clone()}
    other["input_ids"][1, :5] = 7
    other["pixel_values"][20:28] += 1.0  # an image of the second row
    core = shared_prefix.multimodal_core(model)
    with torch.no_grad():
        before, after = (model(**packing.pack(core, one), fused_lm_head=True).log_probs for one in (inputs, other))
    lengths = inputs["attention_mask"].sum(1).tolist()
    ends = torch.tensor(lengths).cumsum(0).tolist()
    own = slice(ends[0] - 1, ends[1] - 1)
    assert (before[0, own] - after[0, own]).abs().max() > 1e-2
    before[0, own] = after[0, own] = 0
    torch.testing.assert_close(before, after, rtol=1e-6, atol=1e-6)


def test_without_row_lengths_the_kernel_is_the_plain_one() -> None:
    model = tiny.build("qwen3_vl")
    inputs = {name: value for name, value in rows_of(model).items() if name != "labels"}
    with torch.no_grad():
        before = model(**inputs).logits
        attention.in_rows(model)
        after = model(**inputs).logits
    torch.testing.assert_close(before, after, rtol=0, atol=0)


def test_a_head_for_labelled_tokens_alone_gives_the_same_and_bears_a_batch_without_labels() -> None:
    model = tiny.build("qwen3")
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    inputs = rows_of(model)
    everywhere = model(**inputs, fused_lm_head=True)
    seen: list[int] = []
    hook = trl_utils._ChunkedLogProbFunction.apply

    def counted(hidden: torch.Tensor, *rest: Any) -> Any:
        seen.append(len(hidden))
        return hook(hidden, *rest)

    with pytest.MonkeyPatch.context() as patched, attention.labelled_only():
        patched.setattr(trl_utils._ChunkedLogProbFunction, "apply", counted)
        labelled = model(**inputs, fused_lm_head=True)
        none = model(**(inputs | {"labels": torch.full_like(inputs["labels"], -100)}), fused_lm_head=True)
    assert seen == [int((inputs["labels"][:, 1:] != -100).sum()), 0]
    torch.testing.assert_close(labelled.log_probs, everywhere.log_probs, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(labelled.entropy, everywhere.entropy, rtol=1e-6, atol=1e-6)
    none.log_probs.sum().backward()

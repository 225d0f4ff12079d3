"""Packed SFT rows: the padded batch's losses and gradients, whatever lies beside them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mllm.training import costs, packing, prefix
from tests.training import tiny

from trl.trainer.utils import add_fused_lm_head  # isort: skip

GROUPS = [(5, 1, [4]), (17, 2, [9]), (3, 0, [5]), (8, 1, [2])]
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3")


def rows_of(model: Any) -> dict[str, Any]:
    """A batch as TRL's collator makes it: prompt and answer, padded right, the loss on the answer."""
    text_only = model.config.model_type == "qwen3"
    groups = [(words, 0 if text_only else images, lengths) for words, images, lengths in GROUPS]
    batch = tiny.batch(model, groups)
    room = batch.pop("logits_to_keep")
    batch.pop("num_images", None)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    labels[:, :-room] = -100
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


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rows", [[[0, 1, 2, 3]], [[3, 0], [1, 2]]], ids=["one", "two"])
def test_packed_rows_have_the_padded_batchs_gradients(family: str, rows: list[list[int]]) -> None:
    model = tiny.build(family, tied=False)
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    inputs = rows_of(model)
    packed = packing.pack(prefix.multimodal_core(model), inputs, rows)
    assert packed["input_ids"].shape[0] == len(rows)
    (theirs, stock), (ours, found) = loss_and_gradients(model, inputs), loss_and_gradients(model, packed)
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert stock.keys() == found.keys()
    for name, gradient in stock.items():
        assert (found[name] - gradient).abs().max() <= 1e-4 * gradient.abs().max().clamp(min=1e-6), name


def test_a_row_sees_no_other() -> None:
    model = tiny.build("qwen3_vl")
    add_fused_lm_head(model)
    inputs = rows_of(model)
    other = {**inputs, "input_ids": inputs["input_ids"].clone(), "pixel_values": inputs["pixel_values"].clone()}
    other["input_ids"][1, :5] = 7
    other["pixel_values"][20:28] += 1.0  # a picture of the second row
    core = prefix.multimodal_core(model)
    with torch.no_grad():
        before, after = (
            model(**packing.pack(core, one, [[0, 1, 2, 3]]), fused_lm_head=True).log_probs for one in (inputs, other)
        )
    lengths = inputs["attention_mask"].sum(1).tolist()
    ends = torch.tensor(lengths).cumsum(0).tolist()
    own = slice(ends[0] - 1, ends[1] - 1)
    assert (before[0, own] - after[0, own]).abs().max() > 1e-2
    before[0, own] = after[0, own] = 0
    torch.testing.assert_close(before, after, rtol=1e-6, atol=1e-6)


def test_bins_hold_what_fits() -> None:
    assert packing.bins([5, 3, 2, 4], 7) == [[0, 2], [1, 3]]
    assert packing.bins([5, 5], 5) == [[0], [1]]
    lengths = [7, 3, 9, 1, 4, 4, 2]
    found = packing.bins(lengths, 10)
    assert sorted(row for rows in found for row in rows) == list(range(7))
    assert max(sum(lengths[row] for row in rows) for rows in found) <= 10 and len(found) == 3


def test_rows_of_one_length_are_left_alone_and_uneven_ones_are_packed() -> None:
    model = costs.Costs(per_token=1e9, per_pair=1e4)
    assert packing.plan(model, [100] * 8) is None
    rows = packing.plan(model, [400, 100, 100, 100, 100, 90, 80])
    assert rows is not None and len(rows) < 7
    dear = costs.Costs(per_token=1.0, per_pair=1e6)
    assert packing.plan(dear, [100, 99, 98, 97]) is None

"""SFT without padding: several short rows, pictures and all, in one sequence, none of which sees another.

A collated batch is padded to its longest row; packed, it is nearly all tokens. Each row keeps its own positions (three
axes under M-RoPE) and attends to itself alone, so that losses and gradients are those of the padded batch.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import SFTTrainer

from mllm.training import costs, prefix
from mllm.training.costs import Costs
from mllm.training.saving import PerEpoch

logger = logging.getLogger(__name__)

KNOWN = {"input_ids", "attention_mask", "labels", "mm_token_type_ids", "pixel_values", "image_grid_thw"}
"""What a batch may consist of; one with anything else stays as it is."""


def bins(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Put rows into as few sequences of at most `room` tokens as first-fit, longest first, finds."""
    filled: list[tuple[int, list[int]]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        for k, (used, rows) in enumerate(filled):
            if used + lengths[row] <= room:
                filled[k] = used + lengths[row], [*rows, row]
                break
        else:
            filled.append((lengths[row], [row]))
    return [sorted(rows) for _, rows in filled]


def plan(model_costs: Costs, lengths: Sequence[int]) -> list[list[int]] | None:
    """Choose which rows share a sequence; None where the padded batch is as cheap.

    Longer sequences waste less on padding and more on attention under a dense mask, so sequences of one to four times
    the longest row, and one for all, are compared.
    """
    longest = max(lengths)
    best, chosen = costs.MARGIN * costs.packed(model_costs, [longest] * len(lengths), 0), None
    for room in sorted({longest, longest * 3 // 2, longest * 2, longest * 3, longest * 4, sum(lengths)}):
        rows = bins(lengths, room)
        cost = costs.packed(model_costs, [sum(lengths[b] for b in row) for row in rows], 0)
        if cost < best:
            best, chosen = cost, rows
    return chosen


def pack(core: Any | None, inputs: dict[str, Any], rows: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Lay a batch's rows out anew.

    Args:
        core: see `prefix.multimodal_core`.
        inputs: a collated batch: `input_ids`, `attention_mask`, `labels` (B, T), and Qwen's picture arguments, if any.
        rows: for each packed sequence the rows in it.
    """
    device = inputs["input_ids"].device
    ids, mask, labels = (inputs[name].cpu() for name in ("input_ids", "attention_mask", "labels"))
    real, types = mask.bool(), inputs.get("mm_token_type_ids")
    types = types.cpu() if types is not None else torch.zeros_like(ids)
    pictures = _pictures(core, inputs, types)
    axes = 3 if hasattr(core, "get_rope_index") else 1
    size = len(rows), max(int(mask[list(row)].sum()) for row in rows)
    ids_RT, labels_RT = torch.zeros(size, dtype=torch.long), torch.full(size, -100)
    segment_RT, position_ART = torch.full(size, -1), torch.zeros((axes, *size), dtype=torch.long)
    for r, row in enumerate(rows):
        end = 0
        for b in row:
            own, start = real[b], end
            end += int(own.sum())
            here = slice(start, end)
            ids_RT[r, here], labels_RT[r, here], segment_RT[r, here] = ids[b][own], labels[b][own], b
            labels_RT[r, start] = -100  # nothing before it is its own
            grids = pictures[b][1] if pictures else None
            position_ART[:, r, here] = prefix.positions(core, ids[b][own], types[b][own], grids)
    own_RTT = segment_RT[:, None, :] == segment_RT[:, :, None]
    packed = {
        "input_ids": ids_RT,
        "attention_mask": (own_RTT & torch.ones(size[1], size[1], dtype=torch.bool).tril())[:, None],
        "position_ids": position_ART if axes > 1 else position_ART[0],
        "labels": labels_RT,
    }
    packed = {name: value.to(device) for name, value in packed.items()}
    order = [b for row in rows for b in row]
    if pictures:
        packed["pixel_values"] = torch.cat([pictures[b][0] for b in order])
        packed["image_grid_thw"] = torch.cat([pictures[b][1] for b in order]).to(device)
    return packed


def _pictures(
    core: Any | None, inputs: dict[str, Any], types: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor]] | None:
    """Return each row's patches and grids (on the CPU); rows own pictures in order, by their count of visual tokens."""
    if inputs.get("pixel_values") is None or core is None:
        return None
    grids = inputs["image_grid_thw"].cpu()
    patches = grids.prod(-1)
    pixels = list(torch.split(inputs["pixel_values"], patches.tolist()))
    merged = core.visual.spatial_merge_size**2
    found, at = [], 0
    for wanted in (types == 1).sum(1).tolist():
        start = at
        while wanted > 0:
            wanted -= int(patches[at]) // merged
            at += 1
        none = inputs["pixel_values"][:0]
        found.append((torch.cat(pixels[start:at]) if at > start else none, grids[start:at]))
    return found


class PackedSFTTrainer(SFTTrainer):
    """TRL's trainer, which packs the rows of each batch where `packing` is asked for and the model allows it.

    With `lengths`, the tokens of each row of the training data, batches are made of rows of like length.
    """

    args: Any  # SFTConfig; the base classes say less
    model: Any
    accelerator: Any

    def __init__(self, *args: Any, packing: bool = False, lengths: Sequence[int] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lengths = lengths
        reason = prefix.unsupported(self.model) if packing else None
        if packing and (self.aux_loss_enabled or self.compute_loss_func or self.label_smoother):
            reason = "the router's auxiliary loss, a loss function or label smoothing looks at whole rows"
        self.packs_rows = packing and reason is None
        if reason is not None:
            logger.info("packing: rows are padded as usual (%s)", reason)
        if self.packs_rows:
            self._costs = costs.of_model(self.model.config, checkpointing=self.args.gradient_checkpointing)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.lengths is None:
            return super()._get_train_sampler(train_dataset)
        generator = torch.Generator().manual_seed(self.args.data_seed or self.args.seed)
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.accelerator.num_processes
        grouped = LengthGroupedSampler(size, lengths=list(self.lengths), generator=generator)
        return PerEpoch(grouped, self.args.data_seed or self.args.seed)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Pack, then TRL's own loss."""
        if not self.packs_rows or not self.model.training or return_outputs or not KNOWN.issuperset(inputs):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        lengths = inputs["attention_mask"].sum(1).tolist()
        rows, seen = plan(self._costs, lengths), self._total_train_tokens
        if rows is not None:
            core = prefix.multimodal_core(self.accelerator.unwrap_model(model))
            inputs = pack(core, inputs, rows)
        read = inputs["input_ids"].numel()
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        counted = torch.tensor(sum(lengths), device=self.accelerator.device)
        self._total_train_tokens = seen + int(
            self.accelerator.gather_for_metrics(counted).sum()
        )  # not the mask's pairs
        self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        self._metrics["train"]["packing/real_tokens"].append(sum(lengths) / read)
        return loss

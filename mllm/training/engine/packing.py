"""SFT without padding: a batch's rows, with images, in one sequence; losses and gradients equal the padded batch's."""

import logging
from typing import Any

import torch
from trl import SFTTrainer

from mllm.training.engine import attention, shared_prefix

logger = logging.getLogger(__name__)

KNOWN = {"input_ids", "attention_mask", "labels", "mm_token_type_ids", "pixel_values", "image_grid_thw"}
"""Fields that a packed batch may have; batches with other fields stay padded."""


def pack(core: Any | None, inputs: dict[str, Any]) -> dict[str, Any]:
    """Concatenate the rows of a batch to one sequence.

    Args:
        core: see `shared_prefix.multimodal_core`.
        inputs: a collated batch: `input_ids`, `attention_mask`, optional `labels` (B, T), and optional images.

    Returns:
        Inputs from which a model after `attention.in_rows` computes the same losses: tensors of shape (1, sum of
        lengths), positions with an axis in front under M-RoPE, and `row_lengths`. Images stay in order.
    """
    ids_BT, mask_BT = inputs["input_ids"], inputs["attention_mask"]
    real_BT, places = mask_BT.bool(), shared_prefix.padded_positions(core, inputs)[0]
    packed = {
        "input_ids": ids_BT[real_BT][None],
        "position_ids": places[..., real_BT].unsqueeze(-2),
        "attention_mask": attention.no_mask(ids_BT.device),
        "row_lengths": tuple(real_BT.sum(1).tolist()),
    }
    if "labels" in inputs:
        labels_BT, starts_B = inputs["labels"].clone(), real_BT.int().argmax(1)
        rows_B = torch.arange(len(ids_BT), device=ids_BT.device)
        labels_BT[rows_B, starts_B] = -100  # the token before is in another row
        packed["labels"] = labels_BT[real_BT][None]
    return packed | {name: inputs[name] for name in ("pixel_values", "image_grid_thw") if name in inputs}


def hidden_states(model: Any, inputs: dict[str, Any]) -> list[torch.Tensor]:
    """Return a batch's hidden states, computed packed: after the embeddings and each layer, (B, T, D) each.

    The last one is normalized; padding is 0. The model must have passed through `attention.in_rows`; `inputs` are as
    for `pack`, without labels.
    """
    real_BT = inputs["attention_mask"].bool()
    packed = pack(shared_prefix.multimodal_core(model), inputs)
    states = model.model(**packed, use_cache=False, output_hidden_states=True).hidden_states
    return [
        state_1TD.new_zeros(*real_BT.shape, state_1TD.shape[-1]).masked_scatter(real_BT[..., None], state_1TD)
        for state_1TD in states
    ]


class PackedSFTTrainer(SFTTrainer):
    """TRL's trainer; with `packing` it packs the rows of each batch if the model allows it."""

    args: Any  # SFTConfig; the base classes' annotations are less specific
    model: Any
    accelerator: Any
    window = 1
    """Optimizer steps between points where a checkpoint loses nothing."""
    used_up = True
    """No completions are drawn, so none can be lost."""

    def __init__(self, *args: Any, packing: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        reason = shared_prefix.unsupported(self.model) if packing else None
        if packing and (self.aux_loss_enabled or self.compute_loss_func or self.label_smoother):
            reason = "the router's auxiliary loss, a loss function or label smoothing needs padded rows"
        self.packs_rows = packing and reason is None
        if reason is not None:
            logger.info("packing: rows are padded as usual (%s)", reason)
        if self.packs_rows:
            attention.in_rows(self.model)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Pack the batch, then compute TRL's own loss."""
        if not self.packs_rows or not self.model.training or return_outputs or not KNOWN.issuperset(inputs):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        lengths, width = inputs["attention_mask"].sum(1).tolist(), inputs["input_ids"].shape[1]
        tokens = self._total_train_tokens
        if min(lengths) < width:
            inputs = pack(shared_prefix.multimodal_core(self.accelerator.unwrap_model(model)), inputs)
        with attention.labelled_only():
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        counted = torch.tensor(sum(lengths), device=self.accelerator.device)
        # TRL counted the mask, which no longer has one entry per token.
        self._total_train_tokens = tokens + int(self.accelerator.gather_for_metrics(counted).sum())
        self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        self._metrics["train"]["packing/padding_saved"].append(1 - sum(lengths) / (len(lengths) * width))
        return loss

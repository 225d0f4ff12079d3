"""GRPO that reads the prompt once: TRL's trainer, with the prompt shared by a group's completions wherever it is read.

TRL reads a prompt, images included, for every completion: in sampling, in the old, reference and policy passes. Here
groups stay whole in micro-batches (TRL shuffles their rows), each prompt is preprocessed and prefilled once, its
completions are scored in one packed sequence (`mllm.training.engine.shared_prefix`), and a frozen vision tower runs once an image
and generation batch. On the same rollouts and micro-batches the losses are TRL's own.

`TRL_INTERNALS` names what of TRL this stands on; tests/training/test_trl_contract.py holds TRL to it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import trl
from packaging.version import Version
from transformers.integrations import is_deepspeed_zero3_enabled
from trl import GRPOTrainer
from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from mllm.training.checkpointing import PerEpoch
from mllm.training.engine import attention, cost_model, logprobs, rollout, shared_prefix
from mllm.training.engine.shared_prefix import Image
from mllm.training.grpo import dynamic_sampling as dynamic

logger = logging.getLogger(__name__)

TRL_TESTED = "1.16"
TRL_INTERNALS = (
    "_compute_loss",
    "_generate_and_score_completions",
    "_generate_single_turn",
    "_get_per_token_logps_and_entropies",
    "_get_train_sampler",
    "_prepare_inputs",
    "_tokenize_prompts",
)
"""Methods of GRPOTrainer that are overridden here."""
SKIPPABLE = ("grpo", "dr_grpo", "dapo", "bnpo", "cispo")
"""Losses in which a completion without advantage has no gradient, so that its group need not be read."""


@dataclass(frozen=True)
class Held:
    """What is known of the rows that are scored next: their run of equal prompts, and their images' features."""

    run: Sequence[int]
    features: Sequence[Sequence[Image]] | None
    old: torch.Tensor | None = None
    advantages: torch.Tensor | None = None


class PrefixGRPOTrainer(GRPOTrainer):
    """TRL's trainer with shared prefixes. `engine="stock"`, or a setting that cannot share, leaves TRL as it is."""

    args: Any  # GRPOConfig; the base classes say less
    model: Any
    accelerator: Any

    def __init__(
        self,
        *args: Any,
        engine: str = "prefix",
        dynamic_sampling: str = "off",
        resample_rounds: int = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.dynamic_sampling, self.resample_rounds = dynamic_sampling, resample_rounds
        if dynamic_sampling == "resample":
            dynamic.check(self)
        self._held: Held | None = None
        self._said = False
        reason = self._why_stock(engine)
        self.shares_prefix = reason is None
        if not self.shares_prefix:
            logger.info("engine: TRL's own, every completion reads its prompt (%s)", reason)
            return
        for model in (self.model, self.ref_model):
            if model is not None:
                attention.in_rows(self.accelerator.unwrap_model(model))
        core = shared_prefix.multimodal_core(self.model)
        vision = list(core.visual.parameters()) if core is not None and hasattr(core, "visual") else []
        sharded = is_deepspeed_zero3_enabled() or self.is_fsdp_enabled
        self._encodes_once = bool(vision) and not sharded and not any(p.requires_grad for p in vision)
        self._costs = cost_model.of_model(
            self.model.config,
            vision_parameters=sum(getattr(p, "ds_numel", p.numel()) for p in vision),
        )

    def _why_stock(self, engine: str) -> str | None:
        """Say why prompts cannot be shared, None where they can."""
        if engine == "stock":
            return "engine: stock"
        if not Version(trl.__version__).base_version.startswith(TRL_TESTED + "."):
            return f"TRL {trl.__version__}: shared prefixes were tested with {TRL_TESTED}"
        if self.tools or self.environment_factories or self.rollout_func:
            return "tools, environments and rollout functions change prompts on the way"
        if self.args.cache_implementation:
            return f"cache_implementation {self.args.cache_implementation!r} cannot share a prefill"
        if self.aux_loss_enabled:
            return "the router's auxiliary loss counts tokens"
        return shared_prefix.unsupported(self.model)

    # What makes a run that goes on end as one that was not stopped.

    @property
    def window(self) -> int:
        """Optimizer steps after which all drawn answers are used up; a checkpoint in between would lose them."""
        drawn = self.args.steps_per_generation * self.num_iterations
        return math.lcm(drawn, self.args.gradient_accumulation_steps) // self.args.gradient_accumulation_steps

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        return PerEpoch(super()._get_train_sampler(dataset), self.args.seed)

    # Rollouts: every prompt tokenized, its images prepared, and prefilled once.

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = self._draw(inputs)
        if self.model.training and self.dynamic_sampling != "off":
            if self.dynamic_sampling == "resample":
                output = dynamic.resample(self, inputs, output, self._draw, self.resample_rounds)
            dynamic.drop(self, output)
        return output

    def _draw(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Draw and score completions, and note which rows share a prompt."""
        self._held = None
        output = super()._generate_and_score_completions(inputs)
        if self.scale_rewards == "batch":
            self._count_flat_groups(output["advantages"])
        if self._held is not None:
            output["run"] = list(self._held.run)
            if self._held.features is not None:
                output["features"] = list(self._held.features)
            self._held = None
        return output

    def _count_flat_groups(self, advantages: torch.Tensor) -> None:
        """Log the share of prompts whose answers all earn the same: TRL looks at the whole batch where it scales by
        it, and finds none."""
        mode = "train" if self.model.training else "eval"
        size = self.num_generations if self.model.training else self.num_generations_eval
        lowest, highest = self.accelerator.gather(advantages).view(-1, size).aminmax(dim=1)
        self._metrics[mode]["frac_reward_zero_std"][-1] = (
            torch.isclose(lowest, highest, atol=1e-6).float().mean().item()
        )

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[Any, Any, Any]:
        if not self.shares_prefix:
            return super()._tokenize_prompts(prompts)
        run = shared_prefix.runs(prompts)
        ids, images, fields = super()._tokenize_prompts([prompts[row] for row in shared_prefix.firsts(run)])
        if min(len(one) for one in ids) < 2:
            return super()._tokenize_prompts(prompts)
        self._held = Held(run, None)
        # `fields` stay one a prompt: only `_generate_single_turn` looks at them.
        return [ids[k] for k in run], None if images is None else [images[k] for k in run], fields

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, has_tool_images: bool = False
    ) -> tuple[Any, Any]:
        if self._held is None:
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
        run, rows = self._held.run, shared_prefix.firsts(self._held.run)
        pictures = self._encode(multimodal_fields)
        if pictures is not None:
            counts = [len(images[row] or ()) for row in rows]
            ends = torch.tensor(counts).cumsum(0).tolist()
            per_prompt = [pictures[end - count : end] for count, end in zip(counts, ends, strict=True)]
            self._held = Held(run, [per_prompt[k] for k in run])
        if self.use_vllm or self.use_transformers_continuous_batching:  # they know prompts that come again themselves
            return super()._generate_single_turn(prompt_ids, images, multimodal_fields, num_generations)
        model = self.accelerator.unwrap_model(self.model_wrapped)
        with rollout.prefilled_once(model, run, pictures):
            return super()._generate_single_turn(
                [prompt_ids[row] for row in rows],
                None if images is None else [images[row] for row in rows],
                multimodal_fields,
                num_generations,
            )

    def _encode(self, fields: dict[str, Any]) -> list[Image] | None:
        """Run the frozen vision tower over a generation batch's images; None where it has to run with the text."""
        if not self._encodes_once or fields.get("image_grid_thw") is None:
            return None
        core = shared_prefix.multimodal_core(self.accelerator.unwrap_model(self.model))
        names = ("pixel_values", "image_grid_thw")
        pixels, grids = (torch.as_tensor(fields[name]).to(self.accelerator.device) for name in names)
        with self.accelerator.autocast():
            return shared_prefix.encode(core, pixels, grids)

    # Micro-batches: rows stay in order, so that neighbours share their prompt.

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        if not self.shares_prefix or not self.model.training:
            return super()._prepare_inputs(generation_batch)
        window = self.args.steps_per_generation * self.num_iterations
        if self._step % window == 0 or self._buffered_inputs is None:
            generated: Any = split_pixel_values_by_grid(self._generate_and_score_completions(generation_batch))
            parts: Any = split_tensor_dict(generated, self.args.steps_per_generation)
            self._buffered_inputs = [unsplit_pixel_values_by_grid(part) for part in parts]
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    # Scoring: the old, reference and policy passes.

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        if inputs.get("run") is not None:
            skips = self._skips()
            self._held = Held(
                inputs["run"],
                inputs.get("features"),
                inputs.get("old_per_token_logps"),
                inputs["advantages"] if skips else None,
            )
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self._held = None

    def _skips(self) -> bool:
        """Whether completions without advantage have no part in the loss but through their number of tokens."""
        return (
            self.loss_type in SKIPPABLE
            and self.beta == 0.0
            and not self._entropy_bonus_enabled
            and self.top_entropy_quantile >= 1.0
            and self.off_policy_mask_threshold is None
        )

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **forward: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        def stock() -> Any:
            return super(PrefixGRPOTrainer, self)._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, compute_aux_loss,
                **forward,
            )  # fmt: skip

        held = self._held
        if held is None or compute_aux_loss or any(forward.get(name) is not None for name in logprobs.UNKNOWN):
            return stock()
        core = shared_prefix.multimodal_core(self.accelerator.unwrap_model(model))
        pictures = logprobs.Images.read(forward)
        batch = logprobs.read(
            core, input_ids, attention_mask, logits_to_keep, held.run, pictures, forward.get("mm_token_type_ids")
        )
        wanted = _wanted(batch, held.advantages)
        patches = None if held.features is not None else [pictures.patches(row) for row in batch.first]
        size = batch_size or len(input_ids)
        chunks = [range(start, min(start + size, len(input_ids))) for start in range(0, len(input_ids), size)]
        groups = [
            logprobs.plan(self._costs, batch, chunk, [row for row in wanted if row in chunk], patches)
            for chunk in chunks
            if any(row in chunk for row in wanted)
        ]
        self._record(batch, groups)
        packed = [chunk for chunk in groups if chunk is not None]
        if len(packed) < len(groups):
            return stock()
        device = self.accelerator.device
        scored = [
            logprobs.score(model, batch, chunk, pictures, held.features, device, self.accelerator.autocast)
            for chunk in packed
        ]
        logps, entropies = (torch.stack(parts).sum(0) for parts in zip(*scored, strict=True))
        if len(wanted) < len(input_ids):
            logps, entropies = _fill(logps, entropies, batch, wanted, held.old)
        return logps, entropies if compute_entropy else None, None

    def _record(self, batch: logprobs.Batch, chunks: Sequence[Any]) -> None:
        """Log how many completions share a prompt (0: the stock route), and say so once."""
        shared = [len(row) for rows in chunks if rows is not None for row in rows]
        mean = sum(shared) / len(shared) if shared and None not in chunks else 0.0
        self._metrics["train" if self.model.training else "eval"]["engine/completions_per_row"].append(mean)
        if not self._said:
            self._said = True
            longest = max(len(prompt) for prompt in batch.prompts), max(len(one) for one in batch.completions)
            how = f"{mean:.3g} completions share a prompt" if mean else "stock rows are cheaper here"
            once = ", images are encoded once a generation batch" if self._encodes_once else ""
            logger.info("engine: prompts of up to %d tokens, completions of %d: %s%s", *longest, how, once)


def _wanted(batch: logprobs.Batch, advantages: torch.Tensor | None) -> list[int]:
    """Return the completions that have to be read: those of groups with an advantage, and always one.

    The one keeps every process in step (each runs the model in each micro-step) and the entropy from being unknown.
    """
    everyone = list(range(len(batch.completions)))
    if advantages is None:
        return everyone
    live = advantages.reshape(len(everyone), -1).ne(0).any(1).tolist()
    groups = {number for number, alive in zip(batch.prompt_of, live, strict=True) if alive}
    wanted = [row for row in everyone if batch.prompt_of[row] in groups]
    return wanted or [min(everyone, key=lambda row: (not len(batch.completions[row]), len(batch.completions[row])))]


def _fill(
    logps: torch.Tensor, entropies: torch.Tensor, batch: logprobs.Batch, wanted: Sequence[int], old: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give completions that were not read a ratio of one, and the mean entropy of those that were (for the log)."""
    lengths_B1 = torch.tensor([len(one) for one in batch.completions], device=logps.device)[:, None]
    known_BC = torch.arange(batch.room, device=logps.device)[None] < lengths_B1
    read_B1 = torch.zeros_like(lengths_B1, dtype=torch.bool)
    read_B1[list(wanted)] = True
    mean = entropies[known_BC & read_B1].mean() if (known_BC & read_B1).any() else entropies.sum() * 0
    return (
        logps if old is None else torch.where(read_B1, logps, old),
        torch.where(read_B1, entropies, mean * known_BC),
    )

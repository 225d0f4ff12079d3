"""GRPO that reads each prompt once, images included, where TRL reads it for every completion and in every pass.

Groups stay together in micro-batches (TRL shuffles their rows). On the same rollouts the losses equal TRL's.
"""

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

from mllm.inference.generate import OnlyThese
from mllm.training.checkpointing import PerEpoch
from mllm.training.engine import attention, cost_model, logprobs, rollout, shared_prefix
from mllm.training.engine.shared_prefix import Image
from mllm.training.grpo.bag_sampler import BagSampler
from mllm.training.grpo.dynamic_sampling import DynamicSampling
from mllm.training.grpo.flat_groups import flat_rows
from mllm.training.grpo.step_credit import StepCredit
from mllm.training.grpo.weighted_advantages import Reweight

logger = logging.getLogger(__name__)

TRL_TESTED = "1.16"
TRL_INTERNALS = (
    "_calculate_rewards", "_compute_loss", "_generate_and_score_completions", "_generate_single_turn",
    "_get_per_token_logps_and_entropies", "_get_train_sampler", "_prepare_inputs", "_tokenize_prompts",
)  # fmt: skip
"""Methods of GRPOTrainer that are overridden here; tests/training/test_trl_contract.py checks them."""
SKIPPABLE = ("grpo", "dr_grpo", "dapo", "bnpo", "cispo")
"""Losses in which a completion without advantage has no gradient, so that its group need not be scored."""


@dataclass(frozen=True)
class Pending:
    """What is known of the rows that are scored next: their runs of equal prompts, and their images' features."""

    run: Sequence[int]
    features: Sequence[Sequence[Image]] | None
    old: torch.Tensor | None = None
    advantages: torch.Tensor | None = None


class PrefixGRPOTrainer(GRPOTrainer):
    """TRL's trainer with shared prefixes.

    Args:
        *args, **kwargs: as for `GRPOTrainer`.
        engine: `stock` turns sharing off; settings that cannot share turn it off too.
        dynamic_sampling: replaces or drops groups without advantage; None keeps them.
        sampler: order of the training rows in bags; None keeps TRL's. Its bag size is logged as `bags/size`.
        reweight: weighs advantages; its mean weight is logged as `advantage/weight`.
        credit: adds advantages of the reasoning's steps; their mean size is logged as `advantage/steps`.
    """

    args: Any  # GRPOConfig; the base classes' annotations are less specific
    model: Any
    accelerator: Any
    num_generations: int
    num_generations_eval: int

    def __init__(
        self,
        *args: Any,
        engine: str = "prefix",
        dynamic_sampling: DynamicSampling | None = None,
        sampler: BagSampler | None = None,
        reweight: Reweight | None = None,
        credit: StepCredit | None = None,
        **kwargs: Any,
    ) -> None:
        self.bag_sampler = sampler
        super().__init__(*args, **kwargs)
        if not self.use_vllm:
            self.generation_config = OnlyThese(**self.generation_config.to_dict())
        self.dynamic_sampling, self.reweight, self.credit = dynamic_sampling, reweight, credit
        if dynamic_sampling is not None:
            dynamic_sampling.check(self.args, self.train_dataset)
        self._pending: Pending | None = None
        self._logged_engine = False
        reason = self._why_stock(engine)
        self.shares_prefix = reason is None
        if not self.shares_prefix:
            logger.info("engine: TRL's own, which reads the prompt for every completion (%s)", reason)
            return
        for model in (self.model, self.ref_model):
            if model is not None:
                attention.in_rows(self.accelerator.unwrap_model(model))
        core = shared_prefix.multimodal_core(self.model)
        vision = list(core.visual.parameters()) if core is not None and hasattr(core, "visual") else []
        sharded = is_deepspeed_zero3_enabled() or self.is_fsdp_enabled
        self._encodes_once = bool(vision) and not sharded and not any(p.requires_grad for p in vision)
        vision_parameters = sum(getattr(p, "ds_numel", p.numel()) for p in vision)
        self._costs = cost_model.of_model(self.model.config, vision_parameters=vision_parameters)

    def _why_stock(self, engine: str) -> str | None:
        if engine == "stock":
            return "engine: stock"
        if not Version(trl.__version__).base_version.startswith(TRL_TESTED + "."):
            return f"TRL {trl.__version__}: shared prefixes were tested with {TRL_TESTED}"
        if self.tools or self.environment_factories or self.rollout_func:
            return "tools, environments and rollout functions change prompts during generation"
        if self.args.cache_implementation:
            return f"cache_implementation {self.args.cache_implementation!r} cannot share a prefill"
        if self.aux_loss_enabled:
            return "the router's auxiliary loss counts tokens"
        return shared_prefix.unsupported(self.model)

    @property
    def window(self) -> int:
        """Optimizer steps that use up one generation batch; a checkpoint in between would lose completions."""
        micro_steps = self.args.steps_per_generation * self.num_iterations
        return math.lcm(micro_steps, self.args.gradient_accumulation_steps) // self.args.gradient_accumulation_steps

    @property
    def used_up(self) -> bool:
        """Whether all completions that were drawn have been trained on; the next micro-step draws new ones."""
        return self._step % (self.args.steps_per_generation * self.num_iterations) == 0

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        if self.bag_sampler is not None:
            return self.bag_sampler
        return PerEpoch(super()._get_train_sampler(dataset), self.args.seed)

    # Rollouts: each prompt is tokenized and prefilled once, and its images are prepared once.

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = self._draw(inputs)
        if not self.model.training:
            return output
        metrics = self._metrics["train"]
        if self.credit is not None:
            whole_N1 = output["advantages"][:, None]
            output["advantages"] = self.credit(output, self.accelerator, self.num_generations)
            steps_NT = (output["advantages"] - whole_N1).abs()
            metrics["advantage/steps"].append(self.accelerator.gather(steps_NT.mean(1)).mean().item())
        if self.dynamic_sampling is not None:
            output = self.dynamic_sampling.apply(self, inputs, output, self._draw)
        if self.reweight is not None:
            advantages = output["advantages"]
            per_row_N = advantages if advantages.dim() == 1 else advantages.sum(1)
            weights_N = self.reweight(per_row_N, [row["sample"] for row in inputs])
            output["advantages"] = advantages * weights_N.view(-1, *[1] * (advantages.dim() - 1))
            metrics["advantage/weight"].append(self.accelerator.gather(weights_N).mean().item())
        if self.bag_sampler is not None:
            metrics["bags/size"].append(float(self.bag_sampler.size))
        return output

    def _draw(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Generate and score completions as TRL does, and record which rows share a prompt."""
        self._pending = None
        output = super()._generate_and_score_completions(inputs)
        mode, start = "train" if self.model.training else "eval", self.accelerator.process_index * len(inputs)
        self._metrics[mode]["frac_reward_zero_std"][-1] = self._flat_N.float().mean().item()
        output["advantages"] = output["advantages"].masked_fill(self._flat_N[start : start + len(inputs)], 0.0)
        if self._pending is not None:
            output["run"] = list(self._pending.run)
            if self._pending.features is not None:
                output["features"] = list(self._pending.features)
            self._pending = None
        return output

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Any:
        """Score as TRL does, and find the prompts whose answers all earn the same; `_draw` takes their advantages."""
        rewards_NK = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)  # of all processes
        size = self.num_generations if self.model.training else self.num_generations_eval
        self._flat_N = flat_rows(rewards_NK, self.reward_weights, size, self.multi_objective_aggregation)
        return rewards_NK

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[Any, Any, Any]:
        if not self.shares_prefix:
            return super()._tokenize_prompts(prompts)
        run = shared_prefix.runs(prompts)
        ids, images, fields = super()._tokenize_prompts([prompts[row] for row in shared_prefix.firsts(run)])
        if min(len(one) for one in ids) < 2:
            return super()._tokenize_prompts(prompts)
        self._pending = Pending(run, None)
        # `fields` keep one entry per prompt: only `_generate_single_turn` reads them.
        return [ids[k] for k in run], None if images is None else [images[k] for k in run], fields

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, has_tool_images: bool = False
    ) -> tuple[Any, Any]:
        if self._pending is None:
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
        run, rows = self._pending.run, shared_prefix.firsts(self._pending.run)
        features = self._encode(multimodal_fields)
        if features is not None:
            counts = [len(images[row] or ()) for row in rows]
            ends = torch.tensor(counts).cumsum(0).tolist()
            per_prompt = [features[end - count : end] for count, end in zip(counts, ends, strict=True)]
            self._pending = Pending(run, [per_prompt[k] for k in run])
        if self.use_vllm:  # it reuses repeated prompts itself
            return super()._generate_single_turn(prompt_ids, images, multimodal_fields, num_generations)
        model = self.accelerator.unwrap_model(self.model_wrapped)
        with rollout.prefilled_once(model, run, features):
            return super()._generate_single_turn(
                [prompt_ids[row] for row in rows],
                None if images is None else [images[row] for row in rows],
                multimodal_fields,
                num_generations,
            )

    def _encode(self, fields: dict[str, Any]) -> list[Image] | None:
        """Run the frozen vision tower over a generation batch's images; None if it has to run with the text."""
        if not self._encodes_once or fields.get("image_grid_thw") is None:
            return None
        core = shared_prefix.multimodal_core(self.accelerator.unwrap_model(self.model))
        names = ("pixel_values", "image_grid_thw")
        pixels, grids = (torch.as_tensor(fields[name]).to(self.accelerator.device) for name in names)
        with self.accelerator.autocast():
            return shared_prefix.encode(core, pixels, grids)

    # Micro-batches: rows stay in order, so that rows with the same prompt stay neighbours.

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        if not self.shares_prefix or not self.model.training:
            return super()._prepare_inputs(generation_batch)
        if self.used_up or self._buffered_inputs is None:
            generated: Any = split_pixel_values_by_grid(self._generate_and_score_completions(generation_batch))
            parts: Any = split_tensor_dict(generated, self.args.steps_per_generation)
            self._buffered_inputs = [unsplit_pixel_values_by_grid(part) for part in parts]
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    # Scoring: the old, reference and policy passes.

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        if inputs.get("run") is not None:
            old, advantages = inputs.get("old_per_token_logps"), inputs["advantages"] if self._skips() else None
            self._pending = Pending(inputs["run"], inputs.get("features"), old, advantages)
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self._pending = None

    def _skips(self) -> bool:
        """Whether completions without advantage affect the loss through their number of tokens alone."""
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

        pending = self._pending
        if pending is None or compute_aux_loss or any(forward.get(name) is not None for name in logprobs.UNKNOWN):
            return stock()
        core = shared_prefix.multimodal_core(self.accelerator.unwrap_model(model))
        batch = logprobs.read(core, input_ids, attention_mask, logits_to_keep, pending.run, forward)
        needed = logprobs.needed(batch, pending.advantages)
        size = batch_size or len(input_ids)
        groups = logprobs.plan(self._costs, batch, needed, size, encode_images=pending.features is None)
        self._log_engine(batch, groups)
        if None in groups:
            return stock()
        device, autocast = self.accelerator.device, self.accelerator.autocast
        scored = [logprobs.score(model, batch, chunk, pending.features, device, autocast) for chunk in groups if chunk]
        logps, entropies = (torch.stack(parts).sum(0) for parts in zip(*scored, strict=True))
        if len(needed) < len(input_ids):
            logps, entropies = logprobs.fill(logps, entropies, batch, needed, pending.old)
        return logps, entropies if compute_entropy else None, None

    def _log_engine(self, batch: logprobs.Batch, chunks: Sequence[Any]) -> None:
        """Log how many completions share a prompt (0: the stock route); describe the engine once."""
        shared = [len(row) for rows in chunks if rows is not None for row in rows]
        mean = sum(shared) / len(shared) if shared and None not in chunks else 0.0
        self._metrics["train" if self.model.training else "eval"]["engine/completions_per_row"].append(mean)
        if not self._logged_engine:
            self._logged_engine = True
            longest = max(len(prompt) for prompt in batch.prompts), max(len(one) for one in batch.completions)
            sharing = f"{mean:.3g} completions share a prompt" if mean else "stock rows are cheaper here"
            once = ", images are encoded once per generation batch" if self._encodes_once else ""
            logger.info("engine: prompts of up to %d tokens, completions of %d: %s%s", *longest, sharing, once)

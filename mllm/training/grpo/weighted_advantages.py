"""Joins `mllm.training.grpo.advantages` to TRL's GRPO trainer: difficulty of the prompt, mastery of the entity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mllm.config import Advantage
from mllm.errors import RecordError
from mllm.knowledge.mastery import LEVELS, MasteryTable, load_mastery
from mllm.models.checkpoint import Checkpoint, Loaded
from mllm.records import Sample
from mllm.rewards.iou import Reward as Iou
from mllm.training.grpo import advantages
from mllm.training.trl_adapter import TrlReward


@dataclass
class Weighing:
    """What a run weighs its advantages by. `table` is exchanged when mastery is estimated anew."""

    settings: Advantage
    measure: TrlReward
    table: MasteryTable | None

    @classmethod
    def build(cls, settings: Advantage, checkpoint: Checkpoint | Loaded, samples: Sequence[Sample]) -> Weighing:
        """Read the mastery file and check that it knows every entity.

        Raises:
            RecordError: no such file, or entities that it does not know (and `unknown` names no level for them).
        """
        table = None
        if settings.mastery is not None:
            table = load_mastery(settings.mastery.file)
            missing = table.missing(sample.entity for sample in samples if sample.boxes)
            if missing and settings.mastery.unknown is None:
                raise RecordError(
                    f"{settings.mastery.file}: {len(missing)} entities of the training data are not in it: "
                    f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}. Run eval/mastery.py on the same "
                    "data, or set advantage.mastery.unknown to a level"
                )
        return cls(settings, TrlReward("iou", Iou(), checkpoint), table)

    @property
    def refreshed(self) -> bool:
        """Whether mastery is to be asked anew while training."""
        return self.settings.mastery is not None and self.settings.mastery.refresh is not None

    def levels(self, samples: Sequence[Sample]) -> list[int | None]:
        """Return each sample's level as an index; None (weight 1) for things that are not in the image."""
        if self.table is None or self.settings.mastery is None:
            return [None] * len(samples)
        unknown = self.settings.mastery.unknown
        return [LEVELS.index(self.table.level(s.entity, unknown)) if s.boxes else None for s in samples]


class WeightedAdvantages:
    """Mixed into a GRPO trainer before TRL's class: multiplies the advantages of each batch it draws for training.

    `weighing` is set after the trainer is made; None changes nothing. Logged as `advantage/weight`, its mean.
    """

    weighing: Weighing | None = None
    _mean_iou_N: torch.Tensor | None = None

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Any:
        """Measure the group's mean IoU beside the rewards, which may be thresholded or not have an IoU at all."""
        trainer: Any = self
        if self.weighing is not None and self.weighing.settings.difficulty is not None and trainer.model.training:
            samples = [row["sample"] for row in inputs]
            values = self.weighing.measure(prompts, completions, completion_ids_list, samples)
            device = trainer.accelerator.device
            ious = torch.tensor([torch.nan if v is None else v for v in values], dtype=torch.float32, device=device)
            # A group's completions may lie on several processes, so means are taken over all of them, as TRL does.
            means = advantages.group_means(trainer.accelerator.gather(ious), trainer.num_generations)
            start = trainer.accelerator.process_index * len(samples)
            self._mean_iou_N = means[start : start + len(samples)]
        return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)  # pyright: ignore

    def _generate_and_score_completions(self, inputs: Any) -> Mapping[str, Any]:
        """Weigh the advantages that TRL normalised."""
        output = super()._generate_and_score_completions(inputs)  # pyright: ignore[reportAttributeAccessIssue]
        trainer: Any = self
        if self.weighing is not None and trainer.model.training:
            given = output["advantages"]
            weights_N = self._weights(given if given.dim() == 1 else given.sum(1), [row["sample"] for row in inputs])
            output["advantages"] = given * weights_N.view(-1, *[1] * (given.dim() - 1))
            trainer._metrics["train"]["advantage/weight"].append(trainer.accelerator.gather(weights_N).mean().item())
        return output

    def _weights(self, advantages_N: torch.Tensor, samples: Sequence[Sample]) -> torch.Tensor:
        """Return the product of all weights that are asked for."""
        assert self.weighing is not None
        settings, weights_N = self.weighing.settings, torch.ones_like(advantages_N)
        if settings.difficulty is not None:
            assert self._mean_iou_N is not None, "rewards were not calculated"
            weights_N = weights_N * advantages.difficulty(self._mean_iou_N, settings.difficulty).to(weights_N)
        if settings.mastery is not None:
            levels = self.weighing.levels(samples)
            weights_N = weights_N * advantages.entity(
                advantages_N, levels, settings.mastery.weights, settings.mastery.negative
            )
        return weights_N

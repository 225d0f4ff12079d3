"""Reinforcement learning with verifiable rewards: GRPO (Shao et al. 2024, arXiv 2402.03300).

    accelerate launch recipes/rl.py                                      # the pocket example, from runs/pocket/cot/best
    accelerate launch --config_file accelerate_config.yaml recipes/rl.py --config recipes/kvg_karl_qwen3vl_8b.yaml

How it differs from recipes/sft.py: rows have no completions. For each prompt the model writes `num_generations`
answers, the rewards score them, and answers better than their group's mean become more likely. Each prompt is read once
for all of its answers (docs/engine.md; `engine: stock` is TRL's own). The YAML chooses the rewards of mllm/rewards:

    fieldmark:
      rewards:
        format: {weight: 1}
        iou: {weight: 1, mode: threshold, tau: 0.5}
      advantage: {mastery: {file: mastery.json}}   # weights on advantages; none by default
      bags: {schedule: published}                  # captions: look-alikes share a batch, and bags grow (BagCurri)
      dynamic_sampling: drop                       # groups whose answers all earn the same

`model` is a folder that recipes/sft.py wrote: all weights, or an adapter, which is trained further.
"""

from __future__ import annotations

if __name__ == "__main__":
    from mllm import ctrl_c

    ctrl_c.end_at_once()  # while the imports below run

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mllm.config import Settings
from mllm.errors import ConfigError, FieldmarkError
from mllm.models.checkpoint import Loaded
from mllm.records import Sample
from mllm.rewards import BaseReward
from mllm.training import arguments, recipe, run, trl_adapter
from mllm.training.checkpointing import SafeTrainer
from mllm.training.dataset import make_pocket_data
from mllm.training.grpo import bag_curriculum
from mllm.training.grpo.bag_curriculum import BagStages
from mllm.training.grpo.dynamic_sampling import DynamicSampling
from mllm.training.grpo.mastery_refresh import MasteryRefresh
from mllm.training.grpo.step_credit import StepCredit
from mllm.training.grpo.trainer import PrefixGRPOTrainer
from mllm.training.grpo.vllm_check import RolloutCheck, no_image_tokens
from mllm.training.grpo.weighted_advantages import AdvantageWeights
from mllm.training.health import HealthChecks
from mllm.training.live_page import LivePage, Rollouts

from trl import GRPOConfig  # isort: skip  (after mllm.training, which switches its telemetry off)

logger = logging.getLogger("mllm.recipes.rl")

DEFAULT = Path(__file__).with_name("rl.yaml")


class Trainer(SafeTrainer, PrefixGRPOTrainer):
    """TRL's GRPO trainer with exact checkpoints; it reads each prompt once."""


def main(argv: list[str] | None = None) -> None:
    if arguments.wants_help(argv):
        print(arguments.manual(__doc__, GRPOConfig))
        return

    # 1. Settings, and the rewards that they name.
    settings, args = arguments.read(argv, DEFAULT, GRPOConfig)
    arguments.start(settings)
    rewards = run.load_rewards(settings, Path(args.output_dir or "."))
    args.reward_weights = [weight for _, weight in rewards.values()]
    check_model(settings)
    make_pocket_data(settings)
    check_tables(settings)

    # 2. All checks, before the weights are loaded.
    prepared = run.prepare(settings, args, answers=False, max_completion_length=args.max_completion_length or 0)
    if prepared.finished:
        return
    samples = [row.record for row in prepared.data.train if isinstance(row.record, Sample)]
    for reward, _ in rewards.values():
        reward.check(samples)
    recipe.check_generation_batch(str(args.output_dir), args, len(prepared.data.train))
    dynamic_sampling = checked_sampling(settings, args, prepared.data.train)
    logger.info("%d prompts, %d answers to each", len(prepared.data.train), args.num_generations)

    # 3. What SFT does not have: bags, changed advantages, health checks, and rewards that report to them.
    sampler = bag_curriculum.sampler(settings.bags, samples, args) if settings.bags else None
    stages = BagStages(sampler, prepared.run_state) if sampler else None
    mastery = settings.advantage.mastery if settings.advantage else None
    weights = AdvantageWeights.build(mastery, samples) if mastery else None
    health, rollouts = HealthChecks(prepared.run_state), Rollouts.of(prepared.data.train)
    loaded = run.load_model(settings, prepared.checkpoint, args)
    step_credit = settings.advantage.step_credit if settings.advantage else None
    credit = StepCredit(step_credit, loaded.processor.tokenizer) if step_credit else None

    # 4. Train and save.
    no_image_tokens(args, loaded.processor)
    rows = trl_adapter.dataset(prepared.data.train, loaded.convention, answers=False, bags=sampler)
    trainer = Trainer(
        model=loaded.model,
        reward_funcs=reward_functions(
            rewards, loaded, [one.add for one in (rollouts, stages, credit) if one is not None]
        ),
        args=args,
        train_dataset=rows,
        processing_class=loaded.processor,
        engine=settings.engine,
        dynamic_sampling=dynamic_sampling,
        sampler=sampler,
        reweight=weights,
        credit=credit,
        run_state=prepared.run_state,
        write_card=prepared.write_card,
    )
    callbacks = [health, LivePage(trainer, Path(str(args.output_dir)), rollouts, health)]
    callbacks += [stages] if stages else []
    callbacks += [RolloutCheck(trainer, rows[0])] if args.use_vllm else []
    if weights and mastery and mastery.refresh:
        callbacks.append(MasteryRefresh(trainer, weights, prepared.checkpoint, prepared.data.train, mastery.refresh))
    run.train(trainer, settings, prepared, callbacks)


def reward_functions(
    rewards: Mapping[str, tuple[BaseReward, float]], loaded: Loaded, listeners: Sequence[trl_adapter.Listener]
) -> list[Any]:
    """Return the rewards as TRL calls them. All report to the listeners: live page, bag curriculum, step credit."""
    return [
        trl_adapter.TrlReward(name, reward, loaded, count_problems=not index, listeners=listeners)
        for index, (name, (reward, _)) in enumerate(rewards.items())
    ]


def checked_sampling(settings: Settings, args: GRPOConfig, rows: Sequence[trl_adapter.Row]) -> DynamicSampling | None:
    """Return what is done with groups without advantage, after a check that the settings allow it."""
    if settings.dynamic_sampling == "off":
        return None
    made = DynamicSampling(settings.dynamic_sampling, settings.resample_rounds)
    made.check(args, rows)
    return made


def check_tables(settings: Settings) -> None:
    """Refuse tables that are missing."""
    for file in settings.tables:
        if not file.is_file():
            raise ConfigError(f"{file}: no such file (eval/mastery.py makes mastery files, data_synth/bags.py bags)")


def check_model(settings: Settings) -> None:
    """Refuse a pocket model that has to be trained first."""
    if settings.model.startswith("runs/pocket/") and not Path(settings.model).is_dir():
        made_by = [file.name for file in sorted(DEFAULT.parent.glob("*.yaml")) if recipe.makes(file, settings.model)]
        flags = "".join(f" --config recipes/{name}" for name in made_by[:1])
        raise FieldmarkError(
            f"{settings.model}: not there yet; make it first with `accelerate launch recipes/sft.py{flags}`"
        )


if __name__ == "__main__":
    run.program(main)

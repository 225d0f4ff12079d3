"""Reinforcement learning with verifiable rewards: GRPO (Shao et al. 2024, arXiv 2402.03300) on the model's own answers.

    accelerate launch recipes/rl.py                                      # the pocket example, from runs/pocket/cot/best
    accelerate launch --config_file accelerate_config.yaml recipes/rl.py --config recipes/kvg_karl_qwen3vl_8b.yaml

For each prompt TRL's GRPOTrainer draws `num_generations` answers, the rewards score them, and answers better than their
group's mean become likelier. The prompt is read once for all of its answers (docs/engine.md; `engine: stock` is TRL as
it is). Rewards are files of mllm/rewards, chosen and weighted in the YAML:

    fieldmark:
      rewards:
        format: {weight: 1}
        iou: {weight: 1, mode: threshold, tau: 0.5}
      advantage: {difficulty: univg}   # weights laid on after the group normalisation; none by default
      bags: {schedule: published}      # captions: look-alikes stay in one batch, and bags grow (BagCurri)

`model` is a folder that recipes/sft.py wrote: whole weights, or an adapter, which is trained further. Everything else
is as in recipes/sft.py: one YAML, flags win, rows are refused, never cut, a stopped run goes on.
"""

from __future__ import annotations

import logging
from pathlib import Path

from mllm.errors import ConfigError, FieldmarkError
from mllm.records import Sample
from mllm.training import arguments, recipe, run, trl_adapter
from mllm.training.callbacks import FiniteLoss
from mllm.training.checkpointing import WholeCheckpoints
from mllm.training.example_data import make_pocket_data
from mllm.training.grpo import bag_curriculum
from mllm.training.grpo.bag_curriculum import BagBatches, Stages
from mllm.training.grpo.mastery_refresh import MasteryRefresh
from mllm.training.grpo.trainer import PrefixGRPOTrainer
from mllm.training.grpo.vllm_check import RolloutCheck, no_image_tokens
from mllm.training.grpo.weighted_advantages import Weighing, WeightedAdvantages
from mllm.training.health import Alarms
from mllm.training.live_page import LivePage, Rollouts

from trl import GRPOConfig  # isort: skip  (after mllm.training, which switches its telemetry off)

logger = logging.getLogger("mllm.recipes.rl")

DEFAULT = Path(__file__).with_name("rl.yaml")


class Trainer(WholeCheckpoints, FiniteLoss, BagBatches, WeightedAdvantages, PrefixGRPOTrainer):
    """TRL's trainer, which reads each prompt once, stops at a loss that is no number, and where it is asked to weighs
    advantages and keeps look-alike images together."""


def main(argv: list[str] | None = None) -> None:
    if arguments.wants_help(argv):
        print(arguments.manual(__doc__, GRPOConfig))
        return

    # 1. What is asked for.
    settings, args = arguments.read(argv, DEFAULT, GRPOConfig)
    arguments.start(settings)
    rewards = run.load_rewards(settings, Path(args.output_dir or "."))
    for file in settings.tables:
        if not file.is_file():
            raise ConfigError(f"{file}: no such file (eval/mastery.py makes mastery files, data_synth/bags.py bags)")
    args.reward_weights = [weight for _, weight in rewards.values()]
    make_pocket_data(settings)
    if settings.model.startswith("runs/pocket/") and not Path(settings.model).is_dir():
        made_by = [file.name for file in sorted(DEFAULT.parent.glob("*.yaml")) if recipe.makes(file, settings.model)]
        how = "".join(f" --config recipes/{name}" for name in made_by[:1])
        raise FieldmarkError(
            f"{settings.model}: not there yet; make it first with `accelerate launch recipes/sft.py{how}`"
        )

    # 2. Everything that can be wrong, before the weights are read.
    prepared = run.prepare(settings, args, answers=False, room=args.max_completion_length)  # pyright: ignore[reportArgumentType]
    if prepared.finished:
        return
    samples = [row.record for row in prepared.data.train if isinstance(row.record, Sample)]
    for reward, _ in rewards.values():
        reward.check(samples)
    weighing = Weighing.build(settings.advantage, prepared.checkpoint, samples) if settings.advantage else None
    bags = bag_curriculum.sampler(settings.bags, samples, args) if settings.bags else None
    logger.info("%d prompts, %d answers to each", len(prepared.data.train), args.num_generations)

    # 3. The model; the prompts and rewards as TRL wants them.
    loaded = run.load_model(settings, prepared.checkpoint, args)
    rows = trl_adapter.dataset(prepared.data.train, loaded.convention, answers=False, bags=bags)
    functions = [
        trl_adapter.TrlReward(name, reward, loaded, count_problems=index == 0)
        for index, (name, (reward, _)) in enumerate(rewards.items())
    ]

    # 4. Train and save.
    no_image_tokens(args, loaded.processor)
    trainer = Trainer(
        model=loaded.model,
        reward_funcs=functions,  # pyright: ignore[reportArgumentType]
        args=args,
        train_dataset=rows,
        processing_class=loaded.processor,
        engine=settings.engine,
        dynamic_sampling=settings.dynamic_sampling,
        resample_rounds=settings.resample_rounds,
    )
    trainer.weighing = weighing
    if weighing is not None and weighing.refreshed:
        trainer.add_callback(MasteryRefresh(trainer, weighing, prepared.checkpoint, prepared.data.train))
    if bags is not None:
        trainer.bags, stages = bags, Stages(bags, prepared.resume_from)
        trainer.add_callback(stages)
        for function in functions:
            function.heard = stages.heard if function.__name__ == "self_retrieval" else None
    images = {row.record.id: row.image for row in prepared.data.train if isinstance(row.record, Sample) and row.image}
    alarms, rollouts = Alarms(), Rollouts(images)
    trainer.add_callback(alarms)
    for function in functions:
        function.shown = rollouts.hear
    if args.use_vllm:
        trainer.add_callback(RolloutCheck(trainer, rows[0]))
    live = LivePage(trainer, Path(str(args.output_dir)), rollouts, alarms)
    run.train(trainer, settings, prepared, live)


if __name__ == "__main__":
    run.program(main)

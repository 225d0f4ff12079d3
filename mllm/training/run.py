"""The parts of a training run that SFT and RL share: checking, going on, training, saving."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import PrinterCallback, ProgressCallback, Trainer
from transformers.integrations import is_deepspeed_zero3_enabled

from mllm.config import Part, Settings
from mllm.distributed import World, main_process_only
from mllm.errors import ConfigError, FieldmarkError
from mllm.io.files import atomic_write
from mllm.models.checkpoint import Checkpoint, Loaded, LoadOptions, load, open_checkpoint
from mllm.models.families import CONVENTION_FILE, write_convention
from mllm.models.parts import trainable_by_part
from mllm.models.processors import template_opening
from mllm.rewards import BaseReward
from mllm.rewards import load_all as rewards_by_name
from mllm.training import dataset, heartbeat, resume
from mllm.training.callbacks import Completeness, Journal, OrderlyStop
from mllm.training.checkpointing import Boundaries, Memory
from mllm.training.dataset import Data
from mllm.training.engine.pixel_cache import remember_pixels
from mllm.training.grpo import bag_curriculum
from mllm.training.health import Alarms
from mllm.training.live_page import LivePage
from mllm.training.run_card import Card
from mllm.training.validation import GeneratedEval

logger = logging.getLogger(__name__)

VECTORS = "vectors"
"""Folder in a run's folder with the vectors of images that rewards have looked at."""
NO_ROOM = (
    "`fieldmark preflight --config FILE -- FLAGS` works memory out for the longest batch and names the mildest change "
    "that fits. Mostly: per_device_train_batch_size lower and gradient_accumulation_steps higher by as much, "
    "gradient_checkpointing: true, lower visual_tokens, evaluate.batch_size or (GRPO) max_completion_length, "
    "quantize: 4bit with lora"
)
"""What a person can do where the memory of a card is too small."""
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""What is wrong with a disk that cannot be written on."""


@dataclass(frozen=True)
class Prepared:
    """A run that passed its checks: what it starts from, its data, and the checkpoint it goes on from, if any.

    `finished` says that the checkpoint stands at the end already.
    """

    checkpoint: Checkpoint
    data: Data
    resume_from: Path | None
    card: Card
    finished: bool = False


def prepare(settings: Settings, args: Any, *, answers: bool, room: int = 0) -> Prepared:
    """Check all that can be checked without weights, and find out whether the run goes on.

    Args:
        settings: ours.
        args: TRL's.
        answers: rows are trained on with their answers (SFT).
        room: tokens to keep free for a completion (RL).

    Raises:
        FieldmarkError: see `preflight`, `open_checkpoint` and `resume`.
    """
    main_process_only(lambda: _check_folder(Path(args.output_dir)))
    resume_from = resume.checkpoint_to_resume(Path(args.output_dir), settings.resume)
    checkpoint = open_checkpoint(
        settings.model,
        family=settings.family,
        style=settings.style,
        visual_tokens=settings.visual_tokens,
        min_visual_tokens=settings.min_visual_tokens,
    )
    if template_opening(checkpoint.processor, checkpoint.convention.prompt):
        logger.info("the chat template opens the thought itself: what is written is read as if it began with <think>")
    data = dataset.read_data(settings, answers=answers, check_images=PartialState().is_main_process)
    main_process_only(lambda: dataset.check_rows(data, checkpoint, settings, answers=answers, room=room))
    _check_sharding(data)
    _check_precision(settings, args, adapters=settings.lora is not None or checkpoint.adapter is not None)
    now = resume.describe(settings, args, [*settings.train, *settings.mix, *settings.tables])
    if resume_from is not None:
        main_process_only(lambda: resume.check_same(Path(args.output_dir), now))
        logger.info("going on from %s", resume_from)
    main_process_only(lambda: resume.write_run(Path(args.output_dir), now))
    card = Card.of(settings, args, checkpoint, data)
    finished = resume_from is not None and resume.is_finished(resume_from, args.max_steps)
    if finished:
        main_process_only(lambda: _settle(Path(args.output_dir), resume_from, card))  # pyright: ignore[reportArgumentType]
    return Prepared(checkpoint, data, resume_from, card, finished)


def load_rewards(settings: Settings, output_dir: Path | None = None) -> dict[str, tuple[BaseReward, float]]:
    """Build the rewards of an RL run, each with its weight.

    Rewards that look at images keep their vectors in `output_dir` where they name no `cache`: a vector made again
    after a stop, in other company, would differ in its last digits.

    Raises:
        ConfigError: none at all, an unknown one, a wrong field, one whose style is not the prompt's, or one over bags
            where there are none.
    """
    rewards = rewards_by_name(settings.rewards)
    if not rewards:
        raise ConfigError("no rewards: name at least one under `rewards`, for example `iou: {weight: 1}`")
    for name, (reward, _) in list(rewards.items()):
        if getattr(reward, "style", settings.style) != settings.style:
            raise ConfigError(
                f"rewards.{name}.style is not the prompt's style, {settings.style!r}: it would punish what is asked"
            )
        if output_dir is not None and getattr(reward, "cache", "none") is None:
            rewards[name] = replace(reward, cache=str(output_dir / VECTORS)), rewards[name][1]  # pyright: ignore
    bag_curriculum.check(settings, {name: reward for name, (reward, _) in rewards.items()})
    return rewards


def load_model(settings: Settings, checkpoint: Checkpoint, args: Any) -> Loaded:
    """Load the weights that will be trained, and say what is trained of them."""
    from transformers import set_seed

    set_seed(args.seed)  # fresh adapters are random
    flags: dict[Part, bool] = {
        "vision": settings.freeze_vision,
        "projector": settings.freeze_projector,
        "llm": settings.freeze_llm,
    }
    if checkpoint.adapter is not None:
        logger.info("the adapter %s is trained further, at its own rank; `lora` is not looked at", checkpoint.adapter)
    loaded = load(
        checkpoint,
        LoadOptions(settings.dtype, attention=settings.attention, quantize=settings.quantize),
        freeze=[part for part, frozen in flags.items() if frozen],
        lora=settings.lora,
        trainable=True,
    )
    if remember_pixels(loaded.processor, folder=settings.pixel_cache) is None and settings.pixel_cache is not None:
        raise ConfigError(
            f"pixel_cache: images of {type(loaded.processor.image_processor).__name__} cannot be kept (only patches "
            "with a grid, as in the Qwen-VL lines); leave it out"
        )
    if args.device.type == "cpu":
        from mllm.models import cpu_kernels

        cpu_kernels.use_fast_kernels(loaded.model)  # a step takes less than half the time; same mathematics
        cpu_kernels.keep_memory()
    for part, (trained, total) in sorted(trainable_by_part(loaded.model).items()):
        logger.info("%-9s  %12s of %12s parameters are trained", part, f"{trained:,}", f"{total:,}")
    return loaded


def train(trainer: Trainer, settings: Settings, prepared: Prepared, live: LivePage | None = None) -> None:
    """Train with journal, live page, generated evaluation, whole checkpoints and orderly stop; save the last weights.

    Exits with code 130 when it was stopped before its end: nobody must take these weights for finished ones.
    """
    output_dir = Path(trainer.args.output_dir or ".")
    stop = OrderlyStop()
    for chatty in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(chatty)
    trainer.add_callback(Journal(output_dir))
    if live is not None:
        trainer.add_callback(live)
    trainer.add_callback(Memory(_memories(trainer), prepared.resume_from))
    trainer.add_callback(Completeness(prepared.checkpoint.convention))
    card, watched = prepared.card, None
    if prepared.data.validation:
        root = prepared.data.images_root
        watched = GeneratedEval(trainer, prepared.checkpoint, prepared.data.validation, root, settings.evaluate, card)
        trainer.add_callback(watched)
    trainer.write_card = lambda folder: card.write(folder, watched.last if watched else None)  # pyright: ignore
    trainer.add_callback(stop)
    if (watch := heartbeat.watching()) is not None:
        trainer.add_callback(heartbeat.Pulse(watch))
    trainer.add_callback(Boundaries(getattr(trainer, "window", 1)))
    trainer.train(resume_from_checkpoint=str(prepared.resume_from) if prepared.resume_from else None)
    if stop.stopped:
        raise SystemExit(130)
    trainer.save_model(str(output_dir), _internal_call=True)  # pushed below, when all that belongs to it is there
    if trainer.is_world_process_zero():
        card.write(output_dir, watched.last if watched else None)
        write_convention(output_dir, prepared.checkpoint.convention)
        logger.info("saved %s", output_dir)
    if trainer.args.push_to_hub:
        trainer.push_to_hub(commit_message="End of training")


def _memories(trainer: Any) -> dict[str, Any]:
    """Return what the trainer and its alarms would forget in a stop, each with how to read it and to put it back."""
    parts: dict[str, Any] = {
        "tokens": (
            lambda: trainer._total_train_tokens,
            lambda held: setattr(trainer, "_total_train_tokens", held),
        )
    }
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, Alarms):
            parts["alarms"] = (callback.remembered, callback.restore)
    return parts


def program(main: Callable[[], None]) -> None:
    """Run a program; what a person can put right ends it with one line (of the first process), not a traceback."""
    try:
        main()
    except FieldmarkError as error:
        speaks = World.current().rank == 0 or isinstance(error, heartbeat.LaunchError)
        sys.exit(f"error: {error}" if speaks else 1)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        sys.exit(f"error: {error}. Make room, or name a folder that can be written in; earlier checkpoints are whole")
    except torch.OutOfMemoryError as error:
        sys.exit(f"error: {str(error).splitlines()[0]}\n{NO_ROOM}")
    except RuntimeError as error:
        if not heartbeat.is_about_another(error):
            raise
        rank = World.current().rank
        sys.exit(f"error: rank {rank} lost its connection to another process, which ended first: {error}")
    finally:
        heartbeat.end()
        if torch.distributed.is_initialized():  # gloo's threads may outlive the interpreter otherwise, and abort it
            torch.distributed.destroy_process_group()


def _settle(output_dir: Path, last: Path, card: Card) -> None:
    """Say that a run is finished, after seeing that its last weights are where they belong."""
    if not (output_dir / CONVENTION_FILE).is_file():
        resume.take_weights(last, output_dir)
        card.write(output_dir)
    logger.info("%s is finished already; choose another --output_dir, or more steps, to train on", output_dir)


def _check_folder(output_dir: Path) -> None:
    """Refuse an output folder that cannot be written in, before anything costs time."""
    try:
        with atomic_write(output_dir / ".writable"):
            pass
        (output_dir / ".writable").unlink()
    except OSError as error:
        raise FieldmarkError(
            f"{output_dir}: nothing can be written there ({error}); name another --output_dir"
        ) from error


def _check_sharding(data: Data) -> None:
    """Refuse rows without an image under ZeRO-3: a process whose batch has none waits for the others for ever."""
    blind = [row.record.id for row in data.train if row.image is None]
    if blind and is_deepspeed_zero3_enabled():
        raise FieldmarkError(
            f"{len(blind)} rows have no image ({blind[0]}, ...), which hangs under ZeRO-3; use ZeRO-2 "
            f"(accelerate_config.yaml), or leave `mix` out"
        )


def _check_precision(settings: Settings, args: Any, *, adapters: bool) -> None:
    """Warn where small updates would be lost in bfloat16 weights."""
    if settings.dtype != "float32" and not adapters and getattr(args, "deepspeed_plugin", None) is None:
        logger.warning(
            "dtype %s without DeepSpeed and without lora: the weights themselves are updated in %s, which loses small "
            "steps; set dtype: float32 (with bf16: true for speed)",
            settings.dtype, settings.dtype,
        )  # fmt: skip

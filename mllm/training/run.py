"""What SFT and RL runs share: checks, resuming, training, saving."""

import errno
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import torch
from accelerate import PartialState
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, set_seed
from transformers.integrations import is_deepspeed_zero3_enabled

from mllm import ctrl_c
from mllm.config import Part, Settings
from mllm.distributed import World, main_process_only
from mllm.errors import ConfigError, ExitCode, FieldmarkError
from mllm.io.files import DISK_FULL, atomic_write, disk_full
from mllm.models import cpu_kernels
from mllm.models.checkpoint import Checkpoint, Loaded, LoadOptions, load, open_checkpoint
from mllm.models.families import CONVENTION_FILE, write_convention
from mllm.models.parts import trainable_by_part
from mllm.models.processors import template_opening
from mllm.rewards import BaseReward
from mllm.rewards import load_all as rewards_by_name
from mllm.training import callback_order, dataset, heartbeat, resume
from mllm.training.callbacks import Completeness, Journal, OrderlyStop
from mllm.training.checkpointing import Boundaries, RunState
from mllm.training.dataset import Data
from mllm.training.engine.image_memory import remember_images
from mllm.training.grpo import bag_curriculum
from mllm.training.model_card import ModelFacts
from mllm.training.validation import GeneratedEval

logger = logging.getLogger(__name__)

OUT_OF_MEMORY = (
    "`fieldmark preflight --config FILE -- FLAGS` estimates memory for the longest batch and names the smallest change "
    "that fits. Usually: lower per_device_train_batch_size and raise gradient_accumulation_steps by the same factor, "
    "gradient_checkpointing: true, lower visual_tokens, evaluate.batch_size or (GRPO) max_completion_length, "
    "quantize: 4bit with lora"
)


@dataclass(frozen=True)
class Prepared:
    """A run that passed its checks. `resume_from` is the checkpoint to continue from, `finished` if it is the last one;
    `scores` are those of the latest generated evaluation, for the model card."""

    checkpoint: Checkpoint
    data: Data
    resume_from: Path | None
    card: ModelFacts
    finished: bool = False
    run_state: RunState = field(default_factory=RunState)
    scores: dict[str, float] = field(default_factory=dict)

    def write_card(self, folder: Path) -> None:
        """Write the run's model card into a folder."""
        self.card.write(folder, self.scores or None)


def prepare(settings: Settings, args: Any, *, answers: bool, max_completion_length: int = 0) -> Prepared:
    """Check all that can be checked without weights, and find the checkpoint to resume from.

    `args` are TRL's. `answers`: rows are trained on with their answers (SFT); `max_completion_length`: tokens to
    reserve for a completion (RL).

    Raises:
        FieldmarkError: see `dataset`, `open_checkpoint` and `resume`.
    """
    output_dir = Path(args.output_dir)
    checkpoint = open_checkpoint(  # first: a mistyped name leaves no empty folder behind
        settings.model,
        family=settings.family,
        style=settings.style,
        visual_tokens=settings.visual_tokens,
        min_visual_tokens=settings.min_visual_tokens,
    )
    main_process_only(lambda: _check_folder(output_dir))
    resume_from = resume.checkpoint_to_resume(output_dir, settings.resume)
    if template_opening(checkpoint.processor):
        logger.info("the chat template opens the thought, so completions are parsed as if they began with <think>")
    data = dataset.read_data(settings, answers=answers, check_images=PartialState().is_main_process)
    main_process_only(
        lambda: dataset.check_rows(
            data, checkpoint, settings, answers=answers, max_completion_length=max_completion_length
        )
    )
    _check_sharding(data)
    _check_precision(settings, args, adapters=settings.lora is not None or checkpoint.adapter is not None)
    facts = resume.describe(settings, args, [*settings.train, *settings.mix, *settings.tables])
    if resume_from is not None:
        main_process_only(lambda: resume.check_same(output_dir, facts))
        logger.info("continuing from %s", resume_from)
    main_process_only(lambda: resume.write_run(output_dir, facts))
    card = ModelFacts.of(settings, args, checkpoint, data)
    finished = resume_from is not None and resume.is_finished(resume_from, args.max_steps)
    if finished:
        main_process_only(lambda: _finish(output_dir, resume_from, card))  # pyright: ignore[reportArgumentType]
    return Prepared(checkpoint, data, resume_from, card, finished, RunState(resume_from))


def load_rewards(settings: Settings, output_dir: Path | None = None) -> dict[str, tuple[BaseReward, float]]:
    """Build the rewards of an RL run, each with its weight.

    Rewards that encode images and set no `cache` keep their vectors in `output_dir`: a vector that is computed again
    after a stop, in another batch, would differ in its last digits.

    Raises:
        ConfigError: no rewards, an unknown one, a wrong field, one whose style is not the prompt's, or one over bags
            without a `bags` section.
    """
    rewards = rewards_by_name(settings.rewards)
    if not rewards:
        raise ConfigError("no rewards: name at least one under `rewards`, for example `iou: {weight: 1}`")
    for name, (reward, _) in list(rewards.items()):
        if getattr(reward, "style", settings.style) != settings.style:
            raise ConfigError(
                f"rewards.{name}.style is not the prompt's style, {settings.style!r}: it would penalise what the "
                "prompt asks for"
            )
        if output_dir is not None and getattr(reward, "cache", "none") is None:
            rewards[name] = replace(reward, cache=str(output_dir / "vectors")), rewards[name][1]  # pyright: ignore
    bag_curriculum.check(settings, {name: reward for name, (reward, _) in rewards.items()})
    return rewards


def load_model(settings: Settings, checkpoint: Checkpoint, args: Any) -> Loaded:
    """Load the weights, and log how many parameters of each part are trained."""
    set_seed(args.seed)  # fresh adapters are random
    parts: tuple[Part, ...] = get_args(Part)
    if checkpoint.adapter is not None:
        logger.info("the adapter %s is trained further, at its own rank; `lora` is ignored", checkpoint.adapter)
    loaded = load(
        checkpoint,
        LoadOptions(settings.dtype, attention=settings.attention, quantize=settings.quantize),
        freeze=[part for part in parts if getattr(settings, f"freeze_{part}")],
        lora=settings.lora,
        trainable=True,
    )
    remember_images(loaded.processor)
    if args.device.type == "cpu":
        cpu_kernels.use_fast_kernels(loaded.model)  # same results; with kept memory, less than half the time of a step
        cpu_kernels.keep_memory()
    for part, (trained, total) in sorted(trainable_by_part(loaded.model).items()):
        logger.info("%-9s  %12s of %12s parameters are trained", part, f"{trained:,}", f"{total:,}")
    return loaded


def train(trainer: Any, settings: Settings, prepared: Prepared, callbacks: Sequence[TrainerCallback] = ()) -> None:
    """Train, and save the last weights. `callbacks` are the recipe's own; `training_callbacks` adds the others.

    Raises KeyboardInterrupt: the run was stopped before its end. Its weights are not to be taken for finished ones.
    """
    output_dir, stop = Path(trainer.args.output_dir), OrderlyStop()
    for verbose in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(verbose)
    for callback in training_callbacks(trainer, settings, prepared, [stop, *callbacks]):
        trainer.add_callback(callback)
    callback_order.check_order(trainer.callback_handler.callbacks)
    trainer.train(resume_from_checkpoint=str(prepared.resume_from) if prepared.resume_from else None)
    if stop.stopped:
        raise KeyboardInterrupt
    if not trainer.state.global_step:
        raise ConfigError(
            f"{output_dir}: not a single step was taken, so nothing is saved: set max_steps or num_train_epochs "
            "above 0, or supply more rows"
        )
    if trainer.is_world_process_zero():  # written last: it marks the folder as complete, and says so of older weights
        (output_dir / CONVENTION_FILE).unlink(missing_ok=True)
    trainer.save_model(str(output_dir), _internal_call=True)  # pushed below, together with the files beside it
    if trainer.is_world_process_zero():
        prepared.write_card(output_dir)
        write_convention(output_dir, prepared.checkpoint.convention)
        logger.info("saved %s", output_dir)
    if trainer.args.push_to_hub:
        trainer.push_to_hub(commit_message="End of training")


def training_callbacks(
    trainer: Trainer, settings: Settings, prepared: Prepared, own: Sequence[TrainerCallback]
) -> list[TrainerCallback]:
    """Return a run's callbacks in the order of `callback_order.ORDER`: a recipe's `own`, and those of every run."""
    made: list[TrainerCallback] = [
        *own,
        Journal(Path(trainer.args.output_dir or ".")),
        prepared.run_state,
        Completeness(prepared.checkpoint.convention),
        Boundaries(trainer),
    ]
    if prepared.data.validation:
        checkpoint, data, card = prepared.checkpoint, prepared.data, prepared.card
        made.append(GeneratedEval(trainer, checkpoint, data, settings.evaluate, card, prepared.scores))
    return callback_order.in_order(made)


def program(main: Callable[[], None]) -> None:
    """Run a program; an error that its user can fix ends it with one line (of the first process), not a traceback."""
    try:
        ctrl_c.run(main)
    except FieldmarkError as error:
        is_launch = isinstance(error, heartbeat.LaunchError)
        if World.current().is_main or is_launch:
            sys.stderr.write(f"error: {error}\n")
        raise SystemExit(ExitCode.FAILED if is_launch else ExitCode.USAGE) from None
    except OSError as error:
        if error.errno not in (*DISK_FULL, errno.EROFS):
            raise
        line = disk_full(error) if error.errno in DISK_FULL else f"{error}. Name a writable folder"
        sys.exit(f"error: {line}; earlier checkpoints are complete")
    except torch.OutOfMemoryError as error:
        sys.exit(f"error: {str(error).splitlines()[0]}\n{OUT_OF_MEMORY}")
    except RuntimeError as error:
        if not heartbeat.is_lost_connection(error):
            raise
        rank = World.current().rank
        sys.exit(f"error: rank {rank} lost its connection to another process, which ended first: {error}")
    finally:
        heartbeat.end()
        if torch.distributed.is_initialized():  # gloo's threads could outlive the interpreter and abort it
            torch.distributed.destroy_process_group()


def _finish(output_dir: Path, last: Path, card: ModelFacts) -> None:
    """Report that a run is finished; first copy its last weights to the run's folder if they are missing there."""
    if not (output_dir / CONVENTION_FILE).is_file():
        resume.take_weights(last, output_dir)
        card.write(output_dir)
    logger.info("%s is finished; choose another --output_dir, or more steps, to train on", output_dir)


def _check_folder(output_dir: Path) -> None:
    """Refuse an output folder that is not writable, before anything takes time."""
    try:
        with atomic_write(output_dir / ".writable"):
            pass
        (output_dir / ".writable").unlink()
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        raise FieldmarkError(f"{output_dir}: not writable ({error}); name another --output_dir") from error


def _check_sharding(data: Data) -> None:
    """Refuse rows without an image under ZeRO-3: a process whose batch has none would block the others."""
    imageless = [row.record.id for row in data.train if row.image is None]
    if imageless and is_deepspeed_zero3_enabled():
        raise FieldmarkError(
            f"{len(imageless)} rows have no image ({imageless[0]}, ...), which would hang under ZeRO-3; use ZeRO-2 "
            f"(accelerate_config.yaml), or remove `mix`"
        )


def _check_precision(settings: Settings, args: Any, *, adapters: bool) -> None:
    if settings.dtype != "float32" and not adapters and getattr(args, "deepspeed_plugin", None) is None:
        logger.warning(
            "dtype %s without DeepSpeed and without lora: the weights are updated in %s, which loses small steps; set "
            "dtype: float32 (with bf16: true for speed)",
            settings.dtype, settings.dtype,
        )  # fmt: skip

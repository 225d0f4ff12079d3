"""Joins `mllm.training.grpo.bag_sampler` to TRL's GRPO trainer: whole bags in a batch, and stages that survive a stop."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from mllm import config
from mllm.data import bags
from mllm.distributed import gather
from mllm.errors import ConfigError, FieldmarkError
from mllm.io.files import atomic_write
from mllm.records import Sample, Score
from mllm.rewards import BaseReward
from mllm.training.checkpointing import epoch_of
from mllm.training.grpo.bag_sampler import PUBLISHED, BagSampler, Schedule

logger = logging.getLogger(__name__)

STATE_FILE = "bag_state.json"


def check(settings: config.Settings, rewards: Mapping[str, BaseReward]) -> None:
    """Refuse rewards over bags where no batch holds bags, and stages that end by a number that nobody measures.

    Raises:
        ConfigError: names the field.
    """
    over = {name: getattr(reward, "over", "batch") for name, reward in rewards.items()}
    for name, pool in over.items():
        if pool != "batch" and settings.bags is None:
            raise ConfigError(
                f"rewards.{name}.over: {pool} scores images that came with their bag, and batches are drawn without "
                "regard to bags: add a `bags` section, or set over: batch"
            )
    if settings.bags is not None and settings.bags.saturation is not None and "self_retrieval" not in rewards:
        raise ConfigError("bags.saturation looks at the hits of the reward self_retrieval, which is not among rewards")


def sampler(settings: config.Bags, samples: Sequence[Sample], args: Any) -> BagSampler:
    """Build the sampler of a run.

    Args:
        settings: which bags, and which size when.
        samples: the training rows, in order.
        args: TRL's: generation_batch_size (of all processes), num_generations, steps_per_generation, num_iterations,
            seed.

    Raises:
        ConfigError: rows that want no caption; a size without bags, or above the batch; see `Schedule`.
        RecordError: a bag file that does not fit the samples.
    """
    other = next((sample for sample in samples if sample.task != "caption"), None)
    if other is not None:
        raise ConfigError(f"bags: sample {other.id} has task {other.task!r}, and bags are of images to caption")
    stages = PUBLISHED if settings.schedule == "published" else settings.schedule
    schedule = Schedule(stages, settings.saturation)
    return BagSampler(
        rows=len(samples),
        bags=by_size(settings, samples, sorted({size for _, size in stages})),
        schedule=schedule,
        batch=args.generation_batch_size // args.num_generations,
        generations=args.num_generations,
        repeats=args.num_iterations * args.steps_per_generation,
        seed=args.seed,
    )


def by_size(settings: config.Bags, samples: Sequence[Sample], sizes: Sequence[int]) -> dict[int, list[tuple[int, ...]]]:
    """Return the bags of each size as row numbers: those of the files, or cut out of the rows that share `bag`."""
    row_of = {sample.id: row for row, sample in enumerate(samples)}
    found = bags.read(settings.files) if settings.files else bags.shared(samples)
    bags.check(found, list(row_of))
    named = {
        size: [bag for bag in found if len(bag.members) == size]
        if settings.files
        else bags.chop([bag.members for bag in found], size, "cut")
        for size in sizes
    }
    return {size: [tuple(row_of[name] for name in bag.members) for bag in made] for size, made in named.items()}


class BagBatches:
    """Mixed into a GRPO trainer before TRL's class: `bags`, set after the trainer is made, decides who sits together.

    None leaves TRL's sampler. Logged as `bags/size`.
    """

    bags: BagSampler | None = None

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        """Give the data loader our sampler."""
        return super()._get_train_sampler(dataset) if self.bags is None else self.bags  # pyright: ignore

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        """Log the size of the bags that a batch was made of."""
        output = super()._generate_and_score_completions(inputs)  # pyright: ignore[reportAttributeAccessIssue]
        trainer: Any = self
        if self.bags is not None and trainer.model.training:
            trainer._metrics["train"]["bags/size"].append(float(self.bags.size))
        return output


class Stages(TrainerCallback):
    """Counts how often captions of bags find their image, tells the sampler at each epoch's end, and keeps it all in
    the checkpoints (`bag_state.json`).

    `heard` is what the self-retrieval reward tells, on each process of its own share; counts are summed over the
    processes at every epoch's end and every save, which all of them reach. Put it before what marks a checkpoint as
    complete.
    """

    def __init__(self, sampler: BagSampler, resume_from: Path | None = None) -> None:
        """Take up the counts of the checkpoint that a run goes on from."""
        self.sampler = sampler
        self.counts: dict[int, tuple[float, int]] = {}
        self._mine = (0.0, 0)
        if resume_from is not None:
            self.counts = _read(resume_from / STATE_FILE)
        self._tell()

    def heard(self, samples: Sequence[Sample], scores: Sequence[Score]) -> None:
        """Count the hits of images that came with their bag."""
        hits = [
            score.parts["hit"]
            for sample, score in zip(samples, scores, strict=True)
            if sample.bag is not None and "hit" in score.parts
        ]
        self._mine = self._mine[0] + sum(hits), self._mine[1] + len(hits)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell the sampler the epoch (as `Boundaries` does, later), and people the size that comes of it."""
        self.sampler.set_epoch(epoch_of(state))
        logger.info("epoch %d: bags of %d", self.sampler.epoch + 1, self.sampler.size)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Let the next epoch's size hang on this epoch's hits."""
        self._gather()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the counts into the checkpoint."""
        self._gather()
        if state.is_world_process_zero:
            rows = [{"epoch": epoch, "hits": hits, "captions": n} for epoch, (hits, n) in sorted(self.counts.items())]
            told = {"epoch": self.sampler.epoch, "size": self.sampler.size, "counts": rows}
            with atomic_write(Path(args.output_dir) / f"checkpoint-{state.global_step}" / STATE_FILE) as file:
                json.dump(told, file, indent=2)

    def _gather(self) -> None:
        """Add what the processes counted since the last time to the epoch at hand. A collective call."""
        found, epoch = gather([self._mine]), self.sampler.epoch
        hits, captions = self.counts.get(epoch, (0.0, 0))
        self.counts[epoch] = hits + sum(h for h, _ in found), captions + sum(n for _, n in found)
        self._mine = (0.0, 0)
        self._tell()

    def _tell(self) -> None:
        self.sampler.hits = {epoch: hits / captions for epoch, (hits, captions) in self.counts.items() if captions}


def _read(file: Path) -> dict[int, tuple[float, int]]:
    """Read the counts of a checkpoint."""
    if not file.is_file():
        raise FieldmarkError(
            f"{file}: no such file; the checkpoint was made without `bags`. Choose another --output_dir, or leave "
            "`bags` out to go on with that run"
        )
    rows = json.loads(file.read_text(encoding="utf-8"))["counts"]
    return {row["epoch"]: (row["hits"], row["captions"]) for row in rows}

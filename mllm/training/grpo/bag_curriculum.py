"""Bags in a training run: the sampler that its settings describe, and stages that survive a stop."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback

from mllm import config
from mllm.data import bags
from mllm.distributed import gather
from mllm.errors import ConfigError
from mllm.records import Sample, Score
from mllm.rewards import BaseReward
from mllm.training.checkpointing import RunState, epoch_of
from mllm.training.grpo.bag_sampler import PUBLISHED, BagSampler, Schedule

logger = logging.getLogger(__name__)


def check(settings: config.Settings, rewards: Mapping[str, BaseReward]) -> None:
    """Refuse rewards over bags if batches hold no bags, and stages that end by a number that no reward measures.

    Raises:
        ConfigError: names the field.
    """
    over = {name: getattr(reward, "over", "batch") for name, reward in rewards.items()}
    for name, pool in over.items():
        if pool != "batch" and settings.bags is None:
            raise ConfigError(
                f"rewards.{name}.over: {pool} scores images that came with their bag, but batches are drawn without "
                "regard to bags: add a `bags` section, or set over: batch"
            )
    if settings.bags is not None and settings.bags.saturation is not None and "self_retrieval" not in rewards:
        raise ConfigError("bags.saturation needs the hits of the reward self_retrieval, which is not among the rewards")


def sampler(settings: config.Bags, samples: Sequence[Sample], args: Any) -> BagSampler:
    """Build the sampler of a run from its bags, its training rows in order, and TRL's `args`: generation_batch_size (of
    all processes), num_generations, steps_per_generation, num_iterations, seed.

    Raises:
        ConfigError: rows that are not caption rows; a size without bags, or above the batch; see `Schedule`.
        RecordError: a bag file that does not fit the samples.
    """
    other = next((sample for sample in samples if sample.task != "caption"), None)
    if other is not None:
        raise ConfigError(f"bags: sample {other.id} has task {other.task!r}, but bags are of images to caption")
    stages = PUBLISHED if settings.schedule == "published" else settings.schedule
    schedule = Schedule(stages, settings.saturation)  # refuses bad stages before bags are made for them
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
    """Return the bags of each size as row numbers: from the files, or by splitting the rows that share `bag`."""
    row_of = {sample.id: row for row, sample in enumerate(samples)}
    known = bags.read(settings.files) if settings.files else bags.shared(samples)
    bags.check(known, list(row_of))
    sized = {
        size: [bag for bag in known if len(bag.members) == size]
        if settings.files
        else bags.chop([bag.members for bag in known], size, "cut")
        for size in sizes
    }
    return {size: [tuple(row_of[name] for name in bag.members) for bag in made] for size, made in sized.items()}


class BagStages(TrainerCallback):
    """Counts how often captions of bags retrieve their image, and sets the sampler's hit rates after each epoch.

    `add` receives the rewards' scores of this process. Counts are summed over the processes at
    the end of every epoch and at every save, and saved as the run state `bags`.
    """

    def __init__(self, sampler: BagSampler, run_state: RunState) -> None:
        self.sampler = sampler
        self.counts: dict[int, tuple[float, int]] = {}
        self._local = (0.0, 0)
        missing = "the checkpoint was made without `bags`. Choose another --output_dir, or remove `bags` to continue it"
        run_state.register("bags", self._save, self._restore, missing=missing)

    def add(self, name: str, samples: Sequence[Sample], completions: Any, scores: Sequence[Score]) -> None:
        """Count the self-retrieval reward's hits of images that came with their bag."""
        hits = [
            score.parts["hit"]
            for sample, score in zip(samples, scores, strict=True)
            if name == "self_retrieval" and sample.bag is not None and "hit" in score.parts
        ]
        self._local = self._local[0] + sum(hits), self._local[1] + len(hits)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Set the sampler's epoch, and log the bag size that follows from it."""
        self.sampler.set_epoch(epoch_of(state))
        logger.info("epoch %d: bags of %d", self.sampler.epoch + 1, self.sampler.size)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Sum this epoch's hits; the next epoch's size may depend on them."""
        self._gather()

    def _save(self) -> dict[str, Any]:
        """Return the counts for a checkpoint. A collective call."""
        self._gather()
        rows = [{"epoch": epoch, "hits": hits, "captions": n} for epoch, (hits, n) in sorted(self.counts.items())]
        return {"epoch": self.sampler.epoch, "size": self.sampler.size, "counts": rows}

    def _restore(self, saved: Mapping[str, Any]) -> None:
        self.counts = {row["epoch"]: (row["hits"], row["captions"]) for row in saved["counts"]}
        self._update_sampler()

    def _gather(self) -> None:
        """Add what all processes counted since the last time to the current epoch. A collective call."""
        counted, epoch = gather([self._local]), self.sampler.epoch
        hits, captions = self.counts.get(epoch, (0.0, 0))
        self.counts[epoch] = hits + sum(h for h, _ in counted), captions + sum(n for _, n in counted)
        self._local = (0.0, 0)
        self._update_sampler()

    def _update_sampler(self) -> None:
        self.sampler.hits = {epoch: hits / captions for epoch, (hits, captions) in self.counts.items() if captions}

"""BagCurri (No Detail Left Behind, 2024): look-alikes stay together in one global generation batch, and bags grow.

Sizes do not divide the batch: the rest is single images, easy distractors that bag rewards score None.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch.utils.data import Sampler

from mllm.errors import ConfigError

PUBLISHED = ((3, 2), (5, 3), (2, 5), (2, 7), (2, 10), (3, 15), (3, 20))
"""(epochs, bag size) of the released configuration: twenty epochs of batches of a hundred images."""
Place = tuple[int, int]
"""A row of the data, and its bag's number among the bags of the stage's size, -1 for a single image."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Bag size per epoch. The last stage repeats.

    stages: (epochs, size) in order. With `saturation` a stage ends earlier, after the first of its epochs whose mean
    hit rate reaches it.
    """

    stages: tuple[tuple[int, int], ...] = PUBLISHED
    saturation: float | None = None

    def __post_init__(self) -> None:
        if not self.stages or any(epochs < 1 or size < 2 for epochs, size in self.stages):
            raise ConfigError(f"bag schedule: stages must be pairs of (epochs >= 1, size >= 2), got {self.stages!r}")
        if self.saturation is not None and not 0 < self.saturation <= 1:
            raise ConfigError(f"bag schedule: saturation must be above 0 and at most 1, got {self.saturation!r}")

    def size(self, epoch: int, hits: Mapping[int, float] | None = None) -> int:
        """Bag size of an epoch (from 0), given the mean hit rate of the epochs before it."""
        stage, spent = 0, 0
        for before in range(epoch):
            spent += 1
            full = self.saturation is not None and (hits or {}).get(before, 0.0) >= self.saturation
            if stage < len(self.stages) - 1 and (spent >= self.stages[stage][0] or full):
                stage, spent = stage + 1, 0
        return self.stages[stage][1]


@dataclass
class BagSampler(Sampler[int]):
    """Yields row numbers for TRL's GRPO data loader, in place of its RepeatSampler.

    Each number also encodes the bag: (1 + index of the bag's size in `sizes`) * rows + row for an image in its bag, and
    row for a single image; `read` decodes it. So the data set has `virtual_rows` rows, and looks up `number % rows`.
    The order depends on (seed, epoch, hits of earlier epochs) alone, so all processes agree and a resumed run takes the
    same batches.

    Args:
        rows: number of images in the data.
        bags: size -> disjoint bags of that size, as row numbers.
        schedule: bag size per epoch.
        batch: different images in a global generation batch.
        generations: captions per image, in consecutive rows.
        repeats: passes over a generation batch (TRL: iterations * steps_per_generation).
        seed: of the order.
    """

    rows: int
    bags: Mapping[int, Sequence[Sequence[int]]]
    schedule: Schedule
    batch: int
    generations: int
    repeats: int = 1
    seed: int = 0
    epoch: int = 0
    hits: dict[int, float] = field(default_factory=dict)
    _bag_of: dict[int, dict[int, int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.rows < self.batch:
            raise ConfigError(f"{self.rows} images do not fill one generation batch of {self.batch}")
        for _, size in self.schedule.stages:
            if size > self.batch:
                raise ConfigError(
                    f"bags of {size} do not fit into a generation batch of {self.batch} images: raise "
                    "per_device_train_batch_size or gradient_accumulation_steps, or lower num_generations"
                )
            if not self.bags.get(size):
                raise ConfigError(f"the schedule needs bags of {size} but there are none: mine them first")
        for size, bags in self.bags.items():
            members = [row for bag in bags for row in bag]
            if any(len(bag) != size for bag in bags) or len(set(members)) != len(members):
                raise ConfigError(f"bags of {size}: every bag needs {size} images, and no image may be in two")
            if members and not 0 <= min(members) <= max(members) < self.rows:
                raise ConfigError(f"bags of {size} name row {max(members)}, and there are {self.rows} rows")
        self._bag_of = {
            size: {row: place for place, bag in enumerate(bags) for row in bag} for size, bags in self.bags.items()
        }

    @property
    def size(self) -> int:
        """Bag size of the current epoch."""
        return self.schedule.size(self.epoch, self.hits)

    @property
    def sizes(self) -> tuple[int, ...]:
        """All bag sizes, sorted."""
        return tuple(sorted(self.bags))

    @property
    def virtual_rows(self) -> int:
        """Number of different numbers that can be yielded."""
        return (1 + len(self.sizes)) * self.rows

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.rows // self.batch * self.batch * self.generations * self.repeats

    def __iter__(self) -> Iterator[int]:
        shift = (1 + self.sizes.index(self.size)) * self.rows
        for batch in self.batches(self.epoch):
            numbers = [row + shift * (bag >= 0) for row, bag in batch]
            for _ in range(self.repeats):
                for number in numbers:
                    yield from [number] * self.generations

    def batches(self, epoch: int) -> list[list[Place]]:
        """Return an epoch's generation batches: each row at most once, bags complete, the rest single images."""
        size = self.schedule.size(epoch, self.hits)
        rng = random.Random(f"bags/{self.seed}/{epoch}")
        count = self.rows // self.batch
        order = rng.sample(range(len(self.bags[size])), len(self.bags[size]))
        used = order[: count * (self.batch // size)]
        taken = {row for number in used for row in self.bags[size][number]}
        singles = [row for row in range(self.rows) if row not in taken]  # including members of bags that did not fit
        rng.shuffle(singles)
        batches: list[list[Place]] = [[] for _ in range(count)]
        for place, number in enumerate(used):
            batches[place % count] += [(row, number) for row in self.bags[size][number]]
        for batch in batches:
            while len(batch) < self.batch:
                batch.append((singles.pop(), -1))
        return batches

    def read(self, number: int) -> tuple[int, str | None]:
        """Decode a yielded number: the row, and the name of its bag (None for a single image)."""
        kind, row = divmod(number, self.rows)
        if kind == 0:
            return row, None
        size = self.sizes[kind - 1]
        return row, f"{size}/{self._bag_of[size][row]}"

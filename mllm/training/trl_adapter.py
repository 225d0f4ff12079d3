"""Adapts Fieldmark's records to TRL: samples -> data set rows, rewards -> reward functions."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from datasets import Dataset
from PIL import Image

from mllm.io.codec import Record
from mllm.io.images import open_image
from mllm.models.checkpoint import Checkpoint, Loaded
from mllm.models.families import Convention
from mllm.models.processors import template_opening
from mllm.prompting import conversations, prompts
from mllm.prompting.tasks import CompletionReader, task_of
from mllm.records import Completion, Sample, Score
from mllm.rewards import BaseReward
from mllm.training.grpo.bag_sampler import BagSampler
from mllm.training.health import box_spread

CACHE_BYTES = 256 * 2**20
Listener = Callable[[str, Sequence[Sample], Sequence[Completion], Sequence[Score]], None]


@dataclass(frozen=True, slots=True)
class Exchange(Record):
    """A plain question with its answer, with or without an image: mixed into SFT so that the base forgets less.

    `image` is relative to the file's folder (as in a samples file), or absolute. The question is used unchanged.
    """

    SCHEMA: ClassVar[str] = "fieldmark.exchange/1"

    id: str
    question: str
    answer: str
    image: str | None = None

    def messages(self) -> list[dict[str, Any]]:
        """Return the question as messages, with a placeholder for its image if it has one."""
        turn = prompts.says("user", self.question)
        if self.image is not None:
            turn["content"].insert(0, {"type": "image"})  # first, as in `prompts.messages`
        return [turn]


@dataclass(frozen=True, slots=True)
class Row:
    """One row to train on, and the file of its image."""

    record: Sample | Exchange
    image: Path | None


class ImageCache:
    """Decoded images by path; above `limit` bytes the least recently used is dropped. Each process has its own."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit, self.size = limit, 0
        self._entries: OrderedDict[Path, Image.Image] = OrderedDict()

    def load(self, path: Path) -> Image.Image:
        """Return the image at `path` (RGB, upright). Callers share it and must not draw on it."""
        if path in self._entries:
            self._entries.move_to_end(path)
            return self._entries[path]
        image = open_image(path)
        self._entries[path] = image
        self.size += image.width * image.height * 3
        while self.size > self.limit and len(self._entries) > 1:
            _, old = self._entries.popitem(last=False)
            self.size -= old.width * old.height * 3
        return image

    def __reduce__(self) -> tuple[type[ImageCache], tuple[int]]:
        """Pickle without the images (data loader workers, fingerprints)."""
        return type(self), (self.limit,)


@dataclass
class Lookup:
    """Converts rows to TRL's columns on access; nothing is decoded in advance.

    Columns: `prompt` (messages), `images` (a list of images), `sample`, and with `answers` a `completion`. With
    `bags` the row numbers are the sampler's, and `sample.bag` names the image's bag (None for a single image).
    """

    rows: Sequence[Row]
    convention: Convention
    answers: bool
    cache: ImageCache
    bags: BagSampler | None = None

    def __call__(self, batch: Mapping[str, Sequence[int]]) -> dict[str, list[Any]]:
        """Look up the rows of a batch `{"row": [numbers]}`."""
        rows = [self._row(number) for number in batch["row"]]
        columns: dict[str, list[Any]] = {
            "prompt": [self._prompt(row) for row in rows],
            "images": [[] if row.image is None else [self.cache.load(row.image)] for row in rows],
            "sample": [with_its_image(row) for row in rows],
        }
        if self.answers:
            columns["completion"] = [[prompts.says("assistant", self._answer(row.record))] for row in rows]
        return columns

    def _row(self, number: int) -> Row:
        """Return a row, with the bag set in its sample."""
        if self.bags is None:
            return self.rows[number]
        place, bag = self.bags.read(number)
        row = self.rows[place]
        return replace(row, record=replace(row.record, bag=bag)) if isinstance(row.record, Sample) else row

    def _prompt(self, row: Row) -> list[dict[str, Any]]:
        if isinstance(row.record, Sample):
            return conversations.conversation(row.record, self.convention)
        return row.record.messages()

    def _answer(self, record: Sample | Exchange) -> str:
        return record.answer if isinstance(record, Exchange) else conversations.target(record, self.convention)


def with_its_image(row: Row) -> Sample | Exchange:
    """Return the record; for captions, with an absolute image path, because rewards open the image."""
    if isinstance(row.record, Sample) and row.record.task == "caption" and row.image is not None:
        return replace(row.record, image=str(row.image.resolve()))
    return row.record


def dataset(rows: Sequence[Row], convention: Convention, *, answers: bool, bags: BagSampler | None = None) -> Dataset:
    """Build TRL's data set: prompts and answers for SFT, prompts alone for RL (`answers=False`).

    With `bags` it has a row for every number that the sampler can yield.
    """
    lookup = Lookup(rows, convention, answers, ImageCache(), bags)
    count = len(rows) if bags is None else bags.virtual_rows
    return Dataset.from_dict({"row": list(range(count))}).with_transform(lookup)


class TrlReward:
    """A reward as a function that TRL can call. It can be pickled; TRL's logs use the reward's name.

    Means of the parts are logged as `<reward>/<part>`.

    Args:
        name: of the reward.
        reward: scores the completions.
        checkpoint: its family and processor decide how completions are parsed.
        count_problems: also log the share of completions that could not be parsed, as `unread/<reason>`.
        listeners: receive the reward's name, and each batch's samples, completions and scores.
    """

    def __init__(
        self,
        name: str,
        reward: BaseReward,
        checkpoint: Checkpoint | Loaded,
        *,
        count_problems: bool = False,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.__name__ = name
        opening = template_opening(checkpoint.processor)
        self.reader = CompletionReader(checkpoint.family, checkpoint.convention.budget, opening)
        self.reward, self.count_problems = reward.reading(self.reader.family, self.reader.budget), count_problems
        self.listeners = listeners

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        sample: Sequence[Sample],
        log_metric: Callable[[str, float], None] | None = None,
        **_: Any,
    ) -> list[float | None]:
        """Return a number for each completion, None where the reward does not apply."""
        texts = [one if isinstance(one, str) else one[0]["content"] for one in completions]
        rows = zip(sample, texts, completion_ids, strict=True)
        read = [self.reader.read(one, text, tokens=len(ids)) for one, text, ids in rows]
        scores = self.reward(sample, read)
        for listener in self.listeners:
            listener(self.__name__, sample, read, scores)
        if log_metric is not None:
            for part in sorted({part for score in scores for part in score.parts}):
                values = [score.parts[part] for score in scores if part in score.parts]
                log_metric(f"{self.__name__}/{part}", sum(values) / len(values))
            if self.count_problems:
                asked = [done for one, done in zip(sample, read, strict=True) if task_of(one).has_boxes]
                problems = Counter(done.answer.problem for done in asked if done.answer.problem is not None)
                for problem, count in sorted(problems.items()):
                    log_metric(f"unread/{problem}", count / len(asked))
                self._log_box_spread(sample, read, log_metric)
        return [score.value for score in scores]

    @staticmethod
    def _log_box_spread(
        samples: Sequence[Sample], read: Sequence[Completion], log_metric: Callable[[str, float], None]
    ) -> None:
        """Log how much the boxes of different images vary, as a share of how much the true ones do.

        It is near 0 if every image gets the same box. One answer per image counts; fewer than four images are skipped.
        """
        pairs = {
            sample.id: (done.answer.boxes[0], sample.boxes[0])
            for sample, done in zip(samples, read, strict=True)
            if done.answer.boxes and sample.boxes
        }
        written, true = [pair[0] for pair in pairs.values()], [pair[1] for pair in pairs.values()]
        if len(pairs) >= 4 and box_spread(true) > 0:
            log_metric("boxes/spread", box_spread(written) / box_spread(true))

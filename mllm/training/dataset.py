"""Reads and checks everything that a training run will use, before any weight is loaded.

A wrong row costs seconds here and hours later. Every error names the file and the row and says what to do.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from mllm.config import Settings
from mllm.errors import FieldmarkError, RecordError
from mllm.io.images import image_size
from mllm.models.checkpoint import Checkpoint
from mllm.prompting import conversations
from mllm.prompting.tasks import task_of
from mllm.records import Sample, image_path, load_samples, read_jsonl
from mllm.training import validation_metrics
from mllm.training.trl_adapter import Exchange, Row

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Data:
    """The checked data of a run. `images_root` is what the validation samples' images are relative to."""

    train: list[Row]
    validation: list[Sample]
    images_root: Path


def read_data(settings: Settings, *, answers: bool, check_images: bool = True) -> Data:
    """Read the samples files of a run and check them.

    Args:
        settings: of the run.
        answers: the rows are trained on with their answers (SFT); style `think` then needs a thought in each.
        check_images: open each image's header (one process is enough for that).

    Raises:
        RecordError: no file, an empty one, a broken line, a bad box, a missing image, a duplicate id, a row of
            another split, an image of another size than the row says, no box, no thought; captions to watch that are
            in no bag.
    """
    if not settings.train:
        raise FieldmarkError("no training data: set `train` to one or more samples files")
    rows: list[Row] = []
    for file in settings.train:
        samples = load_samples(file)[: settings.limit]
        for sample in samples:
            _check_sample(file, sample, split="train", style=settings.style, target=answers)
        rows += [Row(sample, image_path(file, sample)) for sample in samples]
    for file in settings.mix if answers else ():
        rows += _exchanges(file)
    _no_twins(rows)
    validation: list[Sample] = []
    root = Path()
    if settings.validation is not None:
        validation = load_samples(settings.validation)[: settings.evaluate.samples]
        root = settings.validation.parent
        for sample in validation:
            _check_sample(settings.validation, sample, split="validation", style=settings.style, target=False)
        shared = {row.record.id for row in rows} & {sample.id for sample in validation}
        if shared:
            raise RecordError(f"{settings.validation}: sample {min(shared)!r} is in the training data too")
        validation_metrics.choose(validation, root, settings.evaluate)
    if check_images:
        _check_images([*rows, *(Row(sample, root / sample.image) for sample in validation)])
    return Data(rows, validation, root)


def check_rows(data: Data, checkpoint: Checkpoint, settings: Settings, *, answers: bool, room: int = 0) -> None:
    """Refuse rows longer than the budget, and validation rows likewise; log how long they are."""
    limit = settings.max_tokens_per_sample
    samples = [row.record for row in data.train if isinstance(row.record, Sample)]
    counted = conversations.check_length(samples, checkpoint, limit, answers=answers, room=room)
    plain = [
        (
            [*row.record.asked(), conversations.says("assistant", row.record.answer)],
            image_size(row.image) if row.image else None,
        )
        for row in data.train
        if isinstance(row.record, Exchange)
    ]
    names = [row.record.id for row in data.train if isinstance(row.record, Exchange)]
    conversations.refuse_long(names, conversations.count_tokens(plain, checkpoint), limit)
    conversations.check_length(data.validation, checkpoint, limit, answers=False)
    if counted:
        logger.info(
            "%d rows of %d to %d tokens, median %d; budget %d",
            len(counted), min(counted), max(counted), median(counted), settings.max_tokens_per_sample,
        )  # fmt: skip


def lengths(rows: Sequence[Row], checkpoint: Checkpoint) -> list[int]:
    """Count the tokens of each row with its answer, in order, opening no more than an image's header."""
    spoken = []
    for row in rows:
        if isinstance(row.record, Sample):
            turns = conversations.conversation(row.record, checkpoint.convention)
            answer, size = conversations.target(row.record, checkpoint.convention), row.record.size
        else:
            turns, answer = row.record.asked(), row.record.answer
            size = image_size(row.image) if row.image else None
        spoken.append(([*turns, conversations.says("assistant", answer)], size))
    return conversations.count_tokens(spoken, checkpoint)


def _check_sample(file: Path, sample: Sample, *, split: str, style: str, target: bool) -> None:
    """Refuse a row that this run could not use; with `target`, one that SFT could not learn from."""
    if sample.split != split:
        raise RecordError(
            f"{file}: sample {sample.id}: field split: this is a {sample.split} row; used for {split} it would leak"
        )
    try:
        task_of(sample).check(sample, style, target=target)
    except RecordError as error:
        raise RecordError(f"{file}: {error}") from None


def _exchanges(file: Path) -> list[Row]:
    """Read a file of plain questions and answers."""
    rows: list[Row] = []
    for record in read_jsonl(file, Exchange, unique="id"):
        picture = None if record.image is None else Path(file).parent / record.image
        if picture is not None and not picture.is_file():
            raise RecordError(f"{file}: exchange {record.id}: field image: no such file {picture}")
        rows.append(Row(record, picture))
    if not rows:
        raise RecordError(f"{file}: the file holds no exchange")
    return rows


def _no_twins(rows: Sequence[Row]) -> None:
    """Refuse an id that occurs in two files (within one, reading has refused it already)."""
    seen: set[str] = set()
    for row in rows:
        if row.record.id in seen:
            raise RecordError(f"sample id {row.record.id!r} occurs in two of the training files")
        seen.add(row.record.id)


def _check_images(rows: Sequence[Row]) -> None:
    """Read each image's header once; a size other than the row's would move every box."""
    sizes: dict[Path, tuple[float, float]] = {}
    for row in rows:
        if row.image is None:
            continue
        if row.image not in sizes:
            frame = image_size(row.image)
            sizes[row.image] = (frame.width, frame.height)
        if isinstance(row.record, Sample) and sizes[row.image] != (row.record.size.width, row.record.size.height):
            width, height = sizes[row.image]
            raise RecordError(
                f"sample {row.record.id}: field size: says {row.record.size.width:g} x {row.record.size.height:g}, but "
                f"{row.image} is {width:g} x {height:g} (after EXIF orientation); its boxes would be wrong"
            )

"""Reads and checks all data of a run before weights are loaded; makes the pocket examples' data if it is missing."""

import logging
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from mllm.config import Settings
from mllm.distributed import main_process_only
from mllm.errors import FieldmarkError, RecordError
from mllm.io.files import program_folder
from mllm.io.images import image_size
from mllm.io.jsonl import numbered, read_jsonl
from mllm.models.checkpoint import Checkpoint, open_checkpoint
from mllm.prompting import conversations, prompts, special_tokens
from mllm.prompting.tasks import task_of
from mllm.records import Sample, image_path, load_samples
from mllm.training import validation_metrics
from mllm.training.trl_adapter import Exchange, Row

logger = logging.getLogger(__name__)

POCKET_DATA = Path("runs/pocket/data")
POCKET_CAPTIONS: dict[Path, tuple[str, ...]] = {
    Path("runs/pocket/captions"): ("--level=medium", "--out", "runs/pocket/captions"),
    Path("runs/pocket/captions-vcb"): ("--level=medium", "--strategy=holistic", "--out", "runs/pocket/captions-vcb"),
}
"""Captions of the pocket world as people write them and rewritten, by folder, with the flags of data_synth/captions.py
that make them. Look-alikes are medium: among hard ones the judge finds few even by captions that name every mark."""


@dataclass(frozen=True)
class Data:
    """The checked data of a run. The validation samples' images are relative to `images_root`."""

    train: list[Row]
    validation: list[Sample]
    images_root: Path


def read_data(settings: Settings, *, answers: bool, check_images: bool = True) -> Data:
    """Read the samples files of a run and check them.

    `answers`: rows are trained on with their answers (SFT); style `think` then needs a thought in each.
    `check_images`: open each image's header (one process is enough for that).

    Raises:
        RecordError: no file, an empty one, a broken line, a bad box, a missing image, a duplicate id, a row of
            another split, an image whose size differs from the row's, no box, no thought; validation captions without
            a bag.
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
    twice = [name for name, count in Counter(row.record.id for row in rows).items() if count > 1]
    if twice:  # within one file, reading refuses it
        raise RecordError(f"sample id {twice[0]!r} occurs in two of the training files")
    validation, root = list[Sample](), Path()
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


def check_rows(
    data: Data, checkpoint: Checkpoint, settings: Settings, *, answers: bool, max_completion_length: int = 0
) -> None:
    """Refuse training and validation rows with special tokens in their words, or above the token limit (minus the
    completion's); log their lengths."""
    _refuse_special_tokens(data, checkpoint, settings)
    limit = settings.max_tokens_per_sample
    samples = [row.record for row in data.train if isinstance(row.record, Sample)]
    counted = conversations.check_length(samples, checkpoint, limit, answers=answers, reserved=max_completion_length)
    exchanges = [(row.record, row.image) for row in data.train if isinstance(row.record, Exchange)]
    plain = [
        ([*one.messages(), prompts.says("assistant", one.answer)], image_size(image) if image else None)
        for one, image in exchanges
    ]
    conversations.refuse_long([one.id for one, _ in exchanges], conversations.count_tokens(plain, checkpoint), limit)
    conversations.check_length(data.validation, checkpoint, limit, answers=False)
    if counted:
        logger.info(
            "%d rows of %d to %d tokens, median %d; limit %d",
            len(counted), min(counted), max(counted), median(counted), settings.max_tokens_per_sample,
        )  # fmt: skip


def _refuse_special_tokens(data: Data, checkpoint: Checkpoint, settings: Settings) -> None:
    find = special_tokens.finder(checkpoint.processor.tokenizer)
    files = [*settings.train, *settings.mix, *([settings.validation] if settings.validation else [])]

    def place(record: Sample | Exchange) -> str:
        for file in files:  # read again, for the line: only now, since it takes time
            cls = Exchange if file in settings.mix else Sample
            for line, row in numbered(file, cls, None):
                if row.id == record.id:
                    return f"{file}:{line}"
        return f"row {record.id}"

    for record in (*(row.record for row in data.train), *data.validation):
        is_sample = isinstance(record, Sample)
        texts = (
            special_tokens.words_of(record) if is_sample else (("question", record.question), ("answer", record.answer))
        )
        special_tokens.refuse(texts, find, partial(place, record))


def _check_sample(file: Path, sample: Sample, *, split: str, style: str, target: bool) -> None:
    """Refuse a row that this run cannot use; with `target`, one that SFT cannot learn from."""
    if sample.split != split:
        raise RecordError(
            f"{file}: sample {sample.id}: field split: this is a {sample.split} row; used for {split} it would leak"
        )
    try:
        task_of(sample).check(sample, style, target=target)
    except RecordError as error:
        raise RecordError(f"{file}: {error}") from None


def _exchanges(file: Path) -> list[Row]:
    rows: list[Row] = []
    for record in read_jsonl(file, Exchange, unique="id"):
        image = None if record.image is None else Path(file).parent / record.image
        if image is not None and not image.is_file():
            raise RecordError(f"{file}: exchange {record.id}: field image: no such file {image}")
        rows.append(Row(record, image))
    if not rows:
        raise RecordError(f"{file}: the file has no exchanges")
    return rows


def _check_images(rows: Sequence[Row]) -> None:
    """Read each image's header once; if its size differs from the row's, the boxes would be wrong."""
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


def make_pocket_data(settings: Settings) -> None:
    """Make the pocket examples' data if this run needs it and it is missing; on the main process only.

    Raises FieldmarkError: the model does not exist, which is better known before minutes of making data.
    """
    made = {POCKET_DATA: ("grounding", ()), **{one: ("captions", flags) for one, flags in POCKET_CAPTIONS.items()}}
    folders = dict.fromkeys(file.parent for file in settings.train if not file.is_file())
    if made.keys() & folders:
        open_checkpoint(settings.model, family=settings.family)
    for folder in folders:
        if folder in made:
            main_process_only(partial(_make, *made[folder]))


def _make(name: str, flags: Sequence[str]) -> None:
    command = [str(program_folder("data_synth") / f"{name}.py"), *flags]
    words = f"python {' '.join(command)}"
    logger.info("making the pocket example's data: %s", words)
    if subprocess.run([sys.executable, *command], check=False).returncode:
        raise FieldmarkError(f"the pocket example's data could not be made: {words} failed (see above)")

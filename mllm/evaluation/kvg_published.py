"""KVG-Bench (Ma et al., arXiv 2503.12797) as published: its parquet as samples, and the rule of its own scorer.

There are 1,336 cases on 531 images in ten domains, with gold boxes as integers on 1000 x 1000. The published rule is
lenient in places and strict in others: a box in the reasoning counts when there is no answer tag, `[1,2,3,4]` without
blanks does not. It is reported beside our own rule, and means something only for families that write on 1000 x 1000.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from mllm.boxes import Box, Frame, iou_xyxy
from mllm.errors import BoxError, ImageError, RecordError
from mllm.io import strict_json
from mllm.io.images import image_format, image_size
from mllm.io.jsonl import check_unique
from mllm.records import Sample, Thing

SEEN_DOMAINS = ("aircraft", "car", "reptilia", "bird", "food")
UNSEEN_DOMAINS = ("dog", "mollusca", "mammal", "flower", "landmark")
FRAME = Frame(1000, 1000)
COLUMNS = ("question_id", "category", "image", "question", "answer")

_GOLD = re.compile(r"<\|box_start\|>\((\d+),(\d+)\),\((\d+),(\d+)\)<\|box_end\|>")
_ENTITY = re.compile(r"<\|object_ref_start\|>(.+?)<\|object_ref_end\|>", re.DOTALL)
_SUFFIX = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif", "MPO": ".jpg"}

_INT = r"(\d+)"
# "Anything up to the next comma (bracket, comma and blank)", without backtracking: sampled text may be long and full of
# brackets, and five lazy wildcards in a row would take minutes.
_TO_COMMA, _TO_BRACKET = r"([^,\n]*+)", r"([^)\n]*+)"
_LOOSE_PAIR = rf"\({_TO_COMMA},{_TO_BRACKET}\)"
_TO_SPACED_COMMA = r"([^,\n]*+(?:,(?! )[^,\n]*+)*+), "
_PAIR = rf"\({_INT},{_INT}\),\({_INT},{_INT}\)"
PUBLISHED_FORMS = (
    ("tagged", re.compile(rf"<answer>\s*{_PAIR}\s*</answer>")),
    ("sentence", re.compile(rf"So the answer is\s*{_PAIR}")),
    ("two pairs", re.compile(_PAIR)),
    ("two loose pairs", re.compile(rf"{_LOOSE_PAIR}[^(\n]*+{_LOOSE_PAIR}")),
    ("list", re.compile(rf"\[{_INT}, {_INT}, {_INT}, {_INT}\]")),
    ("loose list", re.compile(rf"\[{_TO_SPACED_COMMA * 3}([^\]\n]*+)\]")),
    ("four in brackets", re.compile(rf"\({_INT}, {_INT}, {_INT}, {_INT}\)")),
    ("two spaced pairs", re.compile(rf"\({_INT}, {_INT}\)\n?.*?\({_INT}, {_INT}\)")),
    ("nested list", re.compile(rf"\[\[{_INT},{_INT},{_INT},{_INT}\]\]")),
)
"""The forms in the order of the published scorer; the first form that matches decides, by its last match."""

_ONE_LINE_ANSWER = re.compile(r"<answer>(.*?)</answer>")  # "." stops at a line end: answers over two lines are missed
_JSON_BLOCK = re.compile(r"```json(.*?)(?:```|$)", re.DOTALL)


class ParquetImage(BaseModel):
    """An image as the Hub's parquet files store it."""

    data: bytes = Field(alias="bytes", min_length=1)


class ParquetRow(BaseModel):
    """One row of the official parquet."""

    question_id: Annotated[str, Field(min_length=1)] | int
    category: str
    image: ParquetImage
    question: str | None
    answer: str | None


def published_numbers(text: str) -> tuple[tuple[float, float, float, float], str | None]:
    """Read model text as the published scorer does: (x1, y1, x2, y2) on 1000 x 1000 and the form that matched.

    Unreadable text gives four zeros and None. Four numbers with a sum below 4 count as shares and are multiplied by
    1000. Nothing is clipped or reordered.
    """
    if answer := _ONE_LINE_ANSWER.search(text):
        text = answer[1]
        if block := _JSON_BLOCK.search(text):
            text = block[1]
    for name, form in PUBLISHED_FORMS:
        if hits := form.findall(text):
            try:
                numbers = tuple(float(number) for number in hits[-1])
            except ValueError:  # a loose form matched words: the scorer gives up without trying the next form
                return (0.0, 0.0, 0.0, 0.0), None
            scale = 1000.0 if sum(numbers) < 4 else 1.0
            x1, y1, x2, y2 = (number * scale for number in numbers)
            return (x1, y1, x2, y2), name
    return (0.0, 0.0, 0.0, 0.0), None


def published_iou(text: str, gold: Box) -> float:
    """Return the IoU of the gold box and the one that the published scorer reads, 0..1; 0.5 or more is a hit."""
    return iou_xyxy(published_numbers(text)[0], gold.to_xyxy(FRAME))


def domain_order(domain: str) -> tuple[int, str]:
    """Return the sort key of a domain: the benchmark's own first, seen before unseen, then others by name."""
    known = (*SEEN_DOMAINS, *UNSEEN_DOMAINS)
    return known.index(domain) if domain in known else len(known), domain


def published_rows() -> list[dict[str, Any]]:
    """Return the published results: `model`, `source`, `acc` (percent, by domain and seen, unseen, all), `note`."""
    import yaml

    return yaml.safe_load(Path(__file__).with_name("kvg_published.yaml").read_text(encoding="utf-8"))["rows"]


def read_parquet(path: str | Path, images_folder: str | Path, *, limit: int | None = None) -> list[Sample]:
    """Read the official parquet and write each image once to `images_folder`, named by its hash.

    `image` of the samples is an absolute path. Cases with the same image share a `group`, and their entities are each
    other's `things`. `seen` stays None: whether an entity was trained on depends on the model, not on the benchmark.
    Raises `RecordError`: a missing column, or an unreadable answer or image (names file, row and field).
    """
    path, folder = Path(path), Path(images_folder).resolve()
    rows = [_sample(row, f"{path}: row {number}", folder) for number, row in enumerate(islice(_rows(path), limit))]
    if not rows:
        raise RecordError(f"{path}: the file holds no case")
    things: dict[str, dict[str, Thing]] = defaultdict(dict)
    for sample in rows:
        things[sample.group].setdefault(sample.entity, Thing(sample.entity, sample.boxes[0]))
    for place, sample in enumerate(check_unique(rows)):  # its own entity keeps its own gold box
        shared = things[sample.group] | {sample.entity: Thing(sample.entity, sample.boxes[0])}
        rows[place] = replace(sample, things=tuple(shared.values()))
    return rows


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise RecordError(f"{path}: no such file (the official one is kvg-bench.parquet)")
    try:
        file = pq.ParquetFile(path)
        if missing := [name for name in COLUMNS if name not in file.schema_arrow.names]:
            raise RecordError(f"{path}: column {missing[0]} is missing; KVG-Bench has {', '.join(COLUMNS)}")
        for batch in file.iter_batches(batch_size=64, columns=list(COLUMNS)):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: not a complete parquet file ({error}); download it again") from error


def _sample(row: Mapping[str, Any], where: str, folder: Path) -> Sample:
    case = strict_json.parsed(row, ParquetRow, f"{where}: ", kind=RecordError)
    where = f"{where} ({case.question_id})"
    answer, question = case.answer or "", case.question or ""
    gold = _GOLD.search(answer)
    entity = _ENTITY.search(answer) or _ENTITY.search(question)
    if gold is None or entity is None:
        raise RecordError(f"{where}: field answer: no entity and box in {answer!r:.120}")
    field = "answer"
    try:
        box = Box.from_xyxy(tuple(float(number) for number in gold.groups()), FRAME)
        field = "image"
        file = _save(case.image.data, folder)
        size = image_size(file)
    except (BoxError, ImageError) as error:
        raise RecordError(f"{where}: field {field}: {error}") from None
    about = (str(file), size, case.category, entity[1].strip(), question, (box,))
    origin = {"source": "kvg-bench"}
    return Sample(str(case.question_id), "ground", *about, split="test", group=file.stem, provenance=origin)


def _save(data: bytes, folder: Path) -> Path:
    """Write image bytes to a file named by their hash, unless it exists; return its path."""
    suffix = _SUFFIX.get(image_format(data, "its bytes"), ".png")
    path = folder / f"{hashlib.sha256(data).hexdigest()[:20]}{suffix}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        temporary.write_bytes(data)
        temporary.replace(path)
    return path

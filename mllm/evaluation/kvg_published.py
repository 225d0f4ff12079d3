"""KVG-Bench (Ma et al., arXiv 2503.12797) as published: its parquet as samples, and the rule of its own scorer.

There are 1,336 cases on 531 images in ten domains, with gold boxes as integers on 1000 x 1000. The published rule is
lenient in places and strict in others: a box in the reasoning counts when the answer has no tag, `[1,2,3,4]` without
blanks does not. It is reported beside our own rule, and means something only for families that write on 1000 x 1000.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from mllm.boxes import Box, Frame
from mllm.errors import BoxError, ImageError, RecordError
from mllm.io import strict_json
from mllm.io.files import write_bytes
from mllm.io.images import exif_orientation, image_format, image_size
from mllm.io.jsonl import check_unique
from mllm.records import Sample, Thing

SEEN_DOMAINS = ("aircraft", "car", "reptilia", "bird", "food")
UNSEEN_DOMAINS = ("dog", "mollusca", "mammal", "flower", "landmark")
FRAME = Frame(1000, 1000)
COLUMNS = ("question_id", "category", "image", "question", "answer")

_GOLD = re.compile(r"<\|box_start\|>\((\d+),(\d+)\),\((\d+),(\d+)\)<\|box_end\|>")
_ENTITY = re.compile(r"<\|object_ref_start\|>(.+?)<\|object_ref_end\|>", re.DOTALL)
_SUFFIX = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif", "MPO": ".jpg"}

Hits = list[tuple[str, ...]]
Release = Literal["karl", "deepperception"]
"""Whose scorer: KARL's (2026, the repository's head) or the first one (2025), which ignores tags and JSON blocks."""
RULES: dict[str, Release] = {"published": "karl", "first_published": "deepperception"}
"""The rules by their names in scores.json (`published_acc`, `first_published_acc`)."""

_FIRST = re.compile(r"\((\d*+),")
_REST = r"(?<!\d)(\d*+)\),\((\d*+),(\d*+)\)"
_FOUR = ", ".join([r"(\d*+)"] * 4)
_SPACED_PAIR = re.compile(r"\((\d*+), (\d*+)\)")


def _bridged(text: str, before: str = "", after: str = "") -> Hits:
    """Find `(x1,` on a line, then anything, then `y1),(x2,y2)`: y1 is the digits right before the bracket.

    Like `_between` it never goes back: sampled text may be long and full of brackets, and a regular expression with
    wildcards would take minutes.
    """
    rest, hits = re.compile(_REST + after), []
    for line in text.split("\n"):
        place = line.find(before)
        while place >= 0 and (x1 := _FIRST.search(line, place + len(before))) and (hit := rest.search(line, x1.end())):
            hits.append((x1[1], *hit.groups()))
            place = line.find(before, hit.end())
    return hits


def _between(text: str, *marks: str) -> Hits:
    """Return what lies between marks that follow one another on a line, as often as they do."""
    hits = []
    for line in text.split("\n"):
        place, parts = 0, []
        for mark in cycle(marks):
            if (found := line.find(mark, place)) < 0:
                break
            parts.append(line[place:found])
            place = found + len(mark)
            if len(parts) == len(marks):
                hits.append(tuple(parts[1:]))
                parts = []
    return hits


def _two_spaced_pairs(text: str) -> Hits:
    """Find `(x1, y1)` and the next `(x2, y2)`: on the same line, or on the next where the first pair ends its line."""
    hits, last = [], None
    for pair in _SPACED_PAIR.finditer(text):
        if last and "\n" not in text[last.end() : pair.start()].removeprefix("\n"):
            hits.append((*last.groups(), *pair.groups()))
            last = None
        else:
            last = pair
    return hits


PUBLISHED_FORMS: dict[str, Callable[[str], Hits]] = {
    "tagged": lambda text: _bridged(text, "<answer>", "</answer>"),
    "sentence": lambda text: _bridged(text, "So the answer is"),
    "two pairs": _bridged,
    "two loose pairs": lambda text: [hit[:2] + hit[3:] for hit in _between(text, *"(,)(,)")],
    "list": re.compile(rf"\[{_FOUR}\]").findall,
    "loose list": lambda text: _between(text, "[", ", ", ", ", ", ", "]"),
    "four in brackets": re.compile(rf"\({_FOUR}\)").findall,
    "two spaced pairs": _two_spaced_pairs,
    "nested list": re.compile(r"\[\[(\d*+),(\d*+),(\d*+),(\d*+)\]\]").findall,  # KARL's only
}
"""The forms in the order of the published scorers; the first form that matches decides, by its last match."""


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


def published_numbers(text: str, release: Release = "karl") -> tuple[tuple[float, float, float, float], str | None]:
    """Read model text as a published scorer does: (x1, y1, x2, y2) on 1000 x 1000 and the form that matched.

    Text without a form gives four zeros and None; so do words where numbers should be, with the form's name. Four
    numbers with a sum below 4 count as shares and are multiplied by 1000. Nothing is clipped or reordered.
    """
    if release == "karl":
        if tagged := _between(text, "<answer>", "</answer>"):  # an answer over two lines is not seen
            text = tagged[0][0]
        block, closing, _ = text.partition("```json")[2].partition("```")
        text = block if closing else text
    for name, form in PUBLISHED_FORMS.items():
        if (hits := form(text)) and (release == "karl" or name != "nested list"):
            first, *others = hits[-1]
            try:
                x1, y1, x2, y2 = map(float, (first.replace("[", "").replace("x", ""), *others))
            except ValueError:
                return (0.0, 0.0, 0.0, 0.0), name
            scale = 1000.0 if sum((x1, y1, x2, y2)) < 4 else 1.0
            return (x1 * scale, y1 * scale, x2 * scale, y2 * scale), name
    return (0.0, 0.0, 0.0, 0.0), None


def published_ious(text: str, gold: Box) -> dict[str, float]:
    """Return the IoU of the gold box and the one that is read by each of `RULES`; 0.5 or more is a hit."""
    return {rule: _iou(published_numbers(text, release)[0], gold) for rule, release in RULES.items()}


def _iou(numbers: tuple[float, ...], gold: Box) -> float:
    """Return the IoU in float32, as the published scorers compute it; 0 where it is not a positive number."""
    import numpy as np

    with np.errstate(all="ignore"):
        a, b = (np.array(box, dtype=np.float32) for box in (numbers, gold.to_xyxy(FRAME)))
        shared = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0).prod()
        iou = shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared)
    return float(iou) if iou > 0 else 0.0


def domain_order(domain: str) -> tuple[int, str]:
    """Return the sort key of a domain: the benchmark's own first, seen before unseen, then others by name."""
    known = (*SEEN_DOMAINS, *UNSEEN_DOMAINS)
    return known.index(domain) if domain in known else len(known), domain


def published_rows() -> list[dict[str, Any]]:
    """Return the published results: `model`, `source`, `acc` (percent, by domain and seen, unseen, all), `note`."""
    import yaml

    return yaml.safe_load(Path(__file__).with_name("kvg_published.yaml").read_text(encoding="utf-8"))["rows"]


def read_parquet(
    path: str | Path, images_folder: str | Path, *, limit: int | None = None, left_out: list[str] | None = None
) -> list[Sample]:
    """Read the official parquet and write each image once to `images_folder`, named by its hash.

    `image` of the samples is an absolute path. Cases with the same image share a `group`, and their entities are each
    other's `things`. `seen` stays None: whether an entity was trained on depends on the model, not on the benchmark.
    Cases whose gold box cannot be used are named in `left_out`; without it they are an error. Raises `RecordError`: a
    missing column, or an unreadable answer or image (names file, row and field).
    """
    path, folder = Path(path), Path(images_folder).resolve()
    rows, bad = [], [] if left_out is None else left_out
    for number, row in enumerate(islice(_rows(path), limit)):
        try:
            rows.append(_sample(row, f"{path}: row {number}", folder))
        except BoxError as error:
            bad.append(str(error))
    if bad and (left_out is None or not rows):
        raise RecordError(bad[0])
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
        raise BoxError(f"{where}: field answer: no entity and box in {answer!r:.120}")
    try:
        box = Box.from_xyxy(tuple(float(number) for number in gold.groups()), FRAME)
        file = _save(case.image.data, folder)
        size, box = image_size(file), box.oriented(exif_orientation(file))  # the gold box is on the image as stored
    except BoxError as error:
        raise BoxError(f"{where}: field answer: {error}") from None
    except ImageError as error:
        raise RecordError(f"{where}: field image: {error}") from None
    about = (str(file), size, case.category, entity[1].strip(), question, (box,))
    origin = {"source": "kvg-bench"}
    return Sample(str(case.question_id), "ground", *about, split="test", group=file.stem, provenance=origin)


def _save(data: bytes, folder: Path) -> Path:
    """Write image bytes to a file named by their hash, unless it exists; return its path."""
    suffix = _SUFFIX.get(image_format(data, "its bytes"), ".png")
    path = folder / f"{hashlib.sha256(data).hexdigest()[:20]}{suffix}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)
    return path

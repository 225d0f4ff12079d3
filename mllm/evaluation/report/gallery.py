"""Samples, bags or the outputs of a benchmark, as one self-contained page of images with filters.

All text of models and files is escaped, and the content security policy allows our own script alone, by its hash.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm.data.bags import Bag
from mllm.errors import FieldmarkError
from mllm.evaluation import runs
from mllm.evaluation.report import caption_bags
from mllm.evaluation.report.pages import render, shortened
from mllm.evaluation.scores import Case
from mllm.io.drawing import ANSWER_COLOUR, CANDIDATE_COLOUR, GOLD_COLOUR, DrawnBox, data_uri, draw
from mllm.io.files import atomic_write
from mllm.io.images import open_image
from mllm.io.jsonl import read_jsonl
from mllm.records import REFERENCE, Sample, image_path, load_samples

SIDE, BAG_SIDE = 360, 200
"""Longest side of an image in pixels, alone and in a bag."""
TEXT_LIMIT = 4000
"""Maximum number of characters shown of one text."""
SCRIPT = """
const cards = [...document.querySelectorAll('.card')], form = document.querySelector('form');
function look() {
  const on = Object.fromEntries(new FormData(form)), words = on.words.toLowerCase();
  let left = 0;
  for (const card of cards) {
    const iou = card.dataset.iou === '' ? null : Number(card.dataset.iou);
    const fits = (!on.domain || card.dataset.domain === on.domain)
      && (!on.outcome || card.dataset.outcome === on.outcome)
      && (iou === null || (iou >= Number(on.low || 0) && iou <= Number(on.high || 1)))
      && card.textContent.toLowerCase().includes(words);
    card.hidden = !fits; left += fits;
  }
  document.querySelector('#left').textContent = left + ' of ' + cards.length + ' shown';
}
form.addEventListener('input', look); form.addEventListener('submit', e => e.preventDefault()); look();
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One card of a gallery. `images` are those of a bag, `uri` the image of a single sample."""

    id: str
    domain: str
    question: str
    seen: bool | None
    outcome: str
    iou: float | None
    text: str = ""
    uri: str | None = None
    images: tuple[dict[str, Any], ...] = ()


def write(source: str | Path, out: str | Path, *, count: int = 200, samples: str | Path | None = None) -> Path:
    """Write the page of a source; at most `count` (at least 1) entries, evenly spread.

    Sources are a samples file, a file of bags (`samples` is the file with their images), a folder of
    `eval/kvg_bench.py`, or one of `eval/captions.py` with the scores of `eval/truematch.py` in it. Raises
    `FieldmarkError`: another source, a bad row, a missing image.
    """
    source, file = Path(source), None if samples is None else Path(samples)
    if count < 1:
        raise FieldmarkError(f"count must be at least 1, got {count}")
    measure = None
    if (source / caption_bags.SCORES).is_file():
        judged = caption_bags.load(source)
        rows = [(size, bag, names) for size in judged.sizes for bag, names in judged.bags(size).items()]
        entries, measure = _judged(judged, _spread(rows, count)), "share found"
    elif source.is_dir():
        run = runs.load(source)
        rows, measure = run.cases, "IoU"
        entries = [_answered(case, run.image(case)) for case in _spread(rows, count)]
    elif _holds_bags(source):
        if file is None:
            raise FieldmarkError(f"{source} holds bags, which name images by id; give their samples as --samples FILE")
        rows = list(read_jsonl(source, Bag, unique="id"))
        entries = _mined(_spread(rows, count), file)
    else:
        rows = load_samples(source, images=True)
        entries = [_question(sample, image_path(source, sample)) for sample in _spread(rows, count)]
    with atomic_write(Path(out)) as page:
        page.write(html(str(source), entries, len(rows), measure=measure))
    return Path(out)


def _holds_bags(file: Path) -> bool:
    """Whether the first row of a file is a bag. An unreadable file is not; reading its samples names the error."""
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            return Bag.SCHEMA in lines.readline(TEXT_LIMIT)
    except OSError:
        return False


def html(title: str, entries: Sequence[Entry], every: int, *, measure: str | None) -> str:
    """Write the page; `every` is the number of the source's entries, `measure` the name of the answers' score."""
    code = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    domains, outcomes = ({getattr(entry, name) for entry in entries} for name in ("domain", "outcome"))
    filters = {"domains": sorted(domains - {""}), "outcomes": sorted(outcomes), "script": SCRIPT, "script_hash": code}
    return render("gallery.html.jinja", title=title, entries=entries, every=every, measure=measure, **filters)


def _question(sample: Sample, path: Path) -> Entry:
    """Return a sample's entry: the things asked for in green, others in blue, numbered as in its thought."""
    boxes = [
        DrawnBox(thing.box, f"{k + 1} {thing.entity}", GOLD_COLOUR if thing.box in sample.boxes else CANDIDATE_COLOUR)
        for k, thing in enumerate(sample.things)
    ]
    if not sample.things:
        boxes = [DrawnBox(box, sample.entity, GOLD_COLOUR) for box in sample.boxes]
    thought = REFERENCE.sub(lambda found: f"[{int(found[1]) + 1}]", sample.thought or "")
    text = "\n".join(part for part in (thought, *sample.captions) if part)
    return _entry(sample, path, boxes, sample.kind or sample.task, text, None)


def _answered(case: Case, path: Path) -> Entry:
    """Return the entry of an answer: the true boxes solid, the model's dashed."""
    sample, answer = case.sample, case.completion.answer
    boxes = [DrawnBox(box, sample.entity, GOLD_COLOUR) for box in sample.boxes]
    boxes += [DrawnBox(box, f"IoU {case.iou:.2f}", ANSWER_COLOUR, dashed=True) for box in answer.boxes]
    outcome = answer.problem or ("hit" if case.hit else "miss")
    return _entry(sample, path, boxes, outcome, case.completion.text, case.iou)


def _mined(bags: Sequence[Bag], samples_file: Path) -> list[Entry]:
    """Return the entries of mined bags: the images side by side, with the captions of the samples file."""
    known = {sample.id: sample for sample in load_samples(samples_file)}
    no_match = {"found": None, "right": None, "marks": ""}
    entries = []
    for bag in bags:
        if missing := [name for name in bag.members if name not in known]:
            raise FieldmarkError(f"bag {bag.id}: {samples_file} holds no sample {missing[0]!r}")
        members = [known[name] for name in bag.members]
        rows = [
            {**_bag_image(one, samples_file, k), "caption": " ".join(one.captions[:1]), **no_match}
            for k, one in enumerate(members, 1)
        ]
        similarity = "" if bag.similarity is None else f", similarity {bag.similarity:.2f}"
        title = f"{len(members)} look-alikes{similarity}"
        outcome, first = bag.level or "bag", members[0]
        entries.append(Entry(bag.id, first.domain, title, first.seen, outcome, None, images=tuple(rows)))
    return entries


def _judged(run: caption_bags.JudgedCaptions, chosen: list[tuple[str, str, list[str]]]) -> list[Entry]:
    """Return the entries of bags with a model's captions and the image each retrieved; the score is the share right."""
    entries = []
    for size, bag, names in chosen:
        rows = [
            _bag_image(run.samples[name], run.folder / "samples.jsonl", k) | run.match_row(size, bag, name, names)
            for k, name in enumerate(names, 1)
        ]
        matches = run.matches(size)
        share = sum(matches[bag, name]["hit"] for name in names) / len(names)
        right = sum(row["right"] for row in rows)
        title = f"bag {bag}: {right} of its {len(names)} captions retrieve their own image"
        outcome = "all found" if right == len(names) else "none found" if right == 0 else "some found"
        first = run.samples[names[0]]
        entries.append(Entry(f"{size}-{bag}", first.domain, title, first.seen, outcome, share, images=tuple(rows)))
    return entries


def _bag_image(sample: Sample, file: Path, number: int) -> dict[str, Any]:
    return {"id": sample.id, "number": number, "uri": data_uri(open_image(image_path(file, sample)), BAG_SIDE)}


def _entry(sample: Sample, path: Path, boxes: Sequence[DrawnBox], outcome: str, text: str, iou: float | None) -> Entry:
    uri = data_uri(draw(open_image(path), boxes, side=SIDE), SIDE)
    shown = shortened(text, TEXT_LIMIT)
    return Entry(sample.id, sample.domain, sample.question, sample.seen, outcome, iou, shown, uri)


def _spread(rows: Sequence[Any], count: int) -> list[Any]:
    return [rows[len(rows) * k // count] for k in range(count)] if len(rows) > count else list(rows)

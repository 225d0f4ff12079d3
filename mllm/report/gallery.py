"""Samples, or the outputs of a benchmark, as one self-contained page of pictures that can be filtered.

The page needs nothing but itself. All text of models and files is escaped, and only our own script may run on it: the
page's policy names that script's hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mllm import pictures, runs
from mllm.errors import FieldmarkError
from mllm.records import REFERENCE, Sample, atomic_write, image_path, load_samples
from mllm.report.drawing import ANSWER_COLOUR, CANDIDATE_COLOUR, GOLD_COLOUR, Mark, data_uri, draw

SIDE = 360
TEXT_LIMIT = 4000
"""Most characters of one text that the page shows."""
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


def write(source: str | Path, out: str | Path, *, count: int = 200) -> Path:
    """Write the page of a samples file, or of a benchmark folder; at most `count` entries, evenly spread.

    Raises:
        FieldmarkError: neither of the two, a bad row, a picture that is missing.
    """
    source = Path(source)
    if count < 1:
        raise FieldmarkError(f"count must be at least 1, got {count}")
    if source.is_dir():
        run = runs.load(source)
        made = [_answered(case, run.picture(case)) for case in _spread(run.cases, count)]
        whole_size, scored = len(run.cases), True
    else:
        samples = load_samples(source, images=True)
        made = [_asked(sample, image_path(source, sample)) for sample in _spread(samples, count)]
        whole_size, scored = len(samples), False
    with atomic_write(Path(out)) as file:
        file.write(html(str(source), made, whole_size, scored=scored))
    return Path(out)


def html(title: str, entries: Sequence[dict[str, Any]], every: int, *, scored: bool) -> str:
    """Write the page; `every` is how many entries the source has."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("mllm.report", "."), autoescape=True, undefined=StrictUndefined)
    code = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return environment.get_template("gallery.html.jinja").render(
        title=title,
        entries=entries,
        every=every,
        scored=scored,
        script=SCRIPT,
        script_hash=code,
        domains=sorted({entry["domain"] for entry in entries}),
        outcomes=sorted({entry["outcome"] for entry in entries}),
    )


def _asked(sample: Sample, path: Path) -> dict[str, Any]:
    """Return a sample's entry: what is asked for in green, others in blue, numbered as in its thought."""
    marks = [
        Mark(thing.box, f"{k + 1} {thing.entity}", GOLD_COLOUR if thing.box in sample.boxes else CANDIDATE_COLOUR)
        for k, thing in enumerate(sample.things)
    ]
    if not sample.things:
        marks = [Mark(box, sample.entity, GOLD_COLOUR) for box in sample.boxes]
    thought = REFERENCE.sub(lambda found: f"[{int(found[1]) + 1}]", sample.thought or "")
    text = "\n".join(part for part in (thought, *sample.captions) if part)
    return _entry(sample, path, marks, text, str(sample.provenance.get("kind", sample.task)), None)


def _answered(case: Any, path: Path) -> dict[str, Any]:
    """Return the entry of an answer: the true boxes solid, the model's dashed."""
    sample, answer = case.sample, case.completion.answer
    marks = [Mark(box, sample.entity, GOLD_COLOUR) for box in sample.boxes]
    marks += [Mark(box, f"IoU {case.iou:.2f}", ANSWER_COLOUR, dashed=True) for box in answer.boxes]
    outcome = answer.problem or ("hit" if case.hit else "miss")
    return _entry(sample, path, marks, case.completion.text, outcome, case.iou)


def _entry(
    sample: Sample, path: Path, marks: Sequence[Mark], text: str, outcome: str, iou: float | None
) -> dict[str, Any]:
    return {
        "id": sample.id,
        "domain": sample.domain,
        "question": sample.question,
        "seen": sample.seen,
        "text": text if len(text) <= TEXT_LIMIT else text[:TEXT_LIMIT] + " […]",
        "outcome": outcome,
        "iou": iou,
        "uri": data_uri(draw(pictures.load(path), marks, side=SIDE), SIDE),
    }


def _spread(rows: Sequence[Any], count: int) -> list[Any]:
    """Return `count` rows, evenly spread."""
    return [rows[len(rows) * k // count] for k in range(count)] if len(rows) > count else list(rows)

"""Contact sheets: pages of samples with boxes, question and thought, to look at before training.

Things asked for are green, other things orange; the numbers are those of the candidates in the thought.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mllm.io.drawing import ANSWER_COLOUR, GOLD_COLOUR, DrawnBox, draw
from mllm.io.images import open_image, save_image
from mllm.io.jsonl import read_jsonl
from mllm.records import REFERENCE, SPLITS, Sample

ACROSS, DOWN = 3, 2
CELL, TEXT = 480, 190
"""Side of an image's cell and height of the text below it, pixels."""
_LINE, _FONT, _WIDTH, _LINES = 17, 13, 70, 11


def write(folder: Path, count: int) -> list[Path]:
    """Write pages of `count` samples of each side, evenly spread, to `folder/sheets`; return their paths."""
    made = []
    for side in SPLITS:
        chosen = _spread(folder / f"{side}.jsonl", count)
        for page in range(0, len(chosen), ACROSS * DOWN):
            path = folder / "sheets" / f"{side}-{page // (ACROSS * DOWN) + 1:02d}.png"
            path.parent.mkdir(exist_ok=True)
            save_image(sheet(folder, chosen[page : page + ACROSS * DOWN]), path)
            made.append(path)
    return made


def sheet(folder: Path, samples: Sequence[Sample]) -> Image.Image:
    """Draw one page; the samples' image paths are relative to `folder`."""
    rows = -(-len(samples) // ACROSS)
    page = Image.new("RGB", (ACROSS * CELL, rows * (CELL + TEXT)), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=_FONT)
    for place, sample in enumerate(samples):
        x, y = place % ACROSS * CELL, place // ACROSS * (CELL + TEXT)
        boxes = [
            DrawnBox(thing.box, str(k + 1), GOLD_COLOUR if thing.box in sample.boxes else ANSWER_COLOUR)
            for k, thing in enumerate(sample.things)
        ]
        thumbnail = draw(open_image(folder / sample.image), boxes, side=CELL - 10)
        thumbnail.thumbnail((CELL - 10, CELL - 10))
        page.paste(thumbnail, (x + 5, y + 5))
        for number, line in enumerate(_text(sample)):
            pen.text((x + 6, y + thumbnail.height + 8 + number * _LINE), line, fill="black", font=font)
    return page


def _spread(file: Path, count: int) -> list[Sample]:
    """Read `count` rows, evenly spread over the file."""
    rows = sum(1 for _ in file.open("rb"))
    wanted = {rows * k // count for k in range(count)} if count else set()
    return [sample for number, sample in enumerate(read_jsonl(file, Sample)) if number in wanted]


def _text(sample: Sample) -> list[str]:
    """Return the lines below an image, as many as fit: id, kind, question and thought, or id and captions."""
    if sample.task == "caption":  # the training caption, then the human ones
        trained = f"> {sample.captions[0]}" if sample.captions else "(no caption)"
        texts = [trained, *(f"- {caption}" for caption in sample.human_captions)]
        return [sample.id, *(line for text in texts for line in textwrap.wrap(text, _WIDTH))][:_LINES]
    stratum = f"{sample.kind or sample.task}, {sample.stratum or sample.split}"
    texts = (sample.question, sample.thought or "(no thought)")
    numbered = (REFERENCE.sub(lambda found: f"[{int(found[1]) + 1}]", text) for text in texts)
    lines = [f"{sample.id} ({stratum})", *(line for text in numbered for line in textwrap.wrap(text, _WIDTH))]
    return lines if len(lines) <= _LINES else [*lines[: _LINES - 1], lines[_LINES - 1][: _WIDTH - 4] + " ..."]

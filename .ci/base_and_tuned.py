"""Draw docs/images/base_and_tuned.png: the same questions, answered by the base and by a fine-tuned model.

    python .ci/base_and_tuned.py        # after `make demo`

The examples are chosen: the first test samples in the demo's order, one a domain, which the base misses and the model
of `recipes/sft_direct.yaml` finds. The true box is solid and green, the answered one dashed and orange.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mllm.evaluation import runs  # noqa: E402
from mllm.evaluation.scores import Case  # noqa: E402
from mllm.io import drawing  # noqa: E402

ROWS = {"base": "the base, before fine-tuning", "SFT": "the same model after fine-tuning"}
"""Folder of the demo's benchmark -> title of its row."""
COLUMNS, WIDE, HIGH, GAP, TITLE = 4, 265, 205, 12, 26
COLOURS = 128


def chosen(demo: Path) -> Iterator[tuple[Case, Case, Path]]:
    """Yield base's and tuned model's case and the image of the examples, one a domain."""
    base, tuned = (runs.load(demo / "eval" / name) for name in ROWS)
    domains: set[str] = set()
    for before, after in zip(base.cases, tuned.cases, strict=True):
        wide = before.sample.size.width > before.sample.size.height
        shown = before.completion.answer.box is not None and not before.hit and after.hit and wide
        if shown and before.sample.domain not in domains:
            domains.add(before.sample.domain)
            yield before, after, base.image(before)


def panel(case: Case, file: Path) -> Image.Image:
    """Draw one answer, with the true box under it, on a panel of `WIDE` x `HIGH`."""
    box = case.completion.answer.box
    assert box is not None
    marks = [
        drawing.Mark(case.sample.boxes[0], case.sample.entity, drawing.GOLD_COLOUR),
        drawing.Mark(box, "answer", drawing.ANSWER_COLOUR, dashed=True),
    ]
    with Image.open(file) as image:
        drawn = drawing.draw(image, marks, side=2 * WIDE)
    drawn.thumbnail((WIDE, HIGH), Image.Resampling.LANCZOS)
    room = Image.new("RGB", (WIDE, HIGH), "white")
    room.paste(drawn, ((WIDE - drawn.width) // 2, (HIGH - drawn.height) // 2))
    return room


def poster(demo: Path) -> Image.Image:
    """Set the panels into two titled rows."""
    examples = [example for example, _ in zip(chosen(demo), range(COLUMNS), strict=False)]
    width, height = COLUMNS * (WIDE + GAP) + GAP, len(ROWS) * (HIGH + GAP + TITLE) + GAP
    sheet = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=17)
    for row, title in enumerate(ROWS.values()):
        top = GAP + row * (HIGH + GAP + TITLE)
        pen.text((GAP, top), title, fill="#24292f", font=font)
        for column, example in enumerate(examples):
            sheet.paste(panel(example[row], example[2]), (GAP + column * (WIDE + GAP), top + TITLE))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=ROOT / "runs" / "demo", help="what `make demo` left")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "base_and_tuned.png")
    options = parser.parse_args()
    image = poster(options.demo).quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    image.save(options.out, optimize=True)
    print(f"{options.out}: {image.width} x {image.height}, {options.out.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()

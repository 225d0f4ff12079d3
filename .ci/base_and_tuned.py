"""Draw docs/images/base_and_tuned.png: the same questions, answered by the base and by a fine-tuned model.

    python .ci/base_and_tuned.py        # after `make demo`

Both answer the demo's test samples. The base is asked to reason first, since it mostly gives no box otherwise; the
tuned model is that of `recipes/sft_direct.yaml`. The examples are chosen: the first samples on a square image, one a
domain, where the base gives a wrong box and the tuned model the right one. The true box is solid and green, the
answered one dashed and orange.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mllm.evaluation import runs  # noqa: E402
from mllm.evaluation.scores import Case  # noqa: E402
from mllm.io import drawing  # noqa: E402

ROWS = ("The base", "After fine-tuning")
COLUMNS, SIDE, GAP, TITLE = 3, 262, 14, 28
COLOURS = 128


def ask_base(demo: Path) -> Path:
    """Let the base answer the demo's test samples, reasoning first; a second call finds them answered."""
    out = demo / "eval" / "base-think"
    words = ["--model", "pocket", "--style", "think", "--max-new-tokens", "192", "--batch-size", "48"]
    words += ["--samples", str(demo / "data" / "test.jsonl"), "--out", str(out)]
    subprocess.run([sys.executable, "-m", "eval.kvg_bench", *words], cwd=ROOT, check=True)
    return out


def examples(base: Path, tuned: Path) -> Iterator[tuple[Case, Case, Path]]:
    """Yield the base's case, the tuned model's and the image of each example."""
    before, after = runs.load(base), runs.load(tuned)
    domains: set[str] = set()
    for wrong, right in zip(before.cases, after.cases, strict=True):
        sample = wrong.sample
        square = sample.size.width == sample.size.height and len(sample.things) > 2
        differ = wrong.completion.answer.box is not None and wrong.iou == 0 and right.hit
        if square and differ and sample.domain not in domains:
            domains.add(sample.domain)
            yield wrong, right, before.image(wrong)


def panel(case: Case, file: Path) -> Image.Image:
    """Draw one answer over the true box."""
    box = case.completion.answer.box
    assert box is not None
    marks = [
        drawing.DrawnBox(case.sample.boxes[0], case.sample.entity, drawing.GOLD_COLOUR),
        drawing.DrawnBox(box, f"IoU {case.iou:.2f}", drawing.ANSWER_COLOUR, dashed=True),
    ]
    with Image.open(file) as image:
        return drawing.draw(image, marks, side=SIDE).resize((SIDE, SIDE))


def poster(base: Path, tuned: Path) -> Image.Image:
    """Set the panels into two titled rows."""
    columns = [example for example, _ in zip(examples(base, tuned), range(COLUMNS), strict=False)]
    height = len(ROWS) * (SIDE + GAP + TITLE) + GAP
    sheet = Image.new("RGB", (COLUMNS * (SIDE + GAP) + GAP, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=19)
    for row, title in enumerate(ROWS):
        top = GAP + row * (SIDE + GAP + TITLE)
        pen.text((GAP, top), title, fill="#24292f", font=font)
        for column, example in enumerate(columns):
            sheet.paste(panel(example[row], example[2]), (GAP + column * (SIDE + GAP), top + TITLE))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=ROOT / "runs" / "demo", help="what `make demo` left")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "base_and_tuned.png")
    options = parser.parse_args()
    sheet = poster(ask_base(options.demo.resolve()), options.demo / "eval" / "SFT")
    image = sheet.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    image.save(options.out, optimize=True)
    print(f"{options.out}: {image.width} x {image.height}, {options.out.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()

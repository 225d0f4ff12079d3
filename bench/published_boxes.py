"""Inputs and outputs of KVG-Bench's own scorers (both releases), as the table that the tests compare ours with.

    python bench/published_boxes.py --karl KARL/karl/eval/evaluate.py --first OLD/deepperception/eval/evaluate.py

Both files are in github.com/thunlp/KARL: the first at its head, the second in `git show 01b53d6^:FILE`. They are run as
they are, apart from three imports (datasets, torchvision, tqdm) and KARL's knowledge files, which the reading of boxes
does not need. The texts are drawn by a seed: forms of answers, whole ones and random joins of their fragments.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import gzip
import importlib.util
import io
import json
import random
import sys
import types
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parents[1] / "tests/support/kvg_published.jsonl.gz"
NUMBERS = "0 1 5 10 100 250 300 499.5 500 640 700 900 999 1000 0.1 0.25 0.9 -3 1e2 nan inf 1_0 x300 [300".split()
NUMBERS += ["", " 40", "50 ", "７０", "left", "(red", "7\n8"]
LOW, HIGH = ("10", "100", "200"), ("480", "600.5", "640", "990")
BOXES = ("(A,B),(C,D)", "(A, B), (C, D)", "(A, B)\n(C, D)", "(A, B)\n\n(C, D)", "(A, B) to\n(C, D)", "[A, B, C, D]")
BOXES += ("[A,B,C,D]", "(A, B, C, D)", "(A,B,C,D)", "[[A,B,C,D]]", "[[A, B, C, D]]", "[(A,B),(C,D)]", "([A,B),(C,D)")
BOXES += ("(A,B) and (C,D)", "<|box_start|>(A,B),(C,D)<|box_end|>", "A, B, C, D", "(A,B)", "(A,B),(C,D", "(xA,B),(C,D)")
BOXES += ('{"bbox_2d": [A, B, C, D], "label": "a, b"}', '[{"bbox_2d": [A,B,C,D]}]', "(A;B),(C;D)", "[A, B], [C, D]")
FRAMES = ("@", "<answer>@</answer>", "<answer>\n@\n</answer>", "<think>@</think><answer>@</answer>", "<answer>@")
FRAMES += ("```json\n@\n```", "```json\n@", "<answer>```json@```</answer>", "<answer>```json@</answer>", "``` @ ```")
FRAMES += (
    "So the answer is @",
    "So the answer is the small, red one (left, top) @.",
    "<answer>the one @ here</answer>",
)
FRAMES += ("It (a bird, small) is at @.", "<answer>(3, maybe) @</answer>", "@\nSo the answer is\n@", "@ or @", "@\r\n@")
FRAMES += (
    "<answer>@</answer> <answer>@</answer>",
    "<answer><answer>@</answer>",
    "```json@``` ```json@```",
    "so the answer is @",
)
PIECES = [
    "(",
    ")",
    "[",
    "]",
    ",",
    ", ",
    "),(",
    "\n",
    " ",
    "<answer>",
    "</answer>",
    "So the answer is",
    "```json",
    "```",
]
PIECES += ["[[", "]]", "12", "345", "6", "0.5", "x", "word", "(1,", "2),(3,4)", "(5, 6)", ".", "-", "\u2028", "\t"]


def drawn(count: int, seed: int) -> list[str]:
    """Return distinct texts: every box in every frame, then answers with other numbers, and joined fragments."""
    random_ = random.Random(seed)

    def number(letter: str, odd: float) -> str:
        return random_.choice(NUMBERS if random_.random() < odd else LOW if letter in "AB" else HIGH)

    def framed(frame: str, box: str | None, odd: float) -> str:
        first, *rest = frame.split("@")
        boxes = [box or random_.choice(BOXES) for _ in rest]
        filled = ["".join(number(part, odd) if part in "ABCD" else part for part in text) for text in boxes]
        return first + "".join(map(str.__add__, filled, rest))

    texts = dict.fromkeys(framed(frame, box, 0) for frame in FRAMES for box in BOXES)
    while len(texts) < count:
        if random_.random() < 0.5:
            text = framed(random_.choice(FRAMES), None, random_.choice((0.1, 0.4)))
        else:
            text = "".join(random_.choice(PIECES) for _ in range(random_.randint(4, 30)))
        texts[text] = None
    return list(texts)


def official(path: Path) -> types.ModuleType:
    """Import an official scorer; what it needs beside torch is stood in for."""
    boxes = types.ModuleType("torchvision.ops.boxes")
    boxes.box_area = lambda b: (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])  # type: ignore[attr-defined]
    for name in ("datasets", "tqdm", "torchvision", "torchvision.ops"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules.setdefault("torchvision.ops.boxes", boxes)
    sys.modules["datasets"].load_dataset = None  # type: ignore[attr-defined]
    sys.modules["tqdm"].tqdm = iter  # type: ignore[attr-defined]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module, opened = importlib.util.module_from_spec(spec), builtins.open
    builtins.open = lambda file, *rest, **more: (  # type: ignore[assignment]
        io.StringIO("{}") if str(file).startswith("/path/to/") else opened(file, *rest, **more)
    )
    try:
        spec.loader.exec_module(module)
    finally:
        builtins.open = opened
    return module


def read(scorer: types.ModuleType, text: str, gold: list[int], *, nested: bool) -> list[Any]:
    """Return [its numbers, the number of the pattern that matched, its IoU] for one text."""
    row: dict[str, Any] = {"answer": text, "gt_bbox": [gold]}
    with contextlib.redirect_stdout(io.StringIO()):
        if nested:
            scorer.calculate_ious("", [{"result": row}], None)
        else:
            scorer.calculate_ious("", [row])
    return [[float(number) for number in row["pred_bbox"]], row["match pattern"], float(row["iou"])]


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--karl", type=Path, required=True, help="the head's evaluate.py")
    parser.add_argument("--first", type=Path, required=True, help="the first release's evaluate.py")
    parser.add_argument("--count", type=int, default=3000, help="number of texts")
    parser.add_argument("--seed", type=int, default=0, help="seed of the texts")
    options = parser.parse_args()
    karl, first = official(options.karl), official(options.first)
    random_ = random.Random(1)
    lines = []
    for text in drawn(options.count, options.seed):
        gold = [*random_.choices((10, 100, 200), k=2), *random_.choices((480, 640, 990), k=2)]
        row = [text, gold, read(karl, text, gold, nested=True), read(first, text, gold, nested=False)]
        lines.append(json.dumps(row, separators=(",", ":")))
    TABLE.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    print(f"{TABLE}: {len(lines)} texts, {TABLE.stat().st_size} bytes")


if __name__ == "__main__":
    main()

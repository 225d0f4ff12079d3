"""A model's captions, written down: what truematch.py, random_distractors.py, imagecode.py and finecapeval.py measure.

    python eval/captions.py --model DIR --samples runs/pocket/captions/test.jsonl --out DIR
    python eval/captions.py --model DIR --images truematch_images --out DIR      # ids are the files' names, or COCO's
    python eval/truematch.py --captions DIR/outputs.jsonl --samples ... --bags ...

Each image is captioned once, on its own: nothing of its look-alikes is seen. Captions are written down as they come,
and a stopped run goes on. Told are their length and variety, and where the marks are known how many claims are true.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from mllm.captions import QUESTION, caption_of
from mllm.cli.programs import run_main
from mllm.data import caption_stats
from mllm.errors import FieldmarkError
from mllm.evaluation import generate_missing, runs
from mllm.io import provenance
from mllm.io.images import image_size
from mllm.records import Sample, load_samples

VERSION = "1"
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
_COCO = re.compile(r"COCO_\w+_0*(\d+)")


def main(argv: list[str] | None = None) -> None:
    """Write what is missing, then tell what the captions are like."""
    options = parser().parse_args(argv)
    if not options.rescore:
        answer(options)
    show(Path(options.out))


def answer(options: argparse.Namespace) -> None:
    """Caption every image that has no caption yet."""
    samples, root, source = from_samples(options) if options.samples else from_folder(options)
    checkpoint = generate_missing.open_for(options)
    info = generate_missing.settings(options, checkpoint, "captions", VERSION, source)
    generate_missing.ask(options, checkpoint, samples, root, info)


def from_samples(options: argparse.Namespace) -> tuple[list[Sample], Path, dict[str, object]]:
    """Read the caption rows of a samples file."""
    file = Path(options.samples)
    rows = [sample for sample in load_samples(file) if sample.task == "caption"][: options.limit]
    if not rows:
        raise FieldmarkError(f"{file}: no sample has task 'caption'")
    return rows, file.parent, {"file": str(file), "hash": provenance.file_hash(file), "count": len(rows)}


def from_folder(options: argparse.Namespace) -> tuple[list[Sample], Path, dict[str, object]]:
    """Make a sample of every image of a folder."""
    if options.images is None or not Path(options.images).is_dir():
        raise FieldmarkError("name what to caption: --samples FILE, or --images, a folder of images")
    folder = Path(options.images)
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)[: options.limit]
    rows = [
        Sample(
            id=name(path), task="caption", image=path.name, size=image_size(path), domain="scene", entity="",
            question=options.question, boxes=(), split="test",
        )
        for path in files
    ]  # fmt: skip
    ids = [row.id for row in rows]
    if not rows or len(set(ids)) < len(ids):
        twice = next((one for one in ids if ids.count(one) > 1), None)
        raise FieldmarkError(f"{folder}: " + (f"two images are called {twice!r}" if twice else "no image in it"))
    return rows, folder, {"file": str(folder), "count": len(rows), "question": options.question}


def name(path: Path) -> str:
    """The id of an image file: COCO's number where it has COCO's name, else its name."""
    found = _COCO.fullmatch(path.stem)
    return found[1] if found else path.stem


def show(out: Path) -> None:
    """Print what the captions are like, and write it to scores.json."""
    info, samples, rows = runs.read_whole(out)
    captions = {sample.id: caption_of(rows[sample.id]) for sample in samples}
    text = caption_stats.caption_scores(captions, samples)
    text["truncated"] = sum(row.truncated for row in rows.values()) / len(rows)
    runs.write_json(out, "scores.json", {**info, "text": text})
    told = (
        f"{text['captions']} captions of {info['model']}, {text['words']:.1f} words, distinct-2 {text['distinct2']:.3f}"
    )
    for which in ("precision", "recall"):
        told += f", marks' {which} {text[which]['value']:.1%}" if which in text else ""
    print(f"{told}, {text['truncated']:.1%} cut off\nwritten: {out / 'outputs.jsonl'}")


def parser() -> argparse.ArgumentParser:
    """Every flag."""
    plain = argparse.RawDescriptionHelpFormatter
    built = argparse.ArgumentParser(prog="captions", description=__doc__, formatter_class=plain)
    for flag, about in generate_missing.FLAGS.items():
        built.add_argument(flag, **about)
    built.add_argument("--samples", help="samples file of ours")
    built.add_argument("--images", help="folder of images, where there is no samples file")
    built.add_argument("--question", default=QUESTION, help="what is asked, with --images")
    built.add_argument("--out", default="runs/captions", help="folder of the captions")
    built.add_argument("--max-new-tokens", type=int, default=128)
    return built


if __name__ == "__main__":
    run_main(main)

"""Write a model's captions, for truematch.py, random_distractors.py, imagecode.py and finecapeval.py to measure.

    python eval/captions.py --model DIR --samples runs/pocket/captions/test.jsonl --out DIR
    python eval/captions.py --model DIR --images truematch_images --out DIR      # ids are the files' names, or COCO's
    python eval/imagecode.py --data valid_data.json --images image-sets --list > list.txt
    python eval/captions.py --model DIR --list list.txt --out DIR                # ids as in the list
    python eval/truematch.py --captions DIR/outputs.jsonl --samples ... --bags ...

Each image is captioned once, on its own: the model does not see its look-alikes. Captions are saved as they come, and
the same command continues a stopped run. Reports length, diversity and, where marks are known, claim precision.
"""

from __future__ import annotations

if __name__ == "__main__":
    from mllm import ctrl_c

    ctrl_c.end_at_once()  # while the imports below run

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from mllm.captions import QUESTION, caption_of
from mllm.cli.options import BenchmarkOptions
from mllm.cli.programs import parse, run_program
from mllm.data import caption_stats
from mllm.data.source_files import read_text
from mllm.errors import FieldmarkError
from mllm.evaluation import generate_missing, runs
from mllm.io import provenance
from mllm.io.images import image_size
from mllm.records import Sample, load_samples

VERSION = "1"
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


@dataclass(frozen=True)
class Options:
    samples: Path | None = None
    """samples file with images to caption"""
    images: Path | None = None
    """folder of images, if there is no samples file"""
    list: Path | None = None
    """file with lines of id, tab, image file (eval/imagecode.py --list writes it), instead of a folder"""
    question: str = QUESTION
    """question about each image, with --images and --list"""
    benchmark: BenchmarkOptions = BenchmarkOptions(out=Path("runs/captions"), max_new_tokens=128)


def main(argv: list[str] | None = None) -> None:
    """Write the missing captions, then show their statistics."""
    options = parse(Options, argv)
    if not options.benchmark.rescore:
        answer(options)
    show(options.benchmark.out)


def answer(options: Options) -> None:
    """Caption every image that has no caption yet."""
    limit = options.benchmark.limit
    if options.samples is not None:
        samples, root, source = from_samples(options.samples, limit)
    elif options.images is not None and options.images.is_dir():
        samples, root, source = from_folder(options.images, options.question, limit)
    elif options.list is not None:
        samples, root, source = from_list(options.list, options.question, limit)
    else:
        raise FieldmarkError("name what to caption: --samples FILE, --images FOLDER, or --list FILE")
    checkpoint = generate_missing.open_for(options.benchmark)
    info = generate_missing.settings(options.benchmark, checkpoint, "captions", VERSION, source)
    generate_missing.ask(options.benchmark, checkpoint, samples, root, info)


def from_samples(file: Path, limit: int | None) -> tuple[list[Sample], Path, dict[str, object]]:
    """Return the first caption rows of a samples file, the folder of its images, and what to record of it."""
    rows = [sample for sample in load_samples(file) if sample.task == "caption"][:limit]
    if not rows:
        raise FieldmarkError(f"{file}: no sample has task 'caption'")
    return rows, file.parent, {"file": str(file), "hash": provenance.file_hash(file), "count": len(rows)}


def from_folder(folder: Path, question: str, limit: int | None) -> tuple[list[Sample], Path, dict[str, object]]:
    """Make a sample of each of a folder's first images; returns the same as `from_samples`."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)[:limit]
    rows = _rows(folder, [(caption_stats.image_key(path.stem), path) for path in files], question)
    rows = [replace(row, image=Path(row.image).name) for row in rows]
    return rows, folder, {"file": str(folder), "count": len(rows), "question": question}


def from_list(file: Path, question: str, limit: int | None) -> tuple[list[Sample], Path, dict[str, object]]:
    """Make a sample of each of a list's first images; returns the same as `from_samples`."""
    pairs = []
    for number, line in enumerate(read_text(file).splitlines()[:limit], 1):
        key, _, image = line.partition("\t")
        if not key or not Path(image).is_file():
            raise FieldmarkError(f"{file}:{number}: an id, a tab and an image file are needed, got {line!r:.200}")
        pairs.append((key, Path(image).resolve()))
    rows = _rows(file, pairs, question)
    return rows, file.parent, {"file": str(file), "count": len(rows), "question": question}


def _rows(where: Path, pairs: list[tuple[str, Path]], question: str) -> list[Sample]:
    counts = Counter(key for key, _ in pairs)
    if not pairs or max(counts.values()) > 1:
        twice = next((key for key, count in counts.items() if count > 1), None)
        raise FieldmarkError(f"{where}: " + (f"two images are called {twice!r}" if twice else "no image found"))
    return [
        Sample(
            id=key, task="caption", image=str(path), size=image_size(path), domain="scene", entity="",
            question=question, boxes=(), split="test",
        )
        for key, path in pairs
    ]  # fmt: skip


def show(out: Path) -> None:
    """Print the captions' statistics, and write them to scores.json."""
    info, samples, rows = runs.read_whole(out)
    captions = {sample.id: caption_of(rows[sample.id]) for sample in samples}
    text = caption_stats.caption_scores(captions, samples)
    text["truncated"] = sum(row.truncated for row in rows.values()) / len(rows)
    runs.write_json(out, "scores.json", {**info, "text": text})
    summary = (
        f"{text['captions']} captions of {info['model']}, {text['words']:.1f} words, distinct-2 {text['distinct2']:.3f}"
    )
    for which in ("precision", "recall"):
        summary += f", marks' {which} {text[which]['value']:.1%}" if which in text else ""
    print(f"{summary}, {text['truncated']:.1%} truncated\nwritten: {out / 'outputs.jsonl'}")


if __name__ == "__main__":
    run_program(main)

"""Show and check a samples file, or write a page of its images.

Prints the first rows, and checks all of them: fields, ids, boxes, images and their sizes. With --html it writes a page
of images instead, with filters by domain, outcome and score; FILE may then also be a file of bags or a benchmark
folder.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional

from mllm.cli.programs import Range
from mllm.errors import FieldmarkError


@dataclass(frozen=True)
class Options:
    RENAMED: ClassVar = {"--no-pictures": "--no-images"}

    file: Positional[Path]
    """samples file (jsonl); with --html also bags or a benchmark folder"""
    rows: Annotated[int, Range(0)] = 3
    """rows to show"""
    images: bool = True
    """do not open the images to compare their sizes with the rows"""
    html: Path | None = None
    """page to write"""
    samples: Path | None = None
    """samples file of the images that bags name, with --html"""
    count: Annotated[int, Range(1)] = 200
    """entries of the page, evenly spread"""


def command(options: Options) -> None:
    if options.html is not None:
        from mllm.evaluation.report import gallery

        page = gallery.write(options.file, options.html, count=options.count, samples=options.samples)
        print(f"written: {page}")
        return
    file = options.file
    if file.is_dir():
        raise FieldmarkError(f"{file} is a folder; add --html PAGE.html to show a benchmark's answers")
    from mllm.io.codec import encode
    from mllm.io.images import check_image_size
    from mllm.records import image_path, load_samples

    samples = load_samples(file, images=options.images)
    for sample in samples[: options.rows]:
        print(json.dumps(json.loads(encode(sample)), indent=2, ensure_ascii=False))
    if options.images:
        for path, size in {(image_path(file, sample), sample.size) for sample in samples}:
            check_image_size(path, size)
    seen = {True: "yes", False: "no", None: "not known"}
    print(f"{file}: {len(samples)} samples on {len({sample.image for sample in samples})} images, all valid")
    print("splits: " + _counts(sample.split for sample in samples))
    print("domains: " + _counts(sample.domain or "not stated" for sample in samples))
    entities = len({sample.entity for sample in samples})
    print(f"entities: {entities}, seen in training: {_counts(seen[sample.seen] for sample in samples)}")
    print("things in an image: " + _counts(len(sample.things) for sample in samples))
    print(f"with a thought: {sum(sample.thought is not None for sample in samples)}")


def _counts(values: Iterable[object]) -> str:
    counts = sorted(Counter(values).items(), key=lambda item: str(item[0]))
    return ", ".join(f"{value} {count}" for value, count in counts)

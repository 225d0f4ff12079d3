"""Finds benchmark images among training images by perceptual hash, also resized, recompressed or cropped to a box.

The same search keeps near-duplicates on one side of a split (`mllm.data.splits`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mllm.boxes import Box
from mllm.data.near_duplicates import near_duplicates
from mllm.data.splits import fingerprint
from mllm.io.images import open_image
from mllm.records import image_path, load_samples


@dataclass(frozen=True)
class Contamination:
    """The result: `pairs` of (benchmark image, similar training image), one for each benchmark image that has any.

    `rows` counts the benchmark's samples on such images; `benchmark` and `training` count the images compared.
    """

    pairs: tuple[tuple[Path, Path], ...]
    rows: int
    benchmark: int
    training: int

    def summary(self) -> str:
        """Describe the result in a sentence."""
        if not self.pairs:
            return f"none of {self.benchmark} benchmark images looks like one of {self.training} training images"
        shown = "; ".join(f"{one} is like {other}" for one, other in self.pairs[:5])
        more = f"; and {len(self.pairs) - 5} more" if len(self.pairs) > 5 else ""
        return (
            f"{len(self.pairs)} of {self.benchmark} benchmark images ({self.rows} rows) look like training images: "
            f"{shown}{more}. Remove them from the training file before you trust the score"
        )


def check(train: Sequence[Path], benchmark: Sequence[Path]) -> Contamination:
    """Compare the images of samples files, whole and in crops of their boxes.

    Raises `RecordError` or `ImageError`: a file or an image that cannot be read.
    """
    trained, tested = _of(train), _of(benchmark)
    files = [*trained, *tested]
    prints = [fingerprint(open_image(file), boxes) for file, (boxes, _) in [*trained.items(), *tested.items()]]
    group_of = near_duplicates(prints)
    first = {}
    for place in range(len(trained)):
        first.setdefault(group_of[place], files[place])
    places = range(len(trained), len(files))
    found = [(files[place], first[group_of[place]]) for place in places if group_of[place] in first]
    return Contamination(tuple(found), sum(tested[file][1] for file, _ in found), len(tested), len(trained))


def _of(files: Sequence[Path]) -> dict[Path, tuple[tuple[Box, ...], int]]:
    """Return the images of samples files, each once, with all boxes (none if it was drawn) and its number of rows."""
    found: dict[Path, tuple[tuple[Box, ...], int]] = {}
    for file in files:
        for sample in load_samples(file):
            path = image_path(file, sample).resolve()
            boxes, rows = found.get(path, ((), 0))
            if not sample.drawn:
                boxes = tuple(dict.fromkeys((*boxes, *sample.boxes, *(thing.box for thing in sample.things))))
            found[path] = (boxes, rows + 1)
    return found

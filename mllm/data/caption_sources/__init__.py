"""Images with the captions that people wrote of them. One input format a file; the file name is the registry.

A file defines `images(request: Request) -> Iterator[Sample]`: samples of task `caption`, always in the same order,
whose `captions` are as people wrote them, or `SourceError` with file, line, field and the way out. Where the source
knows it, `things` hold what is in the image, `bag` names its look-alikes and `provenance["side"]` decrees its side.
Images of a user are left where they lie (`Sample.image` is then an absolute path).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mllm.captions import QUESTION
from mllm.data.sources import SourceError, image_size
from mllm.records import Sample
from mllm.registry import Registry


@dataclass(frozen=True, slots=True)
class Request:
    """What a source is asked for. A source uses what applies to it."""

    input: Path | None = None
    """The user's folder or file; None for a source that draws."""
    out: Path = Path()
    """Folder of the samples; a source that draws puts its images under `out/images`."""
    seed: int = 0
    domain: str | None = None
    """Domain of every image; None is the source's own choice."""
    licence: str = ""
    """Terms of the images, where the input does not say them."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """How many images a source that draws makes of each side."""
    family: Mapping[str, int] = field(default_factory=dict)
    """How many look-alikes stand together on each side (sources that draw); 1: images on their own."""
    level: str = "hard"
    """How alike they are."""
    voices: int = 5
    """How many people caption a drawn image."""


Source = Callable[[Request], Iterator[Sample]]


_FILES = Registry(__name__, "source of captioned images", "images")
names = _FILES.names


def load(name: str) -> Source:
    """Return the source called `name`; an unknown name is an error that lists the known ones."""
    return _FILES.load(name)


def images(name: str, request: Request) -> Iterator[Sample]:
    """Yield the samples of the source called `name`; the same id twice is an error, and so is no sample at all."""
    found: set[str] = set()
    for sample in load(name)(request):
        if sample.id in found:
            raise SourceError(f"{request.input or name}: two images have the id {sample.id!r}; ids must differ")
        found.add(sample.id)
        yield sample
    if not found:
        raise SourceError(f"{request.input or name}: no image was found")


def of_a_file(
    key: str, path: Path, captions: Sequence[str], where: str, *, domain: str, entity: str = "", licence: str = "",
    source: str,
) -> Sample:  # fmt: skip
    """Make the sample of a user's image; `where` (file, line, field) begins what is said of a bad one."""
    told = tuple(" ".join(caption.split()) for caption in captions)
    if not all(told):
        raise SourceError(f"{where}: an empty caption; write one or take the row away")
    return Sample(
        id=key,
        task="caption",
        image=str(path.resolve()),
        size=image_size(path, where),
        domain=domain,
        entity=entity,
        question=QUESTION,
        boxes=(),
        captions=tuple(dict.fromkeys(told)),
        provenance={"source": source, "licence": licence or "not stated"},
    )

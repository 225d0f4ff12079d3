"""Sources of images with human captions: one input format per file, named after the file.

A source defines `images(request: CaptionRequest) -> Iterator[Sample]`, which yields samples of task `caption` in fixed
order or raises `SourceError`; `things`, `bag` and `split` are set where it knows them. A user's images are not copied:
`Sample.image` is an absolute path.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mllm.captions import QUESTION
from mllm.data.source_files import SourceError, SourceRequest, distinct, read_size
from mllm.io import words
from mllm.records import Sample
from mllm.registry import Registry

DOMAIN = "scene"
"""Domain of images for which neither the input nor the request names one."""


@dataclass(frozen=True, slots=True)
class CaptionRequest(SourceRequest):
    """What a source of captioned images is asked for; all but the base is for sources that draw."""

    counts: Mapping[str, int] = field(default_factory=dict)
    """Number of images of each side."""
    family: Mapping[str, int] = field(default_factory=dict)
    """Size of a family of look-alikes on each side; 1: single images."""
    level: str = "hard"
    """How alike they are."""
    voices: int = 5
    """Number of people who caption an image."""


_FILES = Registry(__name__, "source of captioned images", "images")
names, load = _FILES.names, _FILES.load


def images(name: str, request: CaptionRequest) -> Iterator[Sample]:
    """Yield a source's samples. Raises UnknownNameError, or SourceError: unreadable, empty, or an id is repeated."""
    empty = True
    for sample in distinct(load(name)(request), request.input or name, "images"):
        empty = False
        yield sample
    if empty:
        raise SourceError(f"{request.input or name}: no image was found")


def sample_of_file(
    key: str,
    path: Path,
    captions: Sequence[str],
    where: str,
    *,
    request: SourceRequest,
    source: str,
    facts: Mapping[str, str],
) -> Sample:
    """Make the sample of a user's image. `captions` are as people wrote them; equal ones count once.

    `facts` is what the input says of the image (`domain`, `entity`, `licence`); `request` supplies what is missing.
    `where` (file, line, field) begins error messages.
    """
    for text in (*captions, facts.get("entity", "")):
        words.check(text, where, SourceError)
    written = tuple(" ".join(caption.split()) for caption in captions)
    if not all(written):
        raise SourceError(f"{where}: an empty caption; write one or remove the row")
    return Sample(
        id=key,
        task="caption",
        image=str(path.resolve()),
        size=read_size(path, where),
        domain=facts.get("domain") or request.domain or DOMAIN,
        entity=words.name(facts.get("entity", "")),
        question=QUESTION,
        boxes=(),
        captions=tuple(dict.fromkeys(written)),
        licence=facts.get("licence") or request.licence or "not stated",
        provenance={"source": source},
    )

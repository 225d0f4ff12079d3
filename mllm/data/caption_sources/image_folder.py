"""Images in a folder and its folders, each with its captions in a text file of the same name (`a.jpg`, `a.txt`).

One caption a line, each by another person. An image may have none: `gist`, `textualize` and `iiw` write without. The
folder right above an image names what is on it (`wren/a.jpg`; `_` reads as a space), which is what `gist` asks; right
in the root it has no name.
"""

from __future__ import annotations

from collections.abc import Iterator

from mllm.data.caption_sources import Request, of_a_file
from mllm.data.sources import IMAGES, SourceError, need_input, read_text, stay_inside
from mllm.records import Sample

DOMAIN = "scene"


def images(request: Request) -> Iterator[Sample]:
    """Yield the images in the order of their names."""
    root = need_input(request, "folder")
    known = set()
    for path in sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGES):
        name = path.relative_to(root).as_posix()
        stay_inside(root, path)
        text = path.with_suffix(".txt")
        if text in known:
            raise SourceError(f"{path}: another image has the captions of {text.name} already; give them two names")
        known.add(text)
        captions = [line for line in read_text(text).splitlines() if line.strip()] if text.is_file() else []
        entity = "" if path.parent == root else path.parent.name.replace("_", " ")
        yield of_a_file(
            name, path, captions, str(text if captions else path), domain=request.domain or DOMAIN, entity=entity,
            licence=request.licence, source="image_folder",
        )  # fmt: skip
    for text in sorted(root.rglob("*.txt")):
        if text not in known:
            raise SourceError(f"{text}: captions of no image: none of this name lies beside it")

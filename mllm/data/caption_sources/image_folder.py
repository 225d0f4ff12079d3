"""Images in a folder and its subfolders, each with its captions in a text file of the same name (`a.jpg`, `a.txt`).

The text file may also be called `a.caption`, and its ending may be in capitals. It holds one caption per line, each by
another person. An image may have none: `gist`, `textualize` and `iiw` do not need any.
The folder directly above an image names what is in it (`wren/a.jpg`; `_` stands for a space), which `gist` needs;
images in the root have no name.
"""

from collections.abc import Iterator
from pathlib import Path

from mllm.data.caption_sources import CaptionRequest, sample_of_file
from mllm.data.source_files import SourceError, check_inside, images_below, is_hidden, need_input, read_text
from mllm.records import Sample

SUFFIXES = (".txt", ".caption")


def images(request: CaptionRequest) -> Iterator[Sample]:
    """Yield the images, sorted by name."""
    root, known = need_input(request, "folder"), set[Path]()
    texts = _caption_files(root)
    for name, path in images_below(root, "**/*"):
        check_inside(root, path)
        stem = path.with_suffix("")
        if stem in known:
            raise SourceError(f"{path}: another image has the captions of {stem.name}.txt already; give them two names")
        known.add(stem)
        text = texts.pop(stem, None)
        captions = [line for line in read_text(text).split("\n") if line.strip()] if text else []
        entity = "" if path.parent == root else path.parent.name
        where = str(text if captions else path)
        facts = {"entity": entity}
        yield sample_of_file(name, path, captions, where, request=request, source="image_folder", facts=facts)
    for text in texts.values():
        raise SourceError(f"{text}: captions without an image: no image of this name stands beside it")


def _caption_files(root: Path) -> dict[Path, Path]:
    """Return the file of captions by its path without an ending, sorted."""
    found: dict[Path, Path] = {}
    for text in sorted(root.rglob("*")):
        if text.suffix.lower() not in SUFFIXES or is_hidden(root, text):
            continue
        if (stem := text.with_suffix("")) in found:
            raise SourceError(f"{text}: {found[stem].name} holds captions of the same picture; keep one of the two")
        found[stem] = text
    return found

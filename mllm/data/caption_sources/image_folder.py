"""Images in a folder and its subfolders, each with its captions in a text file of the same name (`a.jpg`, `a.txt`).

One caption per line, each by another person. An image may have none: `gist`, `textualize` and `iiw` do not need any.
The folder directly above an image names what is in it (`wren/a.jpg`; `_` stands for a space), which `gist` needs;
images in the root have no name.
"""

from collections.abc import Iterator

from mllm.data.caption_sources import CaptionRequest, sample_of_file
from mllm.data.source_files import SourceError, check_inside, images_below, need_input, read_text
from mllm.records import Sample


def images(request: CaptionRequest) -> Iterator[Sample]:
    """Yield the images, sorted by name."""
    root = need_input(request, "folder")
    known = set()
    for name, path in images_below(root, "**/*"):
        check_inside(root, path)
        text = path.with_suffix(".txt")
        if text in known:
            raise SourceError(f"{path}: another image has the captions of {text.name} already; give them two names")
        known.add(text)
        captions = [line for line in read_text(text).splitlines() if line.strip()] if text.is_file() else []
        entity = "" if path.parent == root else path.parent.name.replace("_", " ")
        where = str(text if captions else path)
        facts = {"entity": entity}
        yield sample_of_file(name, path, captions, where, request=request, source="image_folder", facts=facts)
    for text in sorted(root.rglob("*.txt")):
        if text not in known:
            raise SourceError(f"{text}: captions of no image: there is no image of this name beside it")

"""Let a model find things in all images of a folder, and write its boxes for people to correct.

Writes predictions.coco.json, predictions.csv and predictions.label_studio.json beside the images. Corrected files come
back through the sources of the same names. Label Studio shows the boxes as pre-annotations; it serves the images as
local files if LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT is the folder. The exit code is 1 when no image got a box.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from mllm.cli.options import ModelOptions
from mllm.cli.programs import Range
from mllm.errors import ExitCode, FieldmarkError


@dataclass(frozen=True)
class Options:
    folder: Positional[Path]
    """folder of images, with subfolders"""
    find: tuple[str, ...] = ()
    """things to look for in every image (may be repeated); default: the name of the folder that an image is in"""
    model: str = "pocket"
    """checkpoint folder, adapter folder, Hub name, pocket, or a server: http://.../v1#NAME"""
    format: tuple[Literal["coco", "csv", "label_studio"], ...] = ("coco", "csv", "label_studio")
    """what to write"""
    domain: str | None = None
    """kind of thing, for the wording of the question: bird, car, ..."""
    max_new_tokens: Annotated[int, Range(1)] = 1024
    """longest answer, reasoning included, in tokens"""
    loading: ModelOptions = ModelOptions()


def command(options: Options) -> int:
    from mllm.boxes import Frame
    from mllm.data import predictions
    from mllm.data.source_files import images_below
    from mllm.inference.assistant import load
    from mllm.io import words
    from mllm.io.files import no_such
    from mllm.io.progress import progress

    if not options.folder.is_dir():
        raise FieldmarkError(no_such(options.folder, "folder"))
    images = list(images_below(options.folder, "**/*"))
    if not images:
        raise FieldmarkError(f"{options.folder}: no image found")
    if not options.find and (loose := [name for name, path in images if path.parent == options.folder]):
        raise FieldmarkError(f"{options.folder / loose[0]}: no folder names what it shows; name things with --find")
    assistant = load(options.model, **asdict(options.loading))
    found = []
    with progress("images", len(images)) as step:
        for image, path in images:
            things, size = [], Frame(1, 1)
            for name in options.find or (words.name(path.parent.name),):
                answer = assistant.ground(path, name, domain=options.domain, max_new_tokens=options.max_new_tokens)
                size = Frame(*answer.image.size)
                things += [(name, box) for box in answer.boxes]
            found.append(predictions.Prediction(image, size, tuple(things)))
            step()
    for file in predictions.write(options.folder, found, options.format, options.model):
        print(f"written: {file}")
    boxed = sum(bool(one.things) for one in found)
    print(f"{sum(len(one.things) for one in found)} boxes in {boxed} of {len(found)} images")
    return ExitCode.DONE if boxed else ExitCode.FAILED

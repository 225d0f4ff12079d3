"""What is fuzzed of other tools' exports: the file of labels of every source, beside a small image."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.support.exports import WITH_BOXES, WITHOUT_BOXES, Shot
from tests.support.fuzz_files import filed
from tests.support.fuzz_targets import JSON, Target

XML = (b"<", b"/>", b"<!ENTITY a 'b'>", b"&lt;", b"<!--", b'="', b"<box ", b"NaN", b"1e999", b"9" * 400, b"-1", b"\xff")
FILES = {
    "yolo": ("data.yaml", "labels/train/{}.txt"), "voc": ("Annotations/{}.xml",), "label_studio": ("export.json",),
    "cvat": ("annotations.xml",), "labelme": ("{}.json",), "hf": ("train/metadata.jsonl",),
    "inaturalist": ("train.json",), "darwin_core": ("meta.xml", "occurrence.txt", "multimedia.txt"),
}  # fmt: skip
"""The files of an export that are fuzzed; {} stands for the name of the image."""


def exports(folder: Path, image: Path) -> dict[str, Target]:
    """Build these targets below `folder`."""
    from mllm.data import sources
    from mllm.io.images import image_size

    size = image_size(image)
    shot = Shot(image, (int(size.width), int(size.height)), "robin", ((1, 2, 30, 19),))
    (folder / "fiftyone" / "data").mkdir(parents=True, exist_ok=True)
    shutil.copy(image, folder / "fiftyone" / "data" / image.name)
    mark = {"_cls": "Detection", "label": "robin", "bounding_box": [0.1, 0.1, 0.2, 0.3]}
    sample = {"filepath": f"data/{image.name}", "ground_truth": {"_cls": "Detections", "detections": [mark]}}
    (folder / "fiftyone" / "samples.json").write_text(json.dumps({"samples": [sample]}))
    found = {}
    for name, files in (FILES | {"fiftyone": ("samples.json",)}).items():
        export = (WITH_BOXES | WITHOUT_BOXES).get(name)
        path = export(folder / name, [shot]) if export else folder / name
        request = sources.PhotoRequest(path, "bird", whole_image_boxes=True, out=folder / "out")
        for file in (folder / name / each.format(image.stem) for each in files):
            run = filed(file, lambda _, name=name, request=request: list(sources.photos(name, request)))
            whole = file.read_bytes()

            def restored(data: bytes, run=run, file=file, whole=whole) -> None:  # noqa: ANN001
                try:
                    run(data)
                finally:
                    file.write_bytes(whole)  # another target of the same export may come next

            words = XML if file.suffix == ".xml" else JSON
            found[f"sources.{name}.{file.name}"] = Target(restored, (whole,), words)
    return found

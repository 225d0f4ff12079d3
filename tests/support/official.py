"""KVG-Bench's official file in small, for tests."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image


def parquet(path: Path, **change) -> Path:
    """An official file of three cases on two images, as the benchmark's own is laid out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def img(colour):
        data = io.BytesIO()
        Image.new("RGB", (120, 80), colour).save(data, "JPEG")
        return {"bytes": data.getvalue(), "path": None}

    def case(name, category, image, entity, box):
        tag = f"<|object_ref_start|>{entity}<|object_ref_end|>"
        return {
            "question_id": name,
            "category": category,
            "image": image,
            "question": f"Find and give the bounding box of {tag}",
            "answer": f"{tag}<|box_start|>({box[0]},{box[1]}),({box[2]},{box[3]})<|box_end|>",
        }

    red, blue = img("red"), img("blue")
    rows = [
        case("bird/0", "bird", red, "House Wren", (0, 0, 400, 1000)),
        case("bird/1", "bird", red, "Marsh Wren", (500, 0, 1000, 1000)),
        case("dog/0", "dog", blue, "Whippet", (100, 100, 900, 900)),
    ]
    rows[2] |= change
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path

"""What a task page needs and a test machine lacks: photos, a benchmark's file, a large teacher behind a server.

    python -m tests.support.stand_ins photos FOLDER            # FOLDER/<domain>/<species>/*.png and FOLDER/boxes.csv
    python -m tests.support.stand_ins bench FOLDER             # FOLDER/kvg-bench.parquet, laid out as the official one
    python -m tests.support.stand_ins teacher --port 8000      # an OpenAI server in front of the pocket oracle

All three come from the pocket world. The teacher reads the words that a teacher is asked in and looks at the images
that it is sent; so the whole way from a request over HTTP to a checked sample is the real one.
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import json
import random
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image

from mllm.boxes import Box, Frame
from mllm.pocket import world
from mllm.pocket.species import find
from mllm.pocket.species import species as all_species
from tests.support.faulty_server import completion, text_of

PHOTOGRAPHED, BENCHMARK = ("bird", "car", "food"), ("dog", "flower", "landmark", "mammal", "mollusca")
"""Domains of the photos and of the benchmark: two drawn birds of one kind would rightly be taken for one image."""
THOUSANDTHS = Frame(1000, 1000)
_CANDIDATE = re.compile(r"^(\d+)\. (.+) at (.+?)(?: \(known marks: .*\))?$", re.MULTILINE)
_BOX = re.compile(r"\[\s*\d+(?:\s*,\s*\d+){3}\s*\]")


def photos(folder: Path, *, species: int = 12, each: int = 5) -> None:
    """Draw photos of three domains; the boxes of one domain are left out: a teacher has to point."""
    rows = []
    for domain in PHOTOGRAPHED:
        for one in all_species(domain)[:species]:
            home = folder / domain / one.name
            home.mkdir(parents=True, exist_ok=True)
            for number in range(each):
                img, box = world.photo(one, 7000 + number)
                large = img.resize((288, 288), Image.Resampling.BILINEAR)
                large.save(home / f"{number}.png")
                if domain != "food":
                    numbers = [round(side) for side in box.to_xyxy(Frame(288, 288))]
                    rows.append([f"{domain}/{one.name}/{number}.png", *numbers])
    with (folder / "boxes.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image", "x1", "y1", "x2", "y2"], *rows])


def bench(folder: Path, *, images: int = 4) -> None:
    """Write a file of the official columns: two questions on each of a few scenes of every domain."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for domain in BENCHMARK:
        for number in range(images):
            things = random.Random(f"bench/{domain}/{number}").sample(list(all_species(domain)), 3)
            scene = world.make_scene(f"bench/{domain}/{number}", domain, things)
            data = io.BytesIO()
            scene.image.save(data, "PNG")
            for thing in scene.things[:2]:
                rows.append(_case(f"{domain}/{len(rows)}", domain, data.getvalue(), str(thing.name), thing.box))
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "kvg-bench.parquet")


def _case(name: str, domain: str, img: bytes, entity: str, box: Box) -> dict[str, Any]:
    tag = f"<|object_ref_start|>{entity}<|object_ref_end|>"
    x1, y1, x2, y2 = (round(side) for side in box.to_xyxy(THOUSANDTHS))
    return {
        "question_id": name,
        "category": domain,
        "image": {"bytes": img, "path": None},
        "question": f"Find and give the bounding box of {tag}",
        "answer": f"{tag}<|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>",
    }


def answer(body: dict[str, Any]) -> str:
    """Answer one request as the pocket oracle would: marks, differences, a box, a thought."""
    text = text_of(body)
    if found := re.search(r"How does one tell (.+?) \(a kind of", text):
        return "\n".join(f"- {mark}" for mark in find(found[1]).marks)
    if found := re.search(r"What tells (.+?) from (.+?) \(two kinds of", text):
        both = zip(find(found[1]).marks, find(found[2]).marks, strict=True)
        return "\n".join(f"{mine} | {other}" for mine, other in both if mine != other) or "unknown"
    if found := re.search(r"Find every (.+?) in this image", text):
        box = world.departure(_image(body), find(found[1]).domain)
        return "none" if box is None else str([round(side) for side in box.to_xyxy(THOUSANDTHS)])
    if "Write what an expert would think" in text:
        return _thought(text)
    raise ValueError(f"the stand-in was not asked this before: {text[:200]}")


def _thought(text: str) -> str:
    """Recall, look at each candidate, compare, conclude."""
    candidates = [(name, _BOX.search(where)) for _, name, where in _CANDIDATE.findall(text)]
    wanted = re.search(r"The answer is number \d+, (.+)\.$", text, re.MULTILINE)
    assert wanted and all(box for _, box in candidates), text
    looked = [f"At {box[0]} I see {', '.join(find(name).marks)}." for name, box in candidates if box]
    chosen = next(box[0] for name, box in candidates if name == wanted[1] and box)
    marks = ", ".join(find(wanted[1]).marks)
    return f"{wanted[1]} is known by {marks}. {' '.join(looked)} One of them has all marks. So it is {chosen}."


def _image(body: dict[str, Any]) -> Image.Image:
    """Open the image that came as a data URL."""
    parts = body["messages"][-1]["content"]
    url = next(part["image_url"]["url"] for part in parts if part["type"] == "image_url")
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


class _Teacher(BaseHTTPRequestHandler):
    """Answers /v1/chat/completions."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        data = json.dumps(completion(body["model"], answer(body))).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("photos", "bench", "teacher"))
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    options, _ = parser.parse_known_args()  # flags of what it stands in for mean nothing here
    if options.what == "teacher":
        ThreadingHTTPServer(("127.0.0.1", options.port), _Teacher).serve_forever()
    else:
        {"photos": photos, "bench": bench}[options.what](options.folder)


if __name__ == "__main__":
    main()

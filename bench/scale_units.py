"""What one photo costs on its way from a folder to trained weights: seconds, bytes and tokens, measured here.

    python -m bench.scale_units --out runs/bench/scale_units.json

Every stage is the project's own code: the data programs run on two sizes and the difference is divided; the rest is
called as the programs call it. Seconds are CPU seconds of one thread, so that other load on the machine matters little.
Images are drawn, scaled to 1280 x 960 pixels with added noise, and saved as JPEG, like photos. `bench/scale.py` turns
the resulting file into costs of a million and of a billion photos.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.parts.clock import cpu_seconds
from bench.parts.tokens import training
from mllm.boxes import Frame
from mllm.data import bags, splits
from mllm.data.near_duplicates import by_blocks, by_parts
from mllm.distributed import World
from mllm.io.files import atomic_write
from mllm.io.image_view import ImageView
from mllm.io.images import open_image
from mllm.io.jsonl import read_jsonl, write_jsonl
from mllm.io.provenance import file_hash
from mllm.knowledge.cards import load_cards
from mllm.models import encoders
from mllm.models.embedding_cache import EmbeddingStore
from mllm.models.families import load as family_of
from mllm.pocket import world
from mllm.pocket.species import species as all_species
from mllm.records import Photo, Sample, load_samples
from mllm.synthesis import teacher_prompts
from mllm.synthesis.capabilities import ReasoningRequest
from mllm.synthesis.shards import Shards

ROOT = Path(__file__).resolve().parent.parent
PHOTO = (1280, 960)
QUICK = (24, [2_000, 4_000], 80, 200, [512, 1_024], [500, 1_000], [500, 1_000])
FULL = (72, [50_000, 200_000, 1_000_000], 340, 10_000, [25_000, 100_000], [5_000, 10_000], [5_000, 20_000])
"""Numbers of composites, fingerprints, captions, rows, stored vectors, vectors mined exactly and by FAISS."""
Units = dict[str, Any]


def photos(folder: Path, species: int, each: int) -> Path:
    """Save photos of birds with their boxes, and their table and cards; return the table."""
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 9, (PHOTO[1], PHOTO[0], 3))
    rows, cards = [], {}
    for one in all_species("bird")[:species]:
        cards[one.name] = list(one.marks)
        for number in range(each):
            image, box = world.photo(one, number)
            large = np.asarray(image.resize(PHOTO, Image.Resampling.BICUBIC)) + np.roll(grain, 7 * number, 1)
            name = f"{one.name.replace(' ', '_')}-{number}.jpg"
            Image.fromarray(large.clip(0, 255).astype(np.uint8)).save(folder / name, quality=90)
            rows.append([name, one.name, *(round(side) for side in box.to_xyxy(Frame(*PHOTO)))])
    with (folder / "photos.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image", "entity", "x1", "y1", "x2", "y2"], *rows])
    (folder / "cards.json").write_text(json.dumps(cards), encoding="utf-8")
    return folder / "photos.csv"


def program(*words: str) -> float:
    """Run one of our programs with one thread; return its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)} failed:\n{done.stderr[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def grounding(folder: Path, few: int, many: int) -> Units:
    """Composites with reasoning by cards: seconds and bytes of one more sample."""
    table = photos(folder, species=10, each=4)
    words = ["data_synth/grounding.py", "--source", "csv", "--input", str(table), "--domain", "bird", "--workers", "1"]
    words += ["--knowledge", str(folder / "cards.json"), "--validation", "0", "--test", "0", "--sheet", "0"]
    words += ["--validation-share", "0", "--test-share", "0", "--unseen-share", "0"]
    spent = [program(*words, "--train", str(n), "--out", str(folder / f"grounding-{n}")) for n in (few, many)]
    out = folder / f"grounding-{many}"
    samples = load_samples(out / "train.jsonl")
    tokens = [family_of("qwen3_vl").visual_tokens(one.size, family_of("qwen3_vl").budget) for one in samples]
    sizes = [(out / one.image).stat().st_size for one in samples]
    return {
        "composite_s": (spent[1] - spent[0]) / (many - few),
        "composite_bytes": float(np.mean(sizes)),
        "sample_bytes": (out / "train.jsonl").stat().st_size / many,
        "photo_row_bytes": (out / "photos.jsonl").stat().st_size / 40,
        "thought_chars": float(np.mean([len(one.thought or "") for one in samples])),
        "visual_tokens": float(np.mean(tokens)),
        "request_chars": request_chars(samples, out, folder),
    }


def request_chars(samples: list[Sample], out: Path, folder: Path) -> float:
    """Return the mean number of characters of a request for one thought."""
    cards, family = load_cards(folder / "cards.json"), family_of("qwen3_vl")
    lengths = []
    for one in samples[:20]:
        target = next(k for k, thing in enumerate(one.things) if thing.entity == one.entity)
        request = ReasoningRequest(one, cards, 0, out / one.image)
        lengths.append(len(teacher_prompts.reasoning(request, target, family, Frame(1000, 1000))))
    return float(np.mean(lengths))


def looking(folder: Path) -> Units:
    """Measure a photo opened and fingerprinted, and an image prepared for a teacher."""
    listed = list(read_jsonl(folder / "grounding-8" / "photos.jsonl", Photo))
    fingerprints = per(listed, lambda photo: splits.fingerprint(open_image(Path(photo.image)), photo.boxes))
    views = [ImageView(path, 1024 * 1024) for path in sorted((folder / "grounding-8" / "images" / "train").iterdir())]
    return {
        "look_s": fingerprints,
        "photo_bytes": float(np.mean([Path(photo.image).stat().st_size for photo in listed])),
        "send_s": per(views, lambda view: (view.identity(), view.data_url())),
        "photo_held_bytes": held(lambda: list(read_jsonl(folder / "grounding-8" / "photos.jsonl", Photo)), len(listed)),
    }


def lookalikes(sizes: list[int]) -> Units:
    """Measure the search for near-duplicates by parts of hashes, and by comparing all pairs at the smallest size."""
    rng = np.random.default_rng(0)
    made = {n: rng.integers(0, 2**64, n, dtype=np.uint64) for n in sizes}
    spent = {str(n): cpu_seconds(lambda n=n: sum(1 for _ in by_parts(made[n]))) for n in sizes}
    return {"lookalikes_s": spent, "all_pairs_s": {str(sizes[0]): cpu_seconds(lambda: list(by_blocks(made[sizes[0]])))}}


def captions(folder: Path, few: int, many: int) -> Units:
    """Measure human captions of the pocket world's scenes: listing, checking, writing."""
    words = ["data_synth/captions.py", "--validation", "0", "--test", "0", "--sheet", "0", "--workers", "1"]
    spent = [program(*words, "--train", str(n), "--out", str(folder / f"captions-{n}")) for n in (few, many)]
    rows = (folder / f"captions-{many}" / "train.jsonl").stat().st_size
    return {"caption_s": (spent[1] - spent[0]) / (many - few), "caption_bytes": rows / many}


def records(folder: Path, count: int) -> Units:
    """Measure rows appended to a log, sorted into their file, and read with all checks; and a file's hash."""
    sample = next(read_jsonl(folder / "grounding-8" / "train.jsonl", Sample))
    rows = [Sample(**{**{k: getattr(sample, k) for k in sample.__slots__}, "id": f"s-{n:08d}"}) for n in range(count)]
    shards = Shards(folder / "rows.jsonl", World())
    added = per(rows, shards.add)
    index = held(shards._index, count)
    closed = cpu_seconds(lambda: shards.close(str))
    written = cpu_seconds(lambda: write_jsonl(folder / "again.jsonl", rows))
    read = cpu_seconds(lambda: load_samples(folder / "rows.jsonl", images=False))
    size = (folder / "rows.jsonl").stat().st_size
    return {
        "append_s": added, "close_s": closed / count, "write_s": written / count, "read_s": read / count,
        "hash_s_per_byte": cpu_seconds(lambda: file_hash(folder / "rows.jsonl")) / size,
        "sample_held_bytes": held(lambda: load_samples(folder / "rows.jsonl", images=False), count),
        "index_held_bytes": index,
    }  # fmt: skip


def embedding(folder: Path, sizes: list[int]) -> Units:
    """Measure an image through the pocket CLIP, and the cost of the vector store as it grows."""
    encoder = encoders.load("pocket")
    files = sorted((folder / "grounding-8" / "images" / "train").iterdir())
    spent = {}
    for count in sizes:
        store = EmbeddingStore(folder / f"store-{count}", (1, 512))
        keys = [f"{number:032x}" for number in range(count)]
        spent[str(count)] = cpu_seconds(lambda store=store, keys=keys: grow(store, keys))
    return {"embed_s": per(files, lambda file: encoder.images([file])), "store_s": spent, "vector_bytes": 4.0 * 512}


def grow(store: EmbeddingStore, keys: list[str]) -> None:
    """Add vectors as data_synth/bags.py does, in chunks."""
    vectors = np.zeros((256, 1, 512), np.float32)
    for start in range(0, len(keys), 256):
        part = keys[start : start + 256]
        store._add(part, vectors[: len(part)])


def mining(exact: list[int], approximate: list[int], width: int) -> Units:
    """Measure mining bags of five among clustered vectors, by comparing all pairs and by FAISS."""

    def spent(count: int, limit: int) -> float:
        rng = np.random.default_rng(0)
        centres = rng.normal(size=(count // 20 + 1, width))
        vectors = bags.join(centres[np.arange(count) // 20] + 0.5 * rng.normal(size=(count, width))).astype(np.float32)
        return cpu_seconds(lambda: list(bags.mine(vectors, 5, 0.5, 0.98, exact=limit)))

    return {
        "mine_exact_s": {str(n): spent(n, n) for n in exact},
        "mine_faiss_s": {str(n): spent(n, 0) for n in approximate},
        "index_bytes": 4.0 * width + 2 * 32 * 4,  # HNSW: the vector and 64 links of four bytes
        "mine_width": width,
    }


def per(things: Any, work: Callable[[Any], Any]) -> float:
    """Return the CPU seconds per thing."""
    return cpu_seconds(lambda: [work(thing) for thing in things]) / len(things)


def held(make: Callable[[], Any], count: int) -> float:
    """Return the bytes of memory per thing, for `count` things."""
    tracemalloc.start()
    kept = make()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept
    return size / count


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/scale_units.json"))
    parser.add_argument("--quick", action="store_true", help="sizes that take a minute, for a trial")
    args = parser.parse_args()
    units: Units = {"machine": machine(), "date": time.strftime("%Y-%m-%d")}
    composites, prints, captioned, rows, stored, exact, faiss = QUICK if args.quick else FULL
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for measure in (
            lambda: grounding(folder, 8, composites),
            lambda: looking(folder),
            lambda: lookalikes(prints),
            lambda: captions(folder, 40, captioned),
            lambda: records(folder, rows),
            lambda: embedding(folder, stored),
            lambda: mining(exact, faiss, 512),
            training,
        ):
            found = measure()
            units |= found
            print(json.dumps(found, indent=1), flush=True)
    with atomic_write(args.out) as file:
        json.dump(units, file, indent=1)


def machine() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()

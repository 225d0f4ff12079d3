"""What is fuzzed of files beside data sources: benchmarks as published, records, and what our own programs left."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.fuzz_targets import JSON, Target, dumped

CSV = (b'"', b",", b"\n", b"\r", b"\x00", b"\\;", b'""', b"\xff", b"x" * 300)
GOLD = "<|object_ref_start|>wren<|object_ref_end|><|box_start|>(1,2),(300,400)<|box_end|>"
PET = {
    "image": "images/a.png", "breed": "Maine_Coon", "species": "cat", "width": 40, "height": 20,
    "head_xyxy": [1, 2, 9, 9], "body_outer_xyxy": [1, 2, 30, 19], "head_share_inside_body": 0.9,
}  # fmt: skip
SHARE = {"value": 0.5, "low": 0.1, "high": 0.9}
MATCHES = [{"bag": "0", "image": image, "found": "s1", "hit": float(image == "s1")} for image in ("s0", "s1")]
BAG_SCORES = {
    "scorer": "pocket-judge", "late": True, "sizes": {"2": {"r1": SHARE, "chance": 0.5}}, "matches": {"2": MATCHES},
    "text": {"words": 3.5, "precision": SHARE, "recall": SHARE},
}  # fmt: skip


def more(folder: Path) -> dict[str, Target]:
    """Build these targets below `folder`, where a small image `a.png` lies."""
    return published(folder) | rows(folder) | ours(folder)


def filed(file: Path, read: Callable[[Path], Any]) -> Callable[[bytes], Any]:
    """Write the input to a file and read it."""
    file.parent.mkdir(parents=True, exist_ok=True)

    def run(data: bytes) -> None:
        file.write_bytes(data)
        read(file)

    return run


def published(folder: Path) -> dict[str, Target]:
    """Files of others."""
    from pyarrow import ArrowException

    from eval import finecapeval, imagecode, truematch
    from mllm.data import descriptors, sources
    from mllm.evaluation import kvg_published
    from mllm.knowledge import card_files
    from mllm.models import checkpoint

    (folder / "pets" / "images").mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "a.png", folder / "pets" / "images" / "a.png")
    (folder / "sets" / "one").mkdir(parents=True, exist_ok=True)
    for number in range(imagecode.SIZE):
        shutil.copy(folder / "a.png", folder / "sets" / "one" / f"img{number}.png")
    cell = {"question_id": "1", "category": "bird", "question": "Find it.", "answer": GOLD}
    whole = parquet([cell | {"image": {"bytes": (folder / "a.png").read_bytes()}}])

    def pets(file: Path) -> None:
        list(sources.photos("oxford_pets", sources.PhotoRequest(file.parent)))

    def case(data: bytes) -> None:
        """Parquet that is whole, with any values in it: what mutated bytes seldom reach."""
        try:
            rows = json.loads(data)
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                return
            made = parquet(rows)
        except (
            ValueError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
            ArrowException,
        ):  # refused by arrow
            return
        (folder / "case.parquet").write_bytes(made)
        kvg_published.read_parquet(folder / "case.parquet", folder / "cells")

    def phrases(file: Path) -> None:
        stem = finecapeval.stemmer()
        for row in finecapeval.read(file)[:20]:
            for aspect in finecapeval.ASPECTS:
                stems = [finecapeval.published_stems(text, stem) for text in row.phrases[aspect]]
                finecapeval.score(stems, row.caption)

    png = {"bytes": "PNG"}
    return {
        "sources.oxford_pets": Target(filed(folder / "pets" / "annotations.json", pets), (dumped([PET]),), JSON),
        "kvg.parquet": Target(
            filed(folder / "k.parquet", lambda file: kvg_published.read_parquet(file, folder / "cells")),
            (whole,),
            (b"PAR1",),
        ),
        "kvg.cells": Target(case, (dumped([cell | {"image": png}]),), JSON),
        "descriptors.csv": Target(
            filed(folder / "d.csv", descriptors.load),
            (b"entity,mark,part,source,confidence,domain\nwren,short tail,tail,me,0.5,bird\n",), CSV,
        ),
        "cardfiles.json": Target(
            filed(folder / "k.json", card_files.read),
            (dumped({"robin": {"domain": "bird", "source": "me", "unlike": {"wren": [["red", "brown"]]}, "marks": [
                "red", {"mark": "long", "part": "bill", "confidence": 0.5, "verified": True, "seen": "1 of 2"}]}}),),
            JSON,
        ),
        "eval.finecapeval": Target(
            filed(folder / "f.csv", phrases),
            (b"image,caption,background,object,relation\na.jpg,a red cat,grass\\; sky,cat,cat on grass\n",), CSV,
        ),
        "eval.imagecode": Target(
            filed(folder / "i.json", lambda file: imagecode.queries(imagecode.read(file), folder / "sets", None)),
            (dumped({"one": {"3": "the one in the middle"}}),), JSON,
        ),
        "eval.truematch": Target(
            filed(folder / "bags" / "3.json", lambda file: truematch.read_bags(file, 3)), (dumped([[1, 2, 3]]),), JSON
        ),
        "adapter_config": Target(
            filed(folder / "lora" / "adapter_config.json", lambda file: checkpoint.base_and_adapter(str(file.parent))),
            (dumped({"base_model_name_or_path": "pocket", "r": 8, "lora_alpha": 16}),), JSON,
        ),
    }  # fmt: skip


def rows(folder: Path) -> dict[str, Target]:
    """Record files."""
    from mllm import records
    from mllm.data import bags
    from mllm.io import codec

    def boxed(cls: type) -> Callable[[bytes], Any]:
        return lambda data: codec.decode(data, cls)

    def bagged(file: Path) -> None:
        bags.check(bags.read([file]), ["a", "b", "c"])

    photo = {
        "schema": "fieldmark.photo/1", "id": "a", "image": "a.png", "size": [40, 20], "domain": "bird",
        "entity": "wren", "boxes": [[0.1, 0.1, 0.5, 0.5]], "captions": ["a wren"], "marks": ["red"],
        "licence": "CC0-1.0", "provenance": {"source": "csv"},
    }  # fmt: skip
    answer = {
        "thought": "red", "answer": "(1,2),(3,4)", "boxes": [[0.1, 0.1, 0.5, 0.5]], "numbers": [[1, 2, 3, 4]],
        "problem": None, "absent": False,
    }  # fmt: skip
    completion = {
        "schema": "fieldmark.completion/1", "sample_id": "a", "text": "x", "answer": answer, "tokens": 3,
        "truncated": True,
    }  # fmt: skip
    bag = {"schema": "fieldmark.bag/1", "id": "1", "members": ["a", "b"], "level": "easy", "similarity": 0.5}
    return {
        "records.photo": Target(boxed(records.Photo), (dumped(photo),), JSON, 2),
        "records.completion": Target(boxed(records.Completion), (dumped(completion),), JSON, 2),
        "bags.read": Target(filed(folder / "b.jsonl", bagged), (dumped(bag),), JSON),
    }


def ours(folder: Path) -> dict[str, Target]:
    """Folders of runs and of data, which people edit, cut off and mix."""
    from mllm.data import manifest
    from mllm.evaluation import runs
    from mllm.evaluation.report import caption_bags, curves
    from tests.evaluation.report.test_report import benchmark

    made = benchmark(folder / "run", ["left", "right"])
    settings = {"schema": manifest.SCHEMA, "seed": 1, "things": [2, 6]}
    (folder / "data").mkdir(exist_ok=True)

    def judged(file: Path) -> None:
        runs.write_scores(runs.load(file.parent))

    def claimed(file: Path) -> None:
        (file.parent / "train.jsonl").write_text("x")
        with manifest.claim(file.parent, {"seed": 1, "things": [2, 6]}):
            pass

    def drawn(file: Path) -> None:
        curves.panels({"run": curves.read_log(file)})

    def bagged(file: Path) -> None:
        caption_bags.markdown(caption_bags.build({"run": file.parent}))

    other = benchmark(folder / "two-bags", ["left", "right"])
    return {
        "runs.run": Target(filed(made / "run.json", judged), ((made / "run.json").read_bytes(),), JSON),
        "runs.outputs": Target(
            filed(other / "outputs.jsonl", lambda file: runs.load(file.parent)),
            ((other / "outputs.jsonl").read_bytes(),), JSON,
        ),
        "report.bagged": Target(
            filed(benchmark(folder / "matched", ["left", "right"]) / caption_bags.SCORES, bagged),
            (dumped(BAG_SCORES),), JSON
        ),
        "report.curves": Target(
            filed(folder / "log.jsonl", drawn),
            (dumped({"step": 1, "loss": 0.5, "eval/acc": 0.5}, {"step": 2, "loss": 0.4, "eval/acc": 0.6}),), JSON,
        ),
        "manifest": Target(filed(folder / "data" / "settings.json", claimed), (dumped(settings),), JSON),
    }  # fmt: skip


def parquet(rows: list[dict[str, Any]]) -> bytes:
    """Write rows as parquet; an image of "PNG" becomes one."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    held = io.BytesIO()
    Image.new("RGB", (40, 20), "red").save(held, "PNG")
    for row in rows:
        if isinstance(row, dict) and isinstance(row.get("image"), dict) and row["image"].get("bytes") == "PNG":
            row["image"] = {"bytes": held.getvalue()}
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()

"""What is fuzzed: every parser of model text and reader of a format, with valid inputs to begin from."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mllm.data import caption_stats


@dataclass(frozen=True)
class Target:
    """What is fuzzed: a function of bytes, inputs that it accepts, words that matter to it, and its share of inputs."""

    run: Callable[[bytes], Any]
    seeds: tuple[bytes, ...] = field(repr=False)
    words: tuple[bytes, ...] = field(default=(), repr=False)
    share: int = 1


TAGS = tuple(
    word.encode()
    for word in (
        "<think>", "</think>", "<answer>", "</answer>", "(1,2),(3,4)", "[1, 2, 3, 4]", "<box>1 2 3 4</box>", "none",
        "<|box_start|>", "<|box_end|>", "<|object_ref_start|>", '{"bbox_2d": [1,2,3,4], "label": "x"}', "<obj:0>",
        "1e999", "-", "9" * 30, "\u2028", "\U0001f426", "1 (1,2),(3,4): red fits, ", "So 1.", "```json\n", "yes", "no",
    )
)  # fmt: skip
JSON = tuple(
    word.encode()
    for word in (
        "null", "true", "NaN", "1e999", "-1", "0.5", '""', "[]", "{}", '"a.png"', "[" * 200, '{"a":' * 50, "9" * 5000,
        '"\\ud800"', '"\\u0000"', '"../../../etc/passwd"', '"' + "x" * 300 + '"', "[0, 0, 9, 9]", "\n", "\ufeff",
    )
)  # fmt: skip
SPOKEN = (
    b"<think>red: red breast. 1 (1,2),(30,40): red fits. 2 (3,4),(50,60): blue not. So 1.</think>"
    b"<answer>(1,2),(30,40)</answer>",
    b'<answer>```json\n[{"bbox_2d": [1, 2, 300, 400], "label": "x"}]\n```</answer>',
    b"<answer>There is no such bird.</answer>",
    b"- red breast\n- long bill\n1. yes\n2. no",
)


def dumped(*rows: Any) -> bytes:
    """Rows of JSON."""
    return b"\n".join(json.dumps(row).encode() for row in rows)


def targets(folder: Path) -> dict[str, Target]:
    """Build the targets; files are written below `folder`, where a small image lies."""
    from PIL import Image

    from mllm import captions, records
    from mllm.boxes import Frame
    from mllm.data import descriptors, formats, sources
    from mllm.evaluation import kvg_published
    from mllm.inference import openai_schema
    from mllm.io import codec, safe_pickle
    from mllm.io.images import image_from_bytes
    from mllm.knowledge import card_files, mastery
    from mllm.metrics import reasoning
    from mllm.models import box_notation, families
    from mllm.prompting import answers
    from mllm.synthesis import teacher_parsing
    from mllm.synthesis.prompted_teacher import TeacherError
    from mllm.training import config_file
    from tests.support import fuzz_exports, fuzz_files

    Image.new("RGB", (40, 20), "red").save(folder / "a.png")
    (folder / "bird").mkdir(exist_ok=True)
    shutil.copy(folder / "a.png", folder / "bird" / "a.png")
    size = Frame(640, 480)
    every = [(family, family.frame(size, family.budget)) for family in map(families.load, families.names())]

    def spoken(read: Callable[[str], Any]) -> Callable[[bytes], Any]:
        return lambda data: read(data.decode("utf-8", "replace"))

    def answer(text: str) -> None:
        for family, frame in every:
            answers.parse(answers.whole("<think>" if len(text) % 2 else "", text), family, frame)

    def thought(text: str) -> None:
        for family, frame in every:
            reasoning.read_thought(text, family, frame)

    def replied(text: str) -> None:
        family, frame = every[0]
        for read in (
            teacher_parsing.plain, teacher_parsing.prose, teacher_parsing.marks,
            lambda t: teacher_parsing.differences(t, "a", "b"), lambda t: teacher_parsing.verdicts(t, 3),
            lambda t: teacher_parsing.boxes(t, family, frame),
        ):  # fmt: skip
            try:
                read(text)
            except TeacherError:
                continue  # a teacher's reply that cannot be read: counted by its caller

    def filed(name: str, read: Callable[[Path], Any]) -> Callable[[bytes], Any]:
        def run(data: bytes) -> None:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
            found = read(folder / name)
            if hasattr(found, "__next__"):
                for _ in found:
                    pass

        return run

    def photos(name: str, beside: bool = False) -> Callable[[Path], Any]:
        how = {"domain": "bird", "clip_boxes": True, "whole_image_boxes": True}
        return lambda path: list(sources.photos(name, sources.PhotoRequest(path.parent if beside else path, **how)))

    def asked(data: bytes) -> None:
        try:
            openai_schema.read_prompt(openai_schema.read(data), openai_schema.ServerLimits())
        except openai_schema.ApiError:
            return

    sample = dumped({
        "schema": "fieldmark.sample/1", "id": "a", "task": "ground", "image": "a.png", "size": [40, 20],
        "domain": "bird", "entity": "robin", "question": "Find it.", "boxes": [[0.1, 0.1, 0.5, 0.5]],
        "things": [{"entity": "robin", "box": [0.1, 0.1, 0.5, 0.5], "marks": ["red"]}], "split": "train",
    })  # fmt: skip
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 20}],
        "categories": [{"id": 7, "name": "robin", "supercategory": "bird"}],
        "annotations": [{"id": 5, "image_id": 1, "category_id": 7, "bbox": [4, 2, 10, 8], "iscrowd": 0}],
    }
    swift = {
        "messages": [
            {"role": "user", "content": "<image>Find the <ref-object>."},
            {"role": "assistant", "content": "<think>a <bbox></think><answer><bbox></answer>"},
        ],
        "images": ["a.png"],
        "objects": {"ref": ["cat"], "bbox": [[1, 2, 30, 20], [1, 2, 30, 19]], "bbox_type": "real"},
    }
    share = {
        "conversations": [
            {"from": "human", "value": "<image>Find the <|object_ref_start|>cat<|object_ref_end|>."},
            {"from": "gpt", "value": "<think>(1,2),(3,4)</think><answer>(100,200),(300,400)</answer>"},
        ],
        "images": ["a.png"],
    }
    vlm = {
        "image": "a.png",
        "conversations": [{"from": "human", "value": "<image>Find it."}, {"from": "gpt", "value": "[1, 2, 30, 20]"}],
    }
    plain = {"id": 1, "image": "a.png", "problem": "Find it.", "solution": [1, 2, 30, 20], "width": 40, "height": 20}
    request = {"model": "m", "messages": [{"role": "user", "content": [
        {"type": "text", "text": "hello"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
    ]}]}  # fmt: skip

    foreign = families.load("qwen2_vl")
    yaml = b"fieldmark:\n  model: pocket\n  train: [a.jsonl]\n  lora: {r: 4}\nlearning_rate: 1.0e-4\n"
    return fuzz_files.more(folder) | fuzz_exports.exports(folder / "exports", folder / "a.png") | {
        "answers.parse": Target(spoken(answer), SPOKEN, TAGS, 20),
        "notation.read_boxes": Target(spoken(box_notation.read_boxes), SPOKEN, TAGS, 20),
        "links.read_thought": Target(spoken(thought), SPOKEN, TAGS, 10),
        "kvg.published_numbers": Target(spoken(kvg_published.published_numbers), SPOKEN, TAGS, 10),
        "asking.replies": Target(spoken(replied), SPOKEN, TAGS, 10),
        "captions.words": Target(spoken(captions.words), SPOKEN, TAGS, 5),
        "rows.decode": Target(lambda data: codec.decode(data, records.Sample), (sample,), JSON, 10),
        "wire.read": Target(asked, (dumped(request),), JSON, 5),
        "records.load_samples": Target(filed("s.jsonl", records.load_samples), (sample,), JSON),
        "sources.csv": Target(
            filed("p.csv", photos("csv")), (b"image,entity,x1,y1,x2,y2\na.png,robin,1,2,30,20\n",), (b'"', b",", b"\n")
        ),
        "sources.coco": Target(filed("c.json", photos("coco")), (dumped(coco),), JSON, 2),
        "sources.image_folder": Target(
            filed("boxes.jsonl", photos("image_folder", True)), (b'{"image": "bird/a.png", "box": [1, 2, 30, 20]}\n',),
            JSON,
        ),
        "interop.sharegpt": Target(
            filed("g.jsonl", lambda path: formats.load("sharegpt").read(path, foreign)), (dumped(share),), JSON, 2
        ),
        "interop.swift": Target(
            filed("w.jsonl", lambda path: formats.load("swift").read(path, foreign)), (dumped(swift),), JSON, 2
        ),
        "interop.vlm_r1": Target(
            filed("v.jsonl", lambda path: formats.load("vlm_r1").read(path, foreign)), (dumped(vlm, plain),), JSON, 2
        ),
        "mastery.load": Target(
            filed("m.json", mastery.load_mastery),
            (dumped({"schema": "fieldmark.mastery/1", "entities": {"a": {"right": 7, "asked": 8}}}),
             dumped({"a": {"knowledge_category": "completely correct"}})), JSON,
        ),
        "cardfiles.yaml": Target(
            filed("k.yaml", card_files.read), (b"robin:\n  domain: bird\n  marks:\n  - {mark: red, part: breast}\n",),
            (b"&a ", b"*a", b"- ", b": ", b"!!python/object:os.system", b"\t", b"{", b"<<: *a"),
        ),
        "descriptors": Target(filed("d.json", descriptors.load), (dumped({"robin": ["red", "blue"]}),), JSON),
        "config": Target(
            filed("r.yaml", lambda path: config_file.read(["--config", str(path)], path, {"learning_rate"})), (yaml,),
            (b"&a ", b"*a", b"- ", b": ", b"rewards: {iou: {weight: x}}", b"1e999"),
        ),
        "fieldmark.json": Target(
            filed("fieldmark.json", lambda path: families.read_convention(path.parent)),
            (b'{"schema": "fieldmark.convention/1", "family": "pocket", "prompt": "think", "budget": '
             b'{"min_pixels": 1024, "max_pixels": 65536}, "version": 1}',), JSON,
        ),
        "captions.json": Target(filed("q.json", caption_stats.read_captions), (dumped({"1": "a red bird"}),), JSON),
        "unpickling": Target(
            filed("q.pkl", safe_pickle.load), (pickle.dumps({1: "a red bird", 2: "b"}),),
            (b"cos\nsystem\n", b"(", b"tR", b".", b"\x8c", b"\x93", b"\x8a", b"\x8e"), 5,
        ),
        "images": Target(
            lambda data: image_from_bytes(data, "x", 1_000_000),
            tuple(_image(kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")), (), 2,
        ),
    }  # fmt: skip


def _image(kind: str) -> bytes:
    from io import BytesIO

    from PIL import Image

    held = BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((24, 16)).save(held, kind)
    return held.getvalue()

"""A benchmark folder of the grounding benchmark, as the program leaves it, written without a model."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from mllm.boxes import Box, Frame
from mllm.evaluation import runs
from mllm.io.jsonl import append_jsonl
from mllm.records import Answer, Completion, Sample, Thing

CONVENTION = {
    "family": "pocket",
    "prompt": "think",
    "budget": {"min_pixels": 9216, "max_pixels": 55296},
    "system": None,
    "version": 1,
}
UNREAD = Answer(None, None, (), (), None)
MARKS = (("round", "red"), ("round", "blue"))


def cases(folder: Path) -> list[Sample]:
    """Four questions on two images: bird (seen, two questions) and dog (unseen)."""
    Image.new("RGB", (200, 100)).save(folder / "a.png")
    Image.new("RGB", (200, 100)).save(folder / "b.png")
    left, right = Box(0.1, 0.2, 0.5, 0.6), Box(0.6, 0.2, 0.9, 0.6)

    def one(name, image, domain, target, seen):
        things = (Thing("Talo ruvi", left, MARKS[0]), Thing("Talo mesi", right, MARKS[1]))
        entity, box = things[target].entity, things[target].box
        return Sample(
            id=name, task="ground", image=image, size=Frame(200, 100), domain=domain, entity=entity,
            question=f"Find the {domain} {entity}.", boxes=(box,), things=things, split="test", seen=seen,
        )  # fmt: skip

    return [
        one("a0", "a.png", "bird", 0, True),
        one("a1", "a.png", "bird", 1, True),
        one("b0", "b.png", "dog", 0, False),
        one("b1", "b.png", "dog", 1, False),
    ]


TEXTS = {
    # right to the number: IoU 1; links all hold
    "a0": "<think>Talo ruvi: round, red. 1 (10,20),(50,60): round, red. 2 (60,20),(90,60): round, blue. So 1.</think>"
    "<answer>(10,20),(50,60)</answer>",
    # the other bird: IoU 0
    "a1": "<answer>(10,20),(50,60)</answer>",
    # 30 of 40 wide: 1200 / 1600 = 0.75
    "b0": "<answer>(10,20),(40,60)</answer>",
    # no answer tag
    "b1": "(60,20),(90,60)",
}


def answered(folder: Path, texts=TEXTS, **info) -> Path:
    """A benchmark folder as the program leaves it, written without a model."""
    folder.mkdir(parents=True)
    base = {"model": "m", "style": "think", "convention": CONVENTION, "samples": {"file": "f"}, "official": False}
    samples = cases(folder)
    runs.begin(folder, base | info, samples, folder)
    for sample in samples:
        append_jsonl(
            folder / "outputs.jsonl", Completion(sample.id, texts[sample.id], UNREAD, tokens=10, truncated=False)
        )
    return folder

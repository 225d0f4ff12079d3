"""ms-swift's grounding rows: `<ref-object>` and `<bbox>` in the text, their values in `objects`.

    {"messages": [{"role": "user", "content": "<image>Find the <ref-object>."},
                  {"role": "assistant", "content": "<answer><bbox></answer>"}],
     "images": ["x.jpg"],
     "objects": {"ref": ["the cat"], "bbox": [[10, 20, 300, 400]], "bbox_type": "real"}}

`bbox_type` says what the numbers are written on: `real` (pixels of the image, the default), `norm1000`, or `norm1`
(shares, ms-swift's own documentation, "Grounding"). ms-swift fills the placeholders in order, in its model's spelling,
so these rows hold for every family. We write `norm1`, in which every box keeps all its digits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mllm.boxes import Box, Frame
from mllm.data.formats import UNKNOWN, Line, exact, lines, write_rows
from mllm.models.families import Family
from mllm.prompting import prompts
from mllm.prompting.tasks import asked_boxes
from mllm.prompting.tasks.ground import ABSENT
from mllm.records import REFERENCE, Sample, Thing

FRAMES = {"norm1000": Frame(1000, 1000), "norm1": Frame(1, 1)}
_REF, _BOX = "<ref-object>", "<bbox>"


def read(path: Path, family: Family | None = None) -> Iterator[Sample]:
    """Read samples. The family plays no part: the rows say what their numbers are written on."""
    for line in lines(path):
        question, answer = _turns(line)
        images = line.get("images", list)
        if len(images) != 1:
            raise line.error("images", f"one image is needed, got {len(images)}")
        image, size = line.image("images", images[0])
        objects = line.get("objects", dict, default={})
        refs, boxes = objects.get("ref", []), _boxes(line, objects, size)
        if not isinstance(refs, list):
            raise line.error("objects.ref", f"a list of names is needed, got {refs!r:.60}")
        placed = question.count(_BOX) + answer.count(_BOX)
        if placed != len(boxes):
            raise line.error("objects.bbox", f"{len(boxes)} boxes for {placed} <bbox> in the messages")
        if question.count(_REF) + answer.count(_REF) > len(refs):
            raise line.error("objects.ref", f"{len(refs)} names for more <ref-object> in the messages")
        names = iter(refs)
        question = _fill(question, _REF, (str(next(names)) for _ in range(question.count(_REF))))
        entity = str(refs[0]) if refs else UNKNOWN
        thought, answered = _thought(answer, _fill_names(answer, names))
        asked = boxes[len(boxes) - answered :] if answered else ()
        things = _things(boxes, asked, entity)
        yield Sample(
            id=str(line.row.get("id", f"{path.stem}-{line.number:06}")),
            task="ground_all" if len(asked) > 1 else "ground",
            image=image,
            size=size,
            domain=UNKNOWN,
            entity=entity,
            question=question,
            boxes=asked,
            things=things,
            thought=_refer(thought, things, boxes) if thought else None,
            provenance={"source": "swift"},
        )


def write(path: Path, samples: Sequence[Sample], family: Family | None = None, style: str = "think") -> int:
    """Write samples; with style `think` those that have a thought get it, each `<obj:K>` as a `<bbox>`."""

    def row(sample: Sample) -> dict[str, Any]:
        boxes: list[Box] = []
        thought = sample.thought if style == "think" else None
        if thought:
            boxes += [sample.things[int(match[1])].box for match in REFERENCE.finditer(thought)]
            thought = f"<think>{REFERENCE.sub(_BOX, thought)}</think>"
        asked = asked_boxes(sample)
        boxes += asked
        answer = f"<answer>{', '.join([_BOX] * len(asked)) or ABSENT}</answer>"
        question = prompts.user_text(sample, style)
        named = sample.entity in question
        return {
            "id": sample.id,
            "messages": [
                {
                    "role": "user",
                    "content": f"<image>{question.replace(sample.entity, _REF, 1) if named else question}",
                },
                {"role": "assistant", "content": f"{thought or ''}{answer}"},
            ],
            "images": [sample.image],
            "objects": {
                "ref": [sample.entity],
                "bbox": [exact(box, Frame(1, 1)) for box in boxes],
                "bbox_type": "norm1",
            },
        }

    return write_rows(path, map(row, samples))


def _turns(line: Line) -> tuple[str, str]:
    """Return the texts of the user's and the assistant's turn; a system turn is passed over."""
    turns = [turn for turn in line.get("messages", list) if isinstance(turn, dict) and turn.get("role") != "system"]
    if [turn.get("role") for turn in turns] != ["user", "assistant"]:
        raise line.error("messages", "one turn of the user and one of the assistant are needed")
    texts = [turn.get("content") for turn in turns]
    if not all(isinstance(text, str) for text in texts):
        raise line.error("messages", "each turn needs a text `content`")
    return str(texts[0]).replace("<image>", "").strip(), str(texts[1])


def _boxes(line: Line, objects: dict[str, Any], size: Frame) -> tuple[Box, ...]:
    """Return all boxes of a row in their order."""
    kind = objects.get("bbox_type", "real")
    if not isinstance(kind, str) or (kind != "real" and kind not in FRAMES):
        raise line.error("objects.bbox_type", f"{kind!r} is none of real, {', '.join(FRAMES)}")
    frame = FRAMES.get(kind, size)
    found = objects.get("bbox", [])
    if not isinstance(found, list):
        raise line.error("objects.bbox", f"a list of boxes is needed, got {found!r:.60}")
    return tuple(line.box(f"objects.bbox[{k}]", numbers, frame) for k, numbers in enumerate(found))


def _fill(text: str, mark: str, values: Iterator[str]) -> str:
    """Put values in the places of a placeholder, in order."""
    for value in values:
        text = text.replace(mark, value, 1)
    return text


def _fill_names(text: str, names: Iterator[Any]) -> str:
    """Put the names that are left into an answer."""
    return _fill(text, _REF, (str(next(names)) for _ in range(text.count(_REF))))


def _thought(raw: str, filled: str) -> tuple[str | None, int]:
    """Return the thought of an answer, and how many of its boxes stand after it."""
    head, tag, tail = filled.rpartition("</think>")
    if not tag:
        return None, raw.count(_BOX)
    return head.partition("<think>")[2], tail.count(_BOX)


def _things(boxes: tuple[Box, ...], asked: tuple[Box, ...], entity: str) -> tuple[Thing, ...]:
    """Return one thing for each different box; those that were asked for carry the name."""
    return tuple(Thing(entity if box in asked else UNKNOWN, box) for box in dict.fromkeys(boxes))


def _refer(thought: str, things: tuple[Thing, ...], boxes: tuple[Box, ...]) -> str:
    """Write each `<bbox>` of a thought as the thing it is."""
    places = {thing.box: k for k, thing in enumerate(things)}
    return _fill(thought, _BOX, (f"<obj:{places[box]}>" for box in boxes[: thought.count(_BOX)]))

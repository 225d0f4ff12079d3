"""ms-swift's grounding rows: `<ref-object>` and `<bbox>` in the text, their values in `objects`.

    {"messages": [{"role": "user", "content": "<image>Find the <ref-object>."},
                  {"role": "assistant", "content": "<answer><bbox></answer>"}],
     "images": ["x.jpg"],
     "objects": {"ref": ["the cat"], "bbox": [[10, 20, 300, 400]], "bbox_type": "real"}}

`bbox_type` names the frame: `real` (pixels, the default), `norm1000`, or `norm1` (shares), which we write because every
box keeps all its digits. ms-swift fills the placeholders in its model's spelling, so the rows work for every family.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from mllm.boxes import Box, Frame
from mllm.data.formats import UNKNOWN, ChatRow, exact, question_and_answer, read_lines, write_rows
from mllm.models.families import Family
from mllm.prompting import prompts
from mllm.prompting.tasks import asked_boxes
from mllm.prompting.tasks.ground import ABSENT
from mllm.records import REFERENCE, Sample, Thing

FRAMES = {"norm1000": Frame(1000, 1000), "norm1": Frame(1, 1)}
_REF, _BOX = "<ref-object>", "<bbox>"


class Objects(BaseModel):
    """The values of a row's placeholders."""

    ref: list[Any] = []
    bbox: list[Any] = []
    bbox_type: Literal["real", "norm1000", "norm1"] = "real"


class SwiftRow(ChatRow):
    """A row of ms-swift's."""

    objects: Objects = Objects()


def read(path: Path, family: Family | None = None, *, clip: bool = False) -> Iterator[Sample]:
    """Read samples. The family is not used: the rows name the frame of their numbers."""
    for line in read_lines(path, SwiftRow, clip=clip):
        question, answer = question_and_answer(line)
        image = line.row.images[0]
        size = line.image_size("images", image)
        objects, refs = line.row.objects, line.row.objects.ref
        frame = FRAMES.get(objects.bbox_type, size)
        boxes = tuple(line.box(f"objects.bbox[{k}]", numbers, frame) for k, numbers in enumerate(objects.bbox))
        placed = question.count(_BOX) + answer.count(_BOX)
        if placed != len(boxes):
            raise line.error("objects.bbox", f"{len(boxes)} boxes for {placed} <bbox> in the messages")
        if question.count(_REF) + answer.count(_REF) > len(refs):
            raise line.error("objects.ref", f"{len(refs)} names, but the messages have more <ref-object>")
        for k, name in enumerate(refs):
            if not isinstance(name, str) or not name.strip():
                raise line.error(f"objects.ref[{k}]", f"a name is needed, got {json.dumps(name):.60}")
        names = iter(refs)
        asked_refs = question.count(_REF)
        question = _fill(question, _REF, islice(names, question.count(_REF)))
        entity = refs[0] if refs else UNKNOWN
        head, tag, tail = _fill(answer, _REF, islice(names, answer.count(_REF))).rpartition("</think>")
        answered = (tail if tag else answer).count(_BOX)
        thought_refs = answer.rpartition("</think>")[0].count(_REF)
        start = asked_refs + thought_refs
        asked_for = dict.fromkeys([*refs[:asked_refs], *refs[start:]])
        if answered > 1 and len(asked_for) > 1:
            raise line.error(
                "objects.ref",
                f"boxes of several things ({', '.join(asked_for)}) in one answer, but a sample asks for "
                "one; write a row for each",
            )
        asked = boxes[len(boxes) - answered :] if answered else ()
        things = tuple(Thing(entity if box in asked else UNKNOWN, box) for box in dict.fromkeys(boxes))
        places = {thing.box: f"<obj:{k}>" for k, thing in enumerate(things)}
        thought = head.partition("<think>")[2]
        thought = _fill(thought, _BOX, (places[box] for box in boxes[: thought.count(_BOX)])) or None
        more = {"things": things, "thought": thought, "provenance": {"source": "swift"}}
        yield line.sample(image, size, entity, question, asked, **more)


def write(path: Path, samples: Sequence[Sample], family: Family | None = None, style: str = "think") -> int:
    """Write samples; style `think` includes their thoughts, with each `<obj:K>` as a `<bbox>`."""

    def row(sample: Sample) -> dict[str, Any]:
        boxes: list[Box] = []
        thought = sample.thought if style == "think" else None
        if thought:
            boxes += [sample.things[int(match[1])].box for match in REFERENCE.finditer(thought)]
            thought = f"<think>{REFERENCE.sub(_BOX, thought)}</think>"
        asked = asked_boxes(sample)
        boxes += asked
        answer = f"<answer>{', '.join([_BOX] * len(asked)) or ABSENT}</answer>"
        question, numbers = prompts.user_text(sample, style), [exact(box, Frame(1, 1)) for box in boxes]
        return {
            "id": sample.id,
            "messages": [
                {"role": "user", "content": f"<image>{question.replace(sample.entity, _REF, 1)}"},
                {"role": "assistant", "content": f"{thought or ''}{answer}"},
            ],
            "images": [sample.image],
            "objects": {"ref": [sample.entity], "bbox": numbers, "bbox_type": "norm1"},
        }

    return write_rows(path, map(row, samples))


def _fill(text: str, mark: str, values: Iterable[str]) -> str:
    """Replace the occurrences of a placeholder by values, in order."""
    for value in values:
        text = text.replace(mark, value, 1)
    return text

"""LLaMA-Factory's sharegpt rows: boxes are written in the text, as the model family spells them.

    {"messages": [{"role": "user", "content": "<image>Find and give the bounding box of ..."},
                  {"role": "assistant", "content": "<think>...</think><answer>(1,2),(3,4)</answer>"}],
     "images": ["x.jpg"]}

`conversations` with `from` human or gpt and `value`, the older spelling, is read as well. KVG and KVG-KARL, the
training sets of DeepPerception and KARL, are of this kind (family qwen2_vl: thousandths). What numbers mean hangs on
the family the file was written for, so it has to be named. Text holds whole numbers: a box written and read again may
move by half a unit, which is why rows that we write carry a column `fieldmark` with all digits; LLaMA-Factory passes it
over, and reading refuses rows in which it disagrees with the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mllm.boxes import Box, Frame
from mllm.data.formats import UNKNOWN, Line, entity_of, lines, write_rows
from mllm.errors import BoxError, RecordError
from mllm.io.codec import decode, encode
from mllm.models.box_notation import find_boxes
from mllm.models.families import Family, whole_numbers
from mllm.prompting import answers, prompts
from mllm.prompting.tasks import asked_boxes
from mllm.records import Sample, Thing

_SIDES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}


def read(path: Path, family: Family) -> Iterator[Sample]:
    """Read samples whose boxes are in the text of `family`. An answer that names no box is a thing that is not there.

    Raises:
        RecordError: besides broken rows, an answer that cannot be read (see `mllm.prompting.answers`).
    """
    for line in lines(path):
        question, text = _turns(line)
        images = line.get("images", list)
        if len(images) != 1:
            raise line.error("images", f"one image is needed, got {len(images)}")
        image, size = line.image("images", images[0])
        frame = family.frame(size, family.budget)
        answer = answers.parse(text if "<answer>" in text else f"<answer>{text}</answer>", family, frame)
        if answer.problem is not None:
            raise line.error("messages", f"the answer cannot be read: {answer.problem} ({text[-80:]!r})")
        entity = entity_of(question)
        thought, things = _thought(answer.thought, answer.boxes, entity, family, frame)
        sample = Sample(
            id=str(line.row.get("id", f"{path.stem}-{line.number:06}")),
            task="ground_all" if len(answer.boxes) > 1 else "ground",
            image=image,
            size=size,
            domain=UNKNOWN,
            entity=entity,
            question=question,
            boxes=answer.boxes,
            things=things,
            thought=thought,
            provenance={"source": "sharegpt"},
        )
        yield _with_digits(line, sample, family, frame)


def write(path: Path, samples: Sequence[Sample], family: Family, style: str = "think") -> int:
    """Write samples as a model of `family` is asked and should answer, in a prompt style."""

    def row(sample: Sample) -> dict[str, Any]:
        frame = family.frame(sample.size, family.budget)
        return {
            "id": sample.id,
            "messages": [
                {"role": "user", "content": f"<image>{prompts.user_text(sample, style)}"},
                {"role": "assistant", "content": prompts.target(sample, style, family, frame)},
            ],
            "images": [sample.image],
            "fieldmark": encode(sample),
        }

    return write_rows(path, map(row, samples))


def _turns(line: Line) -> tuple[str, str]:
    """Return the texts of the user's and the assistant's turn, in either spelling."""
    key, who, what = ("messages", "role", "content") if "messages" in line.row else ("conversations", "from", "value")
    turns = [turn for turn in line.get(key, list) if isinstance(turn, dict) and turn.get(who) != "system"]
    if [_SIDES.get(str(turn.get(who))) for turn in turns] != ["user", "assistant"]:
        raise line.error(key, "one turn of the user and one of the assistant are needed")
    texts = [turn.get(what) for turn in turns]
    if not all(isinstance(text, str) for text in texts):
        raise line.error(key, f"each turn needs a text `{what}`")
    return str(texts[0]).replace("<image>", "").strip(), str(texts[1])


def _thought(
    text: str | None, asked: Sequence[Box], entity: str, family: Family, frame: Frame
) -> tuple[str | None, tuple[Thing, ...]]:
    """Return a thought with its boxes as `<obj:K>`, and the things that these are, those asked for among them.

    What is written like a box and is none (outside the image, inverted) stays as it is.
    """
    things = {box: Thing(entity, box) for box in asked}
    if not text:
        return None, tuple(things.values())
    pieces, end = [], 0
    for start, stop, _ in find_boxes(text):
        try:
            box = Box.from_xyxy(family.read(text[start:stop])[0], frame)
        except BoxError:
            continue
        things.setdefault(box, Thing(UNKNOWN, box))
        pieces += [text[end:start], f"<obj:{list(things).index(box)}>"]
        end = stop
    return "".join([*pieces, text[end:]]), tuple(things.values())


def _with_digits(line: Line, sample: Sample, family: Family, frame: Frame) -> Sample:
    """Return the sample that a row of ours carries in full, after comparing it with what the text says."""
    if "fieldmark" not in line.row:
        return sample
    try:
        full = decode(line.get("fieldmark", str), Sample)
    except RecordError as error:
        raise line.error("fieldmark", str(error)) from None
    asked = asked_boxes(full)
    if [whole_numbers(box, frame) for box in asked] != [whole_numbers(box, frame) for box in sample.boxes]:
        raise line.error("fieldmark", "its boxes are not those of the text; was the text edited? Remove this column")
    return replace(full, image=sample.image, size=sample.size)

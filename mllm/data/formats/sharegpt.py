"""LLaMA-Factory's sharegpt rows: boxes are written in the text, as the model family spells them.

    {"messages": [{"role": "user", "content": "<image>Find and give the bounding box of ..."},
                  {"role": "assistant", "content": "<think>...</think><answer>(1,2),(3,4)</answer>"}],
     "images": ["x.jpg"]}

The older `conversations` with `from` and `value` are read as well; KVG and KVG-KARL, the training sets of
DeepPerception and KARL, have them (family qwen2_vl). Text holds whole numbers, so rows that we write carry all digits
in a column `fieldmark`: LLaMA-Factory ignores it, and reading refuses rows in which it disagrees with the text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mllm.boxes import Box, Frame
from mllm.data.formats import UNKNOWN, ChatRow, Line, entity_of, question_and_answer, read_lines, write_rows
from mllm.errors import BoxError, RecordError
from mllm.io.codec import decode, encode
from mllm.models.box_notation import find_boxes
from mllm.models.families import Family, whole_numbers
from mllm.prompting import answers, prompts
from mllm.prompting.tasks import asked_boxes, task_of
from mllm.records import Sample, Thing


class SharegptRow(ChatRow):
    """A row of LLaMA-Factory's, perhaps written by us."""

    fieldmark: str | None = None


def read(path: Path, family: Family, *, clip: bool = False) -> Iterator[Sample]:
    """Read samples whose boxes are in the text of `family`. An answer without a box means that the thing is absent.

    Raises `RecordError`: a broken row, or an answer that cannot be read (see `mllm.prompting.answers`).
    """
    for line in read_lines(path, SharegptRow, clip=clip):
        question, text = question_and_answer(line)
        image = line.row.images[0]
        size = line.image_size("images", image)
        frame = family.frame(size, family.budget)
        answer = answers.parse(text if "<answer>" in text else f"<answer>{text}</answer>", family, frame)
        if answer.problem not in (None, answers.OUTSIDE):
            raise line.error("messages", f"the answer cannot be read: {answer.problem} ({text[-80:]!r})")
        entity = entity_of(question)
        boxes = tuple(line.box("messages", four, frame) for four in answer.numbers)
        thought, things = _thought(answer.thought, boxes, entity, family, frame)
        more = {"things": things, "thought": thought, "provenance": {"source": "sharegpt"}}
        sample = line.sample(image, size, entity, question, boxes, **more)
        yield _with_digits(line, sample, family, frame)


def write(path: Path, samples: Sequence[Sample], family: Family, style: str = "think") -> int:
    """Write the prompt and the target answer of each sample, in the text of `family` and in a prompt style."""

    def row(sample: Sample) -> dict[str, Any]:
        frame = family.frame(sample.size, family.budget)
        return {
            "id": sample.id,
            "messages": [
                {"role": "user", "content": f"<image>{prompts.user_text(sample, style)}"},
                {"role": "assistant", "content": task_of(sample).target(sample, style, family, frame)},
            ],
            "images": [sample.image],
            "fieldmark": encode(sample),
        }

    return write_rows(path, map(row, samples))


def _thought(
    text: str | None, asked: Sequence[Box], entity: str, family: Family, frame: Frame
) -> tuple[str | None, tuple[Thing, ...]]:
    """Return a thought with its boxes as `<obj:K>`, and the things they stand for, including those asked for.

    Text that looks like a box but is not a valid one (outside the image, inverted) is left unchanged.
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


def _with_digits(line: Line[SharegptRow], sample: Sample, family: Family, frame: Frame) -> Sample:
    """Return the full sample that a row written by us carries, after comparing it with the text."""
    if line.row.fieldmark is None:
        return sample
    try:
        full = decode(line.row.fieldmark, Sample)
    except RecordError as error:
        raise line.error("fieldmark", str(error)) from None
    asked = asked_boxes(full)
    if [whole_numbers(box, frame) for box in asked] != [whole_numbers(box, frame) for box in sample.boxes]:
        raise line.error("fieldmark", "its boxes are not those of the text; was the text edited? Remove this column")
    return replace(full, image=sample.image, size=sample.size)

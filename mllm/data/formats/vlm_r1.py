"""VLM-R1's referring expressions: boxes in pixels, json lists for its evaluation and jsonl for its training.

    {"image": "val2014/x.jpg", "problem": "Please provide ...: the cat.", "normal_caption": "the cat",
     "solution": [10.5, 20, 300, 400]}
    {"id": 1, "image": "x.jpg", "conversations": [{"from": "human", "value": "<image>..."},
     {"from": "gpt", "value": "[10.5, 20, 300, 400]"}]}

`solution: null` means that the thing is absent; a list of lists names every instance. With `width` and `height` the
image need not be opened.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from mllm.boxes import Box, Frame
from mllm.data.formats import ChatTurn, ForeignRow, Line, entity_of, exact, read_lines, write_rows
from mllm.io import strict_json
from mllm.models.families import Family
from mllm.prompting.tasks import asked_boxes
from mllm.records import Sample


class VlmR1Row(ForeignRow):
    """A row of either shape."""

    image: str = Field(min_length=1)
    problem: str = ""
    solution: Any = None
    conversations: Annotated[list[ChatTurn], Field(min_length=2, max_length=2)] | None = None
    normal_caption: str | None = None
    width: int | None = Field(None, gt=0)
    height: int | None = Field(None, gt=0)
    categories: Any = None


def read(path: Path, family: Family | None = None, *, clip: bool = False) -> Iterator[Sample]:
    """Read samples. The family is not used: numbers are pixels."""
    for line in read_lines(path, VlmR1Row, clip=clip):
        row = line.row
        question, solution = _conversation(line) if row.conversations is not None else _problem(line)
        size = Frame(row.width, row.height) if row.width and row.height else line.image_size("image", row.image)
        boxes = _boxes(line, solution, size)
        entity, asked = row.normal_caption or entity_of(question), question.replace("<image>", "").strip()
        more = {"categories": row.categories or {}, "provenance": {"source": "vlm_r1"}}
        yield line.sample(row.image, size, entity, asked, boxes, **more)


def write(path: Path, samples: Sequence[Sample], family: Family | None = None, style: str = "") -> int:
    """Write `.json` in the shape for evaluation and everything else in the shape for training."""

    def row(sample: Sample) -> dict[str, Any]:
        numbers = [exact(box, sample.size) for box in asked_boxes(sample)]
        solution = None if not numbers else numbers if sample.task == "ground_all" else numbers[0]
        if path.suffix != ".json":
            turns = [("human", f"<image>{sample.question}"), ("gpt", json.dumps(solution))]
            conversation = [{"from": who, "value": value} for who, value in turns]
            return {"id": sample.id, "image": sample.image, "conversations": conversation}
        size = {"width": int(sample.size.width), "height": int(sample.size.height)}
        texts = {"normal_caption": sample.entity, "problem": sample.question}
        return {"id": sample.id, "image": sample.image, **size, **texts, "solution": solution}

    return write_rows(path, map(row, samples))


def _problem(line: Line[VlmR1Row]) -> tuple[str, Any]:
    """Return the question and the solution of an evaluation row, both of which it has to name."""
    for field in ("problem", "solution"):
        if field not in line.row.model_fields_set:
            raise line.error(field, "is missing" + (" (null: the thing is absent)" if field == "solution" else ""))
    return line.row.problem, line.row.solution


def _conversation(line: Line[VlmR1Row]) -> tuple[str, Any]:
    """Return the question of a training row, and its solution read as JSON."""
    question, answer = (turn.content for turn in line.row.conversations or ())
    text = answer.replace("<answer>", "").replace("</answer>", "").strip()
    try:
        return question, strict_json.loads(text)
    except json.JSONDecodeError:
        raise line.error("conversations[1].value", f"a JSON list of four numbers is needed, got {text!r:.60}") from None


def _boxes(line: Line[VlmR1Row], solution: Any, size: Frame) -> tuple[Box, ...]:
    """Return the boxes of a solution: null, four numbers, or a list of fours."""
    if solution is None:
        return ()
    if isinstance(solution, dict):
        solution = solution.get("bbox_2d")
    if not isinstance(solution, list):
        raise line.error("solution", f"a list of four numbers, or null, is needed, got {solution!r:.60}")
    several = solution if solution and isinstance(solution[0], list) else [solution] if solution else []
    return tuple(line.box("solution", numbers, size) for numbers in several)

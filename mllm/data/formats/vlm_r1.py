"""VLM-R1's referring expressions: boxes in pixels of the image as it lies on the disk.

Two shapes, as in its repository (om-ai-lab/VLM-R1): json lists for its evaluation and jsonl for its training.

    {"image": "val2014/x.jpg", "problem": "Please provide ...: the cat.", "normal_caption": "the cat",
     "solution": [10.5, 20, 300, 400]}
    {"id": 1, "image": "x.jpg", "conversations": [{"from": "human", "value": "<image>..."},
     {"from": "gpt", "value": "[10.5, 20, 300, 400]"}]}

`solution: null` is a thing that is not in the image (RefCOCO-style "no such object" cases), and a list of lists is
every instance. `width` and `height` spare a look at the image.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mllm.boxes import Box, Frame
from mllm.data.formats import UNKNOWN, Line, entity_of, exact, lines, write_rows
from mllm.io import strict_json
from mllm.models.families import Family
from mllm.prompting.tasks import asked_boxes
from mllm.records import Sample


def read(path: Path, family: Family | None = None) -> Iterator[Sample]:
    """Read samples. The family plays no part: numbers are pixels."""
    for line in lines(path):
        if "conversations" in line.row:
            question, solution = _conversation(line)
        else:
            question, solution = line.get("problem", str), line.row.get("solution", ...)
            if solution is ...:
                raise line.error("solution", "is missing (null says that the thing is not in the image)")
        image, size = _image(line)
        boxes = _boxes(line, solution, size)
        entity = line.get("normal_caption", str, default=None) or entity_of(question)
        yield Sample(
            id=str(line.row.get("id", f"{path.stem}-{line.number:06}")),
            task="ground_all" if len(boxes) > 1 else "ground",
            image=image,
            size=size,
            domain=UNKNOWN,
            entity=entity,
            question=question.replace("<image>", "").strip(),
            boxes=boxes,
            provenance={"source": "vlm_r1", "categories": line.row.get("categories")},
        )


def write(path: Path, samples: Sequence[Sample], family: Family | None = None, style: str = "") -> int:
    """Write `.json` in the evaluation's shape and anything else in the training's."""

    def row(sample: Sample) -> dict[str, Any]:
        numbers = [exact(box, sample.size) for box in asked_boxes(sample)]
        solution = None if not numbers else numbers if sample.task == "ground_all" else numbers[0]
        if path.suffix != ".json":
            turns = [("human", f"<image>{sample.question}"), ("gpt", json.dumps(solution))]
            said = [{"from": who, "value": value} for who, value in turns]
            return {"id": sample.id, "image": sample.image, "conversations": said}
        told = {"width": int(sample.size.width), "height": int(sample.size.height), "normal_caption": sample.entity}
        return {"id": sample.id, "image": sample.image, **told, "problem": sample.question, "solution": solution}

    return write_rows(path, map(row, samples))


def _conversation(line: Line) -> tuple[str, Any]:
    """Return the question of a training row, and its solution read as JSON."""
    turns = line.get("conversations", list)
    values = [value for turn in turns if isinstance(turn, dict) and isinstance(value := turn.get("value"), str)]
    if len(turns) != 2 or len(values) != 2:
        raise line.error("conversations", "two turns with a text `value` each are needed: the question, the solution")
    text = values[1].replace("<answer>", "").replace("</answer>", "").strip()
    try:
        solution = strict_json.loads(text)
    except json.JSONDecodeError:
        raise line.error("conversations[1].value", f"a JSON list of four numbers is needed, got {text!r:.60}") from None
    return values[0], solution


def _image(line: Line) -> tuple[str, Frame]:
    """Return the image and its size, from the row where it says it."""
    if "width" in line.row and "height" in line.row:
        width, height = line.get("width", int), line.get("height", int)
        if width > 0 and height > 0:
            return line.get("image", str), Frame(width, height)
        raise line.error("width", f"an image of {width} x {height} has no area")
    return line.image("image", line.get("image", str))


def _boxes(line: Line, solution: Any, size: Frame) -> tuple[Box, ...]:
    """Return the boxes of a solution: null, four numbers, or a list of fours."""
    if solution is None:
        return ()
    if isinstance(solution, dict):
        solution = solution.get("bbox_2d")
    if not isinstance(solution, list):
        raise line.error("solution", f"a list of four numbers, or null, is needed, got {solution!r:.60}")
    several = solution if solution and isinstance(solution[0], list) else [solution] if solution else []
    return tuple(line.box("solution", numbers, size) for numbers in several)

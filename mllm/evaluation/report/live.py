"""The page of a run in training: progress, alarms, curves, and the latest answers with their boxes."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mllm.evaluation.report import curves
from mllm.evaluation.report.pages import render, shortened
from mllm.io.drawing import ANSWER_COLOUR, GOLD_COLOUR, DrawnBox, data_uri, draw
from mllm.io.images import open_image
from mllm.records import Completion, Sample

SIDE = 360
TEXT_LIMIT = 1200
REFRESH_S = 15
NUMBERS = ("reward", "loss", "eval/acc", "eval/r1", "completions/mean_length", "kl")


@dataclass
class Group:
    """One prompt of a batch: its image, its answers, and for each reward the value of each answer."""

    sample: Sample
    image: Path
    answers: list[Completion]
    values: dict[str, list[float | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """Progress of a run. `left` is the remaining time in words, empty if unknown; `ended`: this is the last page."""

    title: str
    step: int
    steps: int
    left: str = ""
    ended: bool = False


def html(at: Progress, log: Sequence[Mapping[str, float]], alarms: Sequence[str], groups: Sequence[Group]) -> str:
    """Write the page; everything that comes from models or files is escaped."""
    last: dict[str, float] = {}
    for row in log:
        last |= row
    return render(
        "live.html.jinja",
        **asdict(at),
        refresh=REFRESH_S,
        drawn_at=time.strftime("%Y-%m-%d %H:%M:%S"),
        numbers={name: last[name] for name in NUMBERS if name in last},
        alarms=list(alarms),
        curves=curves.panels({"this run": log}),
        prompts=[_prompt(group) for group in groups],
    )


def drawn(group: Group) -> Any:
    """Return the group's image with the true and the predicted boxes drawn."""
    sample = group.sample
    marks = [DrawnBox(box, sample.entity, GOLD_COLOUR) for box in sample.boxes]
    for number, done in enumerate(group.answers, 1):
        marks += [DrawnBox(box, str(number), ANSWER_COLOUR, dashed=True) for box in done.answer.boxes[-1:]]
    return draw(open_image(group.image), marks, side=SIDE)


def _prompt(group: Group) -> dict[str, Any]:
    names = list(group.values)
    rows = [
        {"values": [group.values[name][n] for name in names], "text": f"{n + 1}: {shortened(done.text, TEXT_LIMIT)}"}
        for n, done in enumerate(group.answers)
    ]
    asked = {"id": group.sample.id, "question": group.sample.question, "uri": data_uri(drawn(group), SIDE)}
    return {**asked, "rewards": names, "rows": rows}

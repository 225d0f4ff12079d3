"""Learning curves: panels of lines from the `log.jsonl` of training runs, for the page's template to draw as SVG."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mllm.errors import FieldmarkError
from mllm.io import strict_json

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 34
LARGEST = 1e300
"""Larger values are not drawn, so that differences are finite too."""
POINTS = 300
"""Maximum number of points of a line; longer logs are averaged."""

PANELS = {
    "eval/acc": "Acc@0.5 of answers on the validation split",
    "eval/r1": "R@1 of captions in the bags of the validation split",
    "eval/precision": "share of true claims in captions of the validation split",
    "reward": "mean reward of the completions",
    "loss": "training loss",
    "eval/unread": "share of unreadable answers on the validation split",
    "completions/mean_length": "tokens per completion",
    "eval/tokens": "tokens per answer on the validation split",
    "kl": "KL from the reference model, nats a token",
}
"""The quantities drawn, where a log holds them: key of the log and title."""
SHARES = {"eval/acc", "eval/r1", "eval/precision", "eval/unread"}
"""Panels whose axis runs from 0 to 1."""
_REWARD = re.compile(r"rewards/[^/]+/mean")


@dataclass(frozen=True, slots=True)
class Curve:
    """One run in one panel: `path` and `end`, the last point, are in the panel's own pixels."""

    name: str
    series: int
    path: str
    end: tuple[float, float]
    last: float
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """One drawing; ticks are (position, text)."""

    title: str
    lines: tuple[Curve, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT
    top: int = TOP
    bottom: int = BOTTOM

    @property
    def description(self) -> str:
        """The text for screen readers."""
        return f"{self.title}: " + "; ".join(f"{line.name} ends at {line.last:.3g}" for line in self.lines)


def read_log(path: str | Path) -> list[dict[str, float]]:
    """Read a `log.jsonl` (or the one in a folder). Steps logged again after a resume replace the earlier rows.

    Raises `FieldmarkError`: no such file, or a line that is not a JSON object (an incomplete last line is skipped).
    """
    path = Path(path)
    path = path / "log.jsonl" if path.is_dir() else path
    if not path.is_file():
        raise FieldmarkError(f"{path}: no such log; --logs takes NAME=FOLDER of a training run, or its log.jsonl")
    steps: dict[float, dict[str, float]] = {}
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = strict_json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise FieldmarkError(f"{path}:{number}: broken JSON: {error.msg}") from None
        cells = row.items() if isinstance(row, dict) else ()
        numbers = {key: float(x) for key, x in cells if isinstance(x, int | float) and -LARGEST < x < LARGEST}
        if "step" not in numbers:
            raise FieldmarkError(f"{path}:{number}: field step: a number is needed; is this the log of a training run?")
        steps[numbers["step"]] = steps.get(numbers["step"], {}) | numbers
    return [steps[step] for step in sorted(steps)]


def panels(logs: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Panel]:
    """Make a panel of every quantity logged at two steps or more, and of each reward where there are several."""
    made = []
    for key, title in (PANELS | _rewards(logs)).items():
        found = {}
        for series, (name, rows) in enumerate(logs.items()):
            if key == "loss" and any("reward" in row for row in rows):
                continue  # GRPO's loss stays near 0 whatever is learnt
            points = [(row["step"], row[key]) for row in rows if key in row]
            if len(points) > 1:
                found[name] = (series, _thinned(points))
        if found:
            made.append(_panel(title, found, (0.0, 1.0) if key in SHARES else None))
    return made


def _rewards(logs: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, str]:
    keys = sorted({key for rows in logs.values() for row in rows for key in row if _REWARD.fullmatch(key)})
    return {key: f"reward {key.split('/')[1]}" for key in keys} if len(keys) > 1 else {}


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers from low to high, about `count` of them."""
    if high <= low:
        return [low]
    rough = (high - low) / max(count - 1, 1)
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _panel(
    title: str, found: Mapping[str, tuple[int, list[tuple[float, float]]]], fixed: tuple[float, float] | None
) -> Panel:
    xs = [x for _, points in found.values() for x, _ in points]
    ys = [y for _, points in found.values() for _, y in points]
    x_low, x_high = 0.0, max(xs)
    y_low, y_high = fixed or (min(ys), max(ys))
    if not fixed:
        margin = 0.06 * (y_high - y_low) or max(abs(y_high), 1) * 0.1
        y_low, y_high = (0.0 if min(ys) >= 0 and y_low - margin < 0 else y_low - margin), y_high + margin

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x_low) / (x_high - x_low or 1) * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low or 1) * (HEIGHT - TOP - BOTTOM)
        return round(across, 1), round(down, 1)

    lines = []
    for name, (series, points) in found.items():
        places = [at(x, y) for x, y in points]
        path = "M" + " L".join(f"{x} {y}" for x, y in places)
        lines.append(Curve(name, series, path, places[-1], points[-1][1], tuple(places) if len(places) <= 40 else ()))
    return Panel(
        title,
        tuple(lines),
        tuple((at(x, y_low)[0], f"{x:g}") for x in ticks(x_low, x_high)),
        tuple((at(x_low, y)[1], f"{y:g}" if abs(y) < 1e4 else f"{y:.0e}") for y in ticks(y_low, y_high)),
    )


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Average neighbouring points so that at most `POINTS` remain."""
    size = -(-len(points) // POINTS)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]

"""Frames and boxes: the only file that converts coordinates.

A `Frame` is the paper on which somebody wrote four numbers: the image's pixels, the resized image's pixels, or
1000 x 1000. A `Box` has left that paper behind: it lives in the unit frame (x and y from 0 to 1, origin top left) and
cannot be made otherwise. So numbers never travel without their frame, and IoU needs to know neither image nor size:
scaling x and y changes no ratio of areas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TypeAlias

from mllm.errors import BoxError

Numbers: TypeAlias = tuple[float, float, float, float]
"""x1, y1, x2, y2 on some frame, in that frame's units."""

# How far outside the unit frame a number may lie through rounding alone (xywh sums, products of floats): 1e-9 of the
# frame is a millionth of a pixel on any image; real mistakes are larger by many orders.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Frame:
    """The paper a box is written on. `width` and `height` are in its own units (pixels, thousandths), > 0, finite."""

    width: float
    height: float

    def __post_init__(self) -> None:
        """Refuse a frame without area."""
        for side in (self.width, self.height):
            if not (_is_number(side) and side > 0):
                raise BoxError(f"a frame needs two finite sides above 0, got {self.width!r} x {self.height!r}")

    def oriented(self, exif_orientation: int) -> Frame:
        """Return the frame after EXIF orientation 1..8 was applied: 5 to 8 swap the sides."""
        return Frame(self.height, self.width) if _orientation(exif_orientation) >= 5 else self


@dataclass(frozen=True, slots=True)
class Box:
    """A box in the unit frame: 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1. Anything else raises `BoxError`."""

    x1: float
    y1: float
    x2: float
    y2: float

    def __post_init__(self) -> None:
        """Check the numbers once, here, so that nobody else has to."""
        numbers = (self.x1, self.y1, self.x2, self.y2)
        if not all(map(_is_number, numbers)):
            raise BoxError(f"a box needs four finite numbers, got {numbers}")
        if not (0 <= self.x1 <= 1 and 0 <= self.y1 <= 1 and 0 <= self.x2 <= 1 and 0 <= self.y2 <= 1):
            raise BoxError(f"box {numbers} leaves the unit frame 0..1 (was it written on another frame?)")
        if not (self.x1 < self.x2 and self.y1 < self.y2):
            raise BoxError(f"box {numbers} is inverted or empty: x1 < x2 and y1 < y2 are needed")

    @classmethod
    def from_xyxy(cls, numbers: Sequence[float], frame: Frame, *, clip: bool = False) -> Box:
        """Read x1, y1, x2, y2 written on `frame`.

        `clip=True` cuts off what lies outside the frame (for annotations that overshoot by a pixel or two).

        Raises:
            BoxError: not four finite numbers, inverted, empty, or outside the frame (with `clip`: wholly outside).
        """
        if len(numbers) != 4 or not all(map(_is_number, numbers)):
            raise BoxError(f"a box needs four finite numbers, got {tuple(numbers)}")
        unit = [float(number) / side for number, side in zip(numbers, (frame.width, frame.height) * 2, strict=True)]
        if unit[0] >= unit[2] or unit[1] >= unit[3]:
            raise BoxError(f"box {tuple(numbers)} is inverted or empty: x1 < x2 and y1 < y2 are needed")
        slack = math.inf if clip else ROUNDING
        if min(unit) < -slack or max(unit) > 1 + slack:
            raise BoxError(f"box {tuple(numbers)} leaves its frame of {frame.width:g} x {frame.height:g}")
        x1, y1, x2, y2 = (min(max(number, 0.0), 1.0) for number in unit)
        if x1 >= x2 or y1 >= y2:
            raise BoxError(f"box {tuple(numbers)} lies wholly outside its frame of {frame.width:g} x {frame.height:g}")
        return cls(x1, y1, x2, y2)

    @classmethod
    def from_xywh(cls, numbers: Sequence[float], frame: Frame, *, clip: bool = False) -> Box:
        """Read left, top, width, height written on `frame` (the COCO order). Errors as `from_xyxy`."""
        if len(numbers) != 4 or not all(map(_is_number, numbers)):
            raise BoxError(f"a box needs four finite numbers, got {tuple(numbers)}")
        x, y, width, height = numbers
        if width <= 0 or height <= 0:
            raise BoxError(f"box x={x} y={y} w={width} h={height} is empty: width and height must be above 0")
        return cls.from_xyxy((x, y, x + width, y + height), frame, clip=clip)

    def to_xyxy(self, frame: Frame) -> Numbers:
        """Write the box on `frame`: x1, y1, x2, y2 in its units, not rounded."""
        return (self.x1 * frame.width, self.y1 * frame.height, self.x2 * frame.width, self.y2 * frame.height)

    @property
    def width(self) -> float:
        """Share of the image's width, above 0, at most 1."""
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        """Share of the image's height, above 0, at most 1."""
        return self.y2 - self.y1

    @property
    def area(self) -> float:
        """Share of the image's area, above 0, at most 1."""
        return self.width * self.height

    @property
    def center(self) -> tuple[float, float]:
        """The middle as (x, y), unit frame."""
        return (self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2

    def inside(self, window: Box) -> Box:
        """Return where this box lies after its image was pasted into `window` of a bigger image."""
        return Box(
            window.x1 + self.x1 * window.width,
            window.y1 + self.y1 * window.height,
            min(window.x1 + self.x2 * window.width, 1.0),  # the product may round above the window's own edge
            min(window.y1 + self.y2 * window.height, 1.0),
        )

    def oriented(self, exif_orientation: int) -> Box:
        """Return the box after EXIF orientation 1..8 was applied to its image.

        `self` is written on the image as stored; the result on the image as people see it. The eight cases are
        those of the EXIF 2.3 standard, tag 0x0112.
        """
        x1, y1, x2, y2 = self.x1, self.y1, self.x2, self.y2
        match _orientation(exif_orientation):
            case 2:  # mirrored
                return Box(1 - x2, y1, 1 - x1, y2)
            case 3:  # half a turn
                return Box(1 - x2, 1 - y2, 1 - x1, 1 - y1)
            case 4:  # upside down, mirrored
                return Box(x1, 1 - y2, x2, 1 - y1)
            case 5:  # transposed
                return Box(y1, x1, y2, x2)
            case 6:  # to be turned clockwise
                return Box(1 - y2, x1, 1 - y1, x2)
            case 7:  # transposed over the other diagonal
                return Box(1 - y2, 1 - x2, 1 - y1, 1 - x1)
            case 8:  # to be turned counter-clockwise
                return Box(y1, 1 - x2, y2, 1 - x1)
        return self


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0..1. Rewards and benchmarks call this one function."""
    return iou_xyxy((a.x1, a.y1, a.x2, a.y2), (b.x1, b.y1, b.x2, b.y2))


def iou_xyxy(a: Sequence[float], b: Sequence[float]) -> float:
    """IoU of raw x1, y1, x2, y2 written on one and the same frame, 0..1. Nothing is clipped.

    For official scorers, which judge numbers as the model wrote them. An inverted or empty box overlaps nothing: 0.
    """
    area_a = max(a[2] - a[0], 0.0) * max(a[3] - a[1], 0.0)
    area_b = max(b[2] - b[0], 0.0) * max(b[3] - b[1], 0.0)
    shared = _overlap(a[0], a[2], b[0], b[2]) * _overlap(a[1], a[3], b[1], b[3])
    union = area_a + area_b - shared
    if not math.isfinite(union):
        return 0.0  # numbers so large that their areas overflow; no image holds them
    if area_a <= 0 or area_b <= 0 or union <= 0:
        # Areas of very thin, but real, boxes underflow to 0: only there is equality asked.
        return 1.0 if tuple(a) == tuple(b) and a[0] < a[2] and a[1] < a[3] else 0.0
    return min(shared / union, 1.0)  # rounding may end a hair above 1


def _overlap(a1: float, a2: float, b1: float, b2: float) -> float:
    """Length that the intervals a1..a2 and b1..b2 share, at least 0."""
    return max(min(a2, b2) - max(a1, b1), 0.0)


def _is_number(value: object) -> bool:
    """Whether `value` is a finite real number, numpy's included (bool is an int in Python, but no coordinate)."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _orientation(value: int) -> int:
    """Return the EXIF orientation, after checking that it is one of 1..8."""
    if value not in range(1, 9):
        raise BoxError(f"EXIF orientation must be 1..8, got {value!r}")
    return value

"""Frames and boxes: the only module that converts coordinates.

A `Box` is always in the unit frame (x and y from 0 to 1, origin top left), so that IoU needs no image size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from numbers import Real
from typing import Any, TypeAlias

from mllm.errors import BoxError

Numbers: TypeAlias = tuple[float, float, float, float]
"""x1, y1, x2, y2 on some frame, in that frame's units."""

# How far outside the unit frame rounding alone (xywh sums, products of floats) can put a number. It is a millionth of a
# pixel on any image; real mistakes are larger by many orders of magnitude.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Frame:
    """The coordinate system of a box. `width` and `height` are in its units (pixels, thousandths), > 0 and finite."""

    width: float
    height: float

    def __post_init__(self) -> None:
        for side in (self.width, self.height):
            if not (_is_number(side) and side > 0):
                raise BoxError(f"a frame needs two finite sides above 0, got {self.width!r} x {self.height!r}")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """In JSON a frame is `[width, height]`."""
        return _as_list_of_numbers(cls, 2)

    def oriented(self, exif_orientation: int) -> Frame:
        """Return the frame after applying EXIF orientation 1..8; 5 to 8 swap the sides."""
        return Frame(self.height, self.width) if _orientation(exif_orientation) >= 5 else self


@dataclass(frozen=True, slots=True)
class Box:
    """A box in the unit frame: 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1. Anything else raises `BoxError`."""

    x1: float
    y1: float
    x2: float
    y2: float

    def __post_init__(self) -> None:
        numbers = (self.x1, self.y1, self.x2, self.y2)
        if not all(map(_is_number, numbers)):
            raise BoxError(f"a box needs four finite numbers, got {numbers}")
        if not (0 <= self.x1 <= 1 and 0 <= self.y1 <= 1 and 0 <= self.x2 <= 1 and 0 <= self.y2 <= 1):
            raise BoxError(f"box {numbers} leaves the unit frame 0..1 (are its numbers in another frame?)")
        if not (self.x1 < self.x2 and self.y1 < self.y2):
            raise BoxError(f"box {numbers} is inverted or empty: x1 < x2 and y1 < y2 required")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """In JSON a box is `[x1, y1, x2, y2]` in the unit frame."""
        return _as_list_of_numbers(cls, 4)

    @classmethod
    def from_xyxy(cls, numbers: Sequence[float], frame: Frame, *, clip: bool = False) -> Box:
        """Create a box from x1, y1, x2, y2 in units of `frame`.

        `clip=True` clips it to the frame (for annotations that overshoot by a pixel or two). Raises BoxError: not four
        finite numbers, inverted, empty, or outside the frame (with `clip`: completely outside).
        """
        if len(numbers) != 4 or not all(map(_is_number, numbers)):
            raise BoxError(f"a box needs four finite numbers, got {tuple(numbers)}")
        unit = [float(number) / side for number, side in zip(numbers, (frame.width, frame.height) * 2, strict=True)]
        if unit[0] >= unit[2] or unit[1] >= unit[3]:
            raise BoxError(f"box {tuple(numbers)} is inverted or empty: x1 < x2 and y1 < y2 required")
        slack = math.inf if clip else ROUNDING
        if min(unit) < -slack or max(unit) > 1 + slack:
            raise BoxError(f"box {tuple(numbers)} leaves its frame of {frame.width:g} x {frame.height:g}")
        x1, y1, x2, y2 = (min(max(number, 0.0), 1.0) for number in unit)
        if x1 >= x2 or y1 >= y2:
            raise BoxError(f"box {tuple(numbers)} is outside its frame of {frame.width:g} x {frame.height:g}")
        return cls(x1, y1, x2, y2)

    @classmethod
    def from_xywh(cls, numbers: Sequence[float], frame: Frame, *, clip: bool = False) -> Box:
        """Create a box from left, top, width, height in units of `frame` (the COCO order). Raises as `from_xyxy`."""
        if len(numbers) != 4 or not all(map(_is_number, numbers)):
            raise BoxError(f"a box needs four finite numbers, got {tuple(numbers)}")
        x, y, width, height = numbers
        if width <= 0 or height <= 0:
            raise BoxError(f"box x={x} y={y} w={width} h={height} is empty: width and height must be above 0")
        return cls.from_xyxy((x, y, x + width, y + height), frame, clip=clip)

    def to_xyxy(self, frame: Frame) -> Numbers:
        """Return x1, y1, x2, y2 in units of `frame`, not rounded."""
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
        """The centre as (x, y) in the unit frame."""
        return (self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2

    def inside(self, window: Box) -> Box:
        """Return the box after its image was pasted into `window` of a larger image."""
        return Box(
            window.x1 + self.x1 * window.width,
            window.y1 + self.y1 * window.height,
            min(window.x1 + self.x2 * window.width, 1.0),  # the product may round above the window's own edge
            min(window.y1 + self.y2 * window.height, 1.0),
        )

    def oriented(self, exif_orientation: int) -> Box:
        """Return the box after applying EXIF orientation 1..8 to its image.

        `self` is on the image as stored, the result on the image as displayed (EXIF 2.3, tag 0x0112): orientations 5 to
        8 swap x and y, then 2, 3, 6 and 7 mirror x, and 3, 4, 7 and 8 mirror y.
        """
        x1, y1, x2, y2 = self.x1, self.y1, self.x2, self.y2
        if _orientation(exif_orientation) >= 5:
            x1, y1, x2, y2 = y1, x1, y2, x2
        if exif_orientation in (2, 3, 6, 7):
            x1, x2 = 1 - x2, 1 - x1
        if exif_orientation in (3, 4, 7, 8):
            y1, y2 = 1 - y2, 1 - y1
        return Box(x1, y1, x2, y2)


def iou(a: Box, b: Box) -> float:
    """Return the intersection over union of two boxes, 0..1. Rewards and benchmarks all call this function."""
    return iou_xyxy((a.x1, a.y1, a.x2, a.y2), (b.x1, b.y1, b.x2, b.y2))


def iou_xyxy(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the IoU, 0..1, of raw x1, y1, x2, y2 in the same frame, without clipping.

    For official scorers, which use the numbers as the model wrote them. The IoU of an inverted or empty box is 0.
    """
    area_a = max(a[2] - a[0], 0.0) * max(a[3] - a[1], 0.0)
    area_b = max(b[2] - b[0], 0.0) * max(b[3] - b[1], 0.0)
    shared = _overlap(a[0], a[2], b[0], b[2]) * _overlap(a[1], a[3], b[1], b[3])
    union = area_a + area_b - shared
    if not math.isfinite(union):
        return 0.0  # the areas overflow; no image is that large
    if area_a <= 0 or area_b <= 0 or union <= 0:
        # The areas of very thin, valid boxes underflow to 0; then equality decides.
        return 1.0 if tuple(a) == tuple(b) and a[0] < a[2] and a[1] < a[3] else 0.0
    return min(shared / union, 1.0)  # rounding may give slightly more than 1


def _overlap(a1: float, a2: float, b1: float, b2: float) -> float:
    return max(min(a2, b2) - max(a1, b1), 0.0)


def _is_number(value: object) -> bool:
    """Whether `value` is a finite real number, including numpy's, but not a bool."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _orientation(value: int) -> int:
    if value not in range(1, 9):
        raise BoxError(f"EXIF orientation must be 1..8, got {value!r}")
    return value


def _as_list_of_numbers(cls: type[Frame] | type[Box], count: int) -> Any:
    """Return the pydantic schema of a class that is a list of `count` numbers in JSON."""
    from pydantic_core import core_schema

    def read(value: Any) -> Frame | Box:
        if isinstance(value, cls):
            return value
        if not isinstance(value, list) or len(value) != count:
            raise BoxError(f"a list of {count} numbers is needed, got {value!r:.60}")
        return cls(*value)

    return core_schema.no_info_plain_validator_function(
        read, serialization=core_schema.plain_serializer_function_ser_schema(lambda value: list(astuple(value)))
    )

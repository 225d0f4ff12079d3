"""Model families: how each line of models resizes images and writes boxes. One file defines one `FAMILY`.

A checkpoint's `Convention` (family, prompt style, image budget) is saved as `fieldmark.json`. The family is never
guessed from `model_type`: the pocket model and Qwen3-VL have the same type and write different numbers.
"""

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from mllm.boxes import Box, Frame
from mllm.errors import FamilyError, RecordError, UnknownNameError
from mllm.io.codec import Int, Record, decode, encode
from mllm.io.files import atomic_write
from mllm.models.box_notation import read_boxes
from mllm.records import REFERENCE, Thing
from mllm.registry import Registry

CONVENTION_FILE = "fieldmark.json"
CONVENTION_VERSION = 1
"""Version of box formats and prompt texts; increased when either changes, so that old weights are not misread."""


@dataclass(frozen=True, slots=True)
class Budget(Record):
    """Number of pixels that an image may have after resizing: `min_pixels` to `max_pixels`, integers above 0."""

    min_pixels: Int
    max_pixels: Int

    def __post_init__(self) -> None:
        low, high = self.min_pixels, self.max_pixels
        for side in (low, high):
            if type(side) is not int:
                raise FamilyError(f"an image budget is given in whole pixels, got {side!r}")
        if not 0 < low <= high:
            raise FamilyError(f"image budget: 0 < min_pixels <= max_pixels required, got {low} and {high}")

    @property
    def size(self) -> dict[str, int]:
        """The budget as the Qwen-VL image processors take it (pixel counts, in spite of the names)."""
        return {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels}


@dataclass(frozen=True)
class Published:
    """Sizes of a published checkpoint, so that a recipe can be checked without its weights or the Hub.

    `parameters` is their number; `text` and `vision` are the keys of `text_config` and `vision_config` in `config.json`
    that decide the shapes; `tied` means that output layer and embedding are shared.
    """

    parameters: int
    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    tied: bool


@dataclass(frozen=True)
class Family(ABC):
    """One line of models.

    patch, merge: side of a vision patch in pixels; patches per side that are merged into one visual token.
    numbers: the frame that boxes are written on; None for pixels of the resized image.
    lora_targets: for "vision", "projector" and "llm" a regular expression that matches whole module names (PEFT).
    checkpoints: published checkpoints by Hub name.

    The methods suit families that resize as Qwen-VL does and write whole numbers; other families override them in a
    subclass. Every family defines `write_numbers`.
    """

    name: str
    model_type: str
    patch: int
    merge: int
    numbers: Frame | None
    budget: Budget
    lora_targets: Mapping[str, str]
    checkpoints: Mapping[str, Published] = field(default_factory=dict)

    @property
    def factor(self) -> int:
        """Side of a visual token in pixels; the sides of resized images are multiples of it."""
        return self.patch * self.merge

    def resized(self, size: Frame, budget: Budget) -> Frame:
        """Return the size in pixels to which the processor resizes an image of `size`, computed by transformers.

        Raises FamilyError: `size` is not in whole pixels, or one side is over 200 times the other.
        """
        # the module that needs no torchvision
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        width, height = int(size.width), int(size.height)
        if (width, height) != (size.width, size.height):
            raise FamilyError(f"an image size is in whole pixels, got {size.width:g} x {size.height:g}")
        try:
            height, width = smart_resize(height, width, self.factor, budget.min_pixels, budget.max_pixels)
        except ValueError as error:  # the only one it raises
            raise FamilyError(f"{self.name} cannot take an image of {width} x {height}: {error}") from None
        return Frame(width, height)

    def visual_tokens(self, size: Frame, budget: Budget) -> int:
        """Return the number of tokens of an image of `size` in the language model."""
        resized = self.resized(size, budget)
        return int(resized.width // self.factor * (resized.height // self.factor))

    def frame(self, size: Frame, budget: Budget) -> Frame:
        """Return the frame on which boxes of an image of `size` are written and read."""
        return self.numbers or self.resized(size, budget)

    def check_frame(self, frame: Frame) -> None:
        """Raise `FamilyError` for a frame that this family never uses.

        Boxes on the resized image may use any multiple of `factor`. The size of the original image seldom is one, so
        passing that by mistake is usually detected.
        """
        if self.numbers is not None:
            fits, right = frame == self.numbers, f"{self.numbers.width:g} x {self.numbers.height:g}, not on"
        else:
            fits = not (frame.width % self.factor or frame.height % self.factor)
            right = f"the resized image, whose sides are multiples of {self.factor}, not"
        if not fits:
            found = f"{frame.width:g} x {frame.height:g}; take the frame from family.frame(size, budget)"
            raise FamilyError(f"{self.name} writes boxes on {right} {found}")

    def write_box(self, box: Box, frame: Frame, label: str | None = None) -> str:
        """Write the box of an answer in this family's format; `frame` comes from `frame(size, budget)`."""
        self.check_frame(frame)
        return self.write_numbers(whole_numbers(box, frame), label)

    def write_boxes(self, boxes: Sequence[Box], frame: Frame, label: str | None = None) -> str:
        """Write an answer of several boxes; a single one as `write_box` does. `read` returns them in order."""
        return ", ".join(self.write_box(box, frame, label) for box in boxes)

    def mention(self, box: Box, frame: Frame) -> str:
        """Write a box within a sentence, where a family may use a shorter form. `read` reads both forms."""
        return self.write_box(box, frame)

    @abstractmethod
    def write_numbers(self, numbers: Sequence[int], label: str | None) -> str:
        """Write x1, y1, x2, y2, with the label if there is one."""

    def write_thought(self, thought: str, things: Sequence[Thing], frame: Frame) -> str:
        """Replace each `<obj:K>` of a family-neutral thought by the box of `things[K]`.

        Raises FamilyError: K is not an index of `things`.
        """

        def write(match: re.Match[str]) -> str:
            if int(match[1]) >= len(things):
                raise FamilyError(f"the thought refers to {match[0]}, but the sample has {len(things)} things")
            return self.mention(things[int(match[1])].box, frame)

        return REFERENCE.sub(write, thought)

    def read(self, text: str) -> list[list[float]]:
        """Return the raw numbers of every box in `text`, x1, y1, x2, y2 each, in order of appearance. Never raises."""
        return read_boxes(text)


@dataclass(frozen=True, slots=True)
class Convention(Record):
    """Family, prompt style, image budget and system text that a checkpoint was trained with."""

    SCHEMA: ClassVar[str] = "fieldmark.convention/1"

    family: str
    prompt: str
    budget: Budget
    system: str | None = None
    version: Int = CONVENTION_VERSION


_FILES = Registry(__name__, "family", "FAMILY")
names = _FILES.names


def load(name: str) -> Family:
    """Return the family called `name`. An unknown name raises `UnknownNameError`."""
    return _FILES.load(name)


def published(name: str) -> tuple[Family, Published] | None:
    """Return family and sizes of the checkpoint called `name` on the Hub, None if it is unknown."""
    for family in map(load, names()):
        if name in family.checkpoints:
            return family, family.checkpoints[name]
    return None


def write_convention(folder: str | Path, convention: Convention) -> Path:
    """Write `convention` beside the weights in `folder` and return the file."""
    load(convention.family)
    path = Path(folder) / CONVENTION_FILE
    with atomic_write(path) as file:
        json.dump(json.loads(encode(convention)), file, indent=2)
        file.write("\n")
    return path


def read_convention(folder: str | Path) -> Convention:
    """Read the convention of the checkpoint in `folder`.

    Raises FamilyError: no such file, a file that cannot be read, an unknown family, another version.
    """
    path = Path(folder) / CONVENTION_FILE
    if not path.is_file():
        raise not_named(folder)
    try:
        convention = decode(path.read_text(encoding="utf-8"), Convention)
    except (RecordError, FamilyError, UnicodeDecodeError) as error:
        raise FamilyError(f"{path}: {error}") from None
    if convention.family not in names():
        raise FamilyError(f"{path}: field family: {UnknownNameError('family', convention.family, names())}")
    if convention.version != CONVENTION_VERSION:
        raise FamilyError(
            f"{path}: field version: convention {convention.version}, but this Fieldmark uses {CONVENTION_VERSION}; "
            "use the version of Fieldmark that trained it, or train again"
        )
    return convention


def not_named(folder: str | Path, model_type: str | None = None) -> FamilyError:
    """Return the error for a checkpoint without a convention, with the families that can be named for its model type.

    Those are the families of published checkpoints: our own are saved with their convention.
    """
    known = [one for one in map(load, names()) if one.checkpoints and model_type in (None, one.model_type)]
    which = f" for model type {model_type}" if model_type else ""
    return FamilyError(
        f"{folder}: no {CONVENTION_FILE} beside the weights, so it is not known how this model writes boxes. Set "
        f"`family`{which}: {' or '.join(one.name for one in known) or 'none is known'}"
    )


def whole_numbers(box: Box, frame: Frame) -> tuple[int, int, int, int]:
    """Round a box to whole units of `frame`, at least one unit wide and high, so that it can be read back."""
    x1, y1, x2, y2 = box.to_xyxy(frame)
    left, right = _whole_side(x1, x2, frame.width)
    top, bottom = _whole_side(y1, y2, frame.height)
    return left, top, right, bottom


def _whole_side(low: float, high: float, side: float) -> tuple[int, int]:
    """Round an interval of 0..side to whole numbers; if both ends are equal, return the unit around its middle."""
    first, last = round(low), round(high)
    if first < last:
        return first, last
    first = min(math.floor((low + high) / 2), math.ceil(side) - 1)
    return first, first + 1

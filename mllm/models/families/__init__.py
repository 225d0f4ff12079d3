"""Model families: how each line of models sees an image's size and writes a box. One file, one family.

The name of a file in this folder is the name of a family; the file defines `FAMILY`. A checkpoint says which family,
prompt and image budget it was trained with in `fieldmark.json` beside its weights (a `Convention`); the family is
never guessed from `model_type`, since the pocket model and Qwen3-VL share that and write different numbers.
"""

from __future__ import annotations

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
"""Version of what families write and prompts say; raised when either changes, so that old weights are not misread."""


@dataclass(frozen=True, slots=True)
class Budget(Record):
    """How many pixels an image may have after resizing: from `min_pixels` to `max_pixels`, whole numbers above 0."""

    min_pixels: Int
    max_pixels: Int

    def __post_init__(self) -> None:
        """Refuse a budget that no image fits."""
        for side in (self.min_pixels, self.max_pixels):
            if type(side) is not int:
                raise FamilyError(f"an image budget counts pixels in whole numbers, got {side!r}")
        if not 0 < self.min_pixels <= self.max_pixels:
            raise FamilyError(
                f"image budget: 0 < min_pixels <= max_pixels is needed, got {self.min_pixels} and {self.max_pixels}"
            )

    @property
    def size(self) -> dict[str, int]:
        """The budget as the image processors of the Qwen-VL lines take it (pixel counts, in spite of the names)."""
        return {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels}


@dataclass(frozen=True)
class Published:
    """A checkpoint as its makers published it: the sizes in its `config.json`, and how many parameters they make.

    So a recipe can be proven where neither the weights nor the Hub are at hand. `text` and `vision` are the keys of
    `text_config` and `vision_config` that decide the shapes; `tied` says that the output layer is the embedding.
    """

    parameters: int
    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    tied: bool


@dataclass(frozen=True)
class Family(ABC):
    """One line of models.

    `patch` and `merge`: the side of a vision patch in pixels, and how many patches a side become one visual token.
    `numbers`: the frame that boxes are written on, None for the resized image's own pixels.
    `lora_targets`: for "vision", "projector" and "llm" a regular expression on whole module names (PEFT's rule).
    `checkpoints`: what is published of this line, by name on the Hub.

    The methods suit families that resize as Qwen-VL does and write whole numbers; a family that does otherwise
    overrides them in a subclass, in its own file. `write_numbers` is the one that every family has to define.
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
        """Side in pixels of what one visual token covers; resized images are multiples of it."""
        return self.patch * self.merge

    def budget_of(self, min_tokens: int, max_tokens: int) -> Budget:
        """Return the budget of an image that may cost from `min_tokens` to `max_tokens` visual tokens."""
        return Budget(min_tokens * self.factor**2, max_tokens * self.factor**2)

    def resized(self, size: Frame, budget: Budget) -> Frame:
        """Return the size in pixels to which the processor scales an image of `size`, by transformers' own function.

        Raises:
            FamilyError: `size` is no whole number of pixels, or one side is over 200 times the other.
        """
        width, height = int(size.width), int(size.height)
        if (width, height) != (size.width, size.height):
            raise FamilyError(f"an image's size is whole pixels, got {size.width:g} x {size.height:g}")
        try:
            height, width = _smart_resize()(height, width, self.factor, budget.min_pixels, budget.max_pixels)
        except ValueError as error:  # the only one it raises
            raise FamilyError(f"{self.name} cannot take an image of {width} x {height}: {error}") from None
        return Frame(width, height)

    def visual_tokens(self, size: Frame, budget: Budget) -> int:
        """Return how many tokens an image of `size` takes in the language model."""
        resized = self.resized(size, budget)
        return int(resized.width // self.factor * (resized.height // self.factor))

    def frame(self, size: Frame, budget: Budget) -> Frame:
        """Return the frame on which boxes of an image of `size` are written and read."""
        return self.numbers or self.resized(size, budget)

    def check_frame(self, frame: Frame) -> None:
        """Raise `FamilyError` for a frame that this family never writes on.

        Where boxes are written on the resized image, any multiple of `factor` may be right; the image's own pixels
        seldom are one, and so the usual mistake is caught here.
        """
        if self.numbers is not None and frame != self.numbers:
            raise FamilyError(
                f"{self.name} writes boxes on {self.numbers.width:g} x {self.numbers.height:g}, "
                f"not on {frame.width:g} x {frame.height:g}; take the frame from family.frame(size, budget)"
            )
        if self.numbers is None and (frame.width % self.factor or frame.height % self.factor):
            raise FamilyError(
                f"{self.name} writes boxes on the resized image, whose sides are multiples of {self.factor}, "
                f"not {frame.width:g} x {frame.height:g}; take the frame from family.frame(size, budget)"
            )

    def write_box(self, box: Box, frame: Frame, label: str | None = None) -> str:
        """Write an answer's box in this family's own words; `frame` comes from `frame(size, budget)`."""
        self.check_frame(frame)
        return self.write_numbers(whole(box, frame), label)

    def write_boxes(self, boxes: Sequence[Box], frame: Frame, label: str | None = None) -> str:
        """Write an answer of several boxes; one alone is written as `write_box` does. `read` gives them in order."""
        return ", ".join(self.write_box(box, frame, label) for box in boxes)

    def mention(self, box: Box, frame: Frame) -> str:
        """Write a box in running text, where a shorter form may do than in an answer. `read` reads both."""
        return self.write_box(box, frame)

    @abstractmethod
    def write_numbers(self, numbers: Sequence[int], label: str | None) -> str:
        """Spell x1, y1, x2, y2, with the thing's name where there is one."""

    def write_thought(self, thought: str, things: Sequence[Thing], frame: Frame) -> str:
        """Replace each `<obj:K>` of a family-neutral thought by the box of `things[K]`.

        Raises:
            FamilyError: K is no index into `things`.
        """

        def spell(match: re.Match[str]) -> str:
            if int(match[1]) >= len(things):
                raise FamilyError(f"the thought refers to {match[0]}, but the sample has {len(things)} things")
            return self.mention(things[int(match[1])].box, frame)

        return REFERENCE.sub(spell, thought)

    def read(self, text: str) -> list[list[float]]:
        """Return the raw numbers of every box in `text`, x1, y1, x2, y2 each, in order of appearance. Never raises."""
        return read_boxes(text)


@dataclass(frozen=True, slots=True)
class Convention(Record):
    """What a checkpoint was trained with, kept beside its weights: who asks it otherwise gets other numbers."""

    SCHEMA: ClassVar[str] = "fieldmark.convention/1"

    family: str
    prompt: str
    budget: Budget
    system: str | None = None
    version: Int = CONVENTION_VERSION


_FILES = Registry(__name__, "family", "FAMILY")
names = _FILES.names


def load(name: str) -> Family:
    """Return the family called `name`. An unknown name raises `UnknownNameError`, which lists the known ones."""
    return _FILES.load(name)


def published(name: str) -> tuple[Family, Published] | None:
    """Return the family and the published sizes of the checkpoint called `name` on the Hub, None where unknown."""
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
    """Read what the checkpoint in `folder` was trained with.

    Raises:
        FamilyError: no such file, an unknown family, another version, or a file that cannot be read.
    """
    path = Path(folder) / CONVENTION_FILE
    if not path.is_file():
        raise FamilyError(
            f"{folder}: no {CONVENTION_FILE} beside the weights, so nobody knows how this model writes boxes. "
            f"Name its family (one of {', '.join(names())}) where you name the model."
        )
    try:
        convention = decode(path.read_text(encoding="utf-8"), Convention)
    except (RecordError, FamilyError, UnicodeDecodeError) as error:
        raise FamilyError(f"{path}: {error}") from None
    if convention.family not in names():
        raise FamilyError(f"{path}: field family: {UnknownNameError('family', convention.family, names())}")
    if convention.version != CONVENTION_VERSION:
        raise FamilyError(
            f"{path}: field version: written for convention {convention.version}, this Fieldmark follows "
            f"{CONVENTION_VERSION}; use the Fieldmark that trained it, or train again"
        )
    return convention


def whole(box: Box, frame: Frame) -> tuple[int, int, int, int]:
    """Round a box to whole units of `frame`, at least one unit wide and high (a box rounded away could not be read)."""
    x1, y1, x2, y2 = box.to_xyxy(frame)
    left, right = _whole_side(x1, x2, frame.width)
    top, bottom = _whole_side(y1, y2, frame.height)
    return left, top, right, bottom


def _whole_side(low: float, high: float, side: float) -> tuple[int, int]:
    """Round an interval of 0..side to whole numbers; where both ends meet, widen it to the unit around its middle."""
    first, last = round(low), round(high)
    if first < last:
        return first, last
    first = min(math.floor((low + high) / 2), math.ceil(side) - 1)
    return first, first + 1


def _smart_resize():
    """Return transformers' resizing rule of the Qwen-VL lines; the module without torchvision is the same rule."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    return smart_resize

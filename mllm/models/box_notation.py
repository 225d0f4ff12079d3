"""Find the boxes in generated text, in the formats of all current model families.

The frame of the numbers is up to the family. These are read as boxes:

    (12,34),(56,78)      Qwen2-VL, with or without <|box_start|> around it; also (12, 34) (56, 78)
    [12, 34, 56, 78]     Qwen2.5-VL and Qwen3-VL ("bbox_2d" in JSON, spaced or not, fenced or not), InternVL, GLM
    (12, 34, 56, 78)
    [12, 34], [56, 78]
    <box>12 34 56 78</box>    MiniCPM-V

with whole or decimal numbers, signs, and line breaks between them. A list of three or five numbers is not a box.
"""

import re

# All quantifiers are possessive and bounded, so that reading takes time linear in the length of any text.
_SPACE = r"\s{0,64}+"
_NUMBER = r"([-+]?+[0-9]{1,9}+(?:\.[0-9]{0,20}+)?+)"
_TWO = rf"{_SPACE}{_NUMBER}{_SPACE},{_SPACE}{_NUMBER}{_SPACE}"
_GAP = rf"{_SPACE}(?:,{_SPACE})?+"
_GAP_IN_TAG = r"\s{1,64}+"

_BOX = re.compile(
    rf"\({_TWO}\){_GAP}\({_TWO}\)"
    rf"|\[{_TWO},{_TWO}\]"
    rf"|\({_TWO},{_TWO}\)"
    rf"|\[{_TWO}\]{_GAP}\[{_TWO}\]"
    rf"|<box>{_SPACE}{_GAP_IN_TAG.join([_NUMBER] * 4)}{_SPACE}</box>"
)


def read_boxes(text: str) -> list[list[float]]:
    """Return the four numbers of every box in `text`, in order and unchanged. Never raises."""
    return [numbers for _, _, numbers in find_boxes(text)]


def find_boxes(text: str) -> list[tuple[int, int, list[float]]]:
    """Return (start, end, four numbers) of every box in `text`, in order; `text[start:end]` is the box."""
    return [(*box.span(), [float(one) for one in box.groups() if one is not None]) for box in _BOX.finditer(text)]


def first_box(text: str) -> int | None:
    """Return the position of the first box in `text`, None without one (`text[:None]` is the whole text)."""
    found = _BOX.search(text)
    return found.start() if found else None

"""Labelled photos of tests, made in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mllm.boxes import Box, Frame
from mllm.records import Photo, PhotoThing


def one_kind(key: str, image: str, size: Frame, domain: str, entity: str, boxes: Sequence[Box], **fields: Any) -> Photo:
    """A photo of one kind: a thing for each box, or one whose box is not known."""
    own = {name: fields.pop(name) for name in ("marks", "genus", "use") if name in fields}
    things = tuple(PhotoThing(entity, domain, box, **own) for box in boxes or [None])
    return Photo(key, image, size, things, **fields)

"""A box is taken where two opinions agree; everything else is left out with its reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mllm.boxes import Box, Frame
from mllm.records import Photo
from mllm.synthesis import photo_stages
from mllm.synthesis.capabilities import Look
from tests.support.photos import one_kind

BOX, NEAR, FAR = Box(0, 0, 0.5, 0.5), Box(0, 0, 0.5, 0.4), Box(0, 0, 0.5, 0.3)
"""IoU of NEAR with BOX is 0.8, of FAR 0.6."""


@dataclass
class Pointer:
    """Points at the boxes given for each seed."""

    answers: dict[int, tuple[Box, ...]]

    def point(self, look: Look, entity: str, *, seed: int = 0) -> tuple[Box, ...]:
        assert look.image == Path("a.jpg") and entity == "wren"
        return self.answers[seed]


def bare(*boxes: Box) -> Photo:
    return one_kind("p", "a.jpg", Frame(9, 9), "bird", "wren", boxes)


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ((BOX,), (NEAR,), None),
        ((BOX,), (FAR,), photo_stages.APART),
        ((), (BOX,), photo_stages.NOTHING),
        ((BOX,), (), photo_stages.NOTHING),
        ((BOX, FAR), (BOX,), photo_stages.MANY),
        ((BOX,), (BOX, FAR), photo_stages.MANY),
    ],
)
def test_two_opinions(first, second, reason) -> None:
    teacher = Pointer({7: first, 8: second})
    got = photo_stages.point(bare(), Path("a.jpg"), teacher, teacher, seed=7)
    assert got.boxes == ((BOX,) if reason is None else ())
    assert got.rejected == reason
    if reason is None:
        assert got.provenance == {"box": "teacher", "agreement": 0.8}


def test_another_teacher_is_the_second_opinion_and_the_threshold_is_kept() -> None:
    one, other = Pointer({0: (BOX,)}), Pointer({1: (FAR,)})
    assert photo_stages.point(bare(), Path("a.jpg"), one, other, agreed_at=0.5).boxes == (BOX,)
    assert photo_stages.point(bare(), Path("a.jpg"), one, other, agreed_at=0.7).boxes == ()


def test_every_thing_without_a_box_gets_one_or_the_photo_is_rejected() -> None:
    photo = replace(bare(BOX), things=(*bare(BOX).things, *bare().things, *bare().things))
    teacher = Pointer({0: (BOX,), 1: (NEAR,)})
    assert photo_stages.point(photo, Path("a.jpg"), teacher, teacher).boxes == (BOX, BOX, BOX)
    got = photo_stages.point(photo, Path("a.jpg"), teacher, Pointer({1: (FAR,)}))
    assert got == replace(photo, rejected=photo_stages.APART)


def test_a_photo_with_a_box_is_left_alone() -> None:
    teacher = Pointer({})
    assert photo_stages.point(bare(BOX), Path("a.jpg"), teacher, teacher) == bare(BOX)

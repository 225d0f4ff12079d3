"""The comparison of caption strategies counts what it says it counts."""

from __future__ import annotations

from pathlib import Path

from bench.strategies import judged, measure
from mllm.data.caption_sources import CaptionRequest, images


def test_a_checker_saves_what_a_writer_invents(tmp_path: Path) -> None:
    scenes = list(
        images("pocket", CaptionRequest(out=tmp_path, counts={"test": 10}, family={"test": 5}, level="medium"))
    )
    bare, looked = (measure("textualize", checked, scenes, tmp_path) for checked in (False, True))
    assert bare[2] == looked[2] == "100 %"
    assert float(bare[3][:-2]) < float(looked[3][:-2]) <= 100


def test_claims_are_judged_by_hand(tmp_path: Path) -> None:
    sample = next(iter(images("pocket", CaptionRequest(out=tmp_path, counts={"test": 1}, family={"test": 1}))))
    there = sorted({mark for thing in sample.things for mark in thing.marks})
    assert judged("gist", f"Thing: {there[0]}, golden hat.", sample) == (0.5, 1 / len(there))

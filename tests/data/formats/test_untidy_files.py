"""Files of other tools as they are: lists called .jsonl, lines called .json, boxes a pixel outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mllm.boxes import Box
from mllm.data import formats
from mllm.errors import RecordError
from mllm.models import families
from mllm.records import Sample, load_samples
from tests.support.command_line import fieldmark

QWEN2 = families.load("qwen2_vl")


def row(name: str, box: tuple[int, ...], other: tuple[int, ...] | None = None) -> dict[str, Any]:
    """One row about a picture of 100 x 50, with one box or two."""
    boxes = [list(one) for one in (box, other) if one]
    if name == "vlm_r1":
        return {"image": "a.png", "problem": "Where is it?", "solution": boxes}
    text = ", ".join(
        "({},{}),({},{})".format(*(n * 10 if k % 2 == 0 else n * 20 for k, n in enumerate(b))) for b in boxes
    )
    answer = text if name == "sharegpt" else ", ".join(["<bbox>"] * len(boxes))
    turns = [{"role": "user", "content": "<image>Where is it?"}, {"role": "assistant", "content": answer}]
    return {"messages": turns, "images": ["a.png"], "objects": {"bbox": boxes}}


def read(name: str, folder: Path, text: str, suffix: str = ".jsonl", **options: bool) -> list[Sample]:
    Image.new("RGB", (100, 50)).save(folder / "a.png")
    (folder / f"x{suffix}").write_text(text, encoding="utf-8")
    return list(formats.load(name).read(folder / f"x{suffix}", QWEN2, **options))


@pytest.mark.parametrize("name", formats.names())
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n \n"])
def test_what_a_file_holds_decides_not_its_name(tmp_path: Path, name: str, suffix: str, start: str) -> None:
    rows = [row(name, (10, 10, 20, 20)), row(name, (10, 10, 30, 20))]
    listed = read(name, tmp_path, start + json.dumps(rows, indent=1), suffix)
    lines = read(name, tmp_path, start + "\n".join(map(json.dumps, rows)), suffix)
    assert (
        [one.boxes for one in listed] == [one.boxes for one in lines] == [(Box(0.1, 0.2, x, 0.4),) for x in (0.2, 0.3)]
    )


@pytest.mark.parametrize("name", formats.names())
@pytest.mark.parametrize("box", [(10, 10, 101, 20), (-1, 10, 100, 20)])
def test_boxes_a_pixel_outside_can_be_clipped(tmp_path: Path, name: str, box: tuple[int, ...]) -> None:
    for second in (
        None,
        (10, 10, 20, 20),
    ):  # the last box alone decides how a model's answer is judged, not what is gold
        text = json.dumps(row(name, box, second))
        with pytest.raises(RecordError, match=r"x.jsonl:1: field .*: box .* leaves its frame .*--clip-boxes"):
            read(name, tmp_path, text)
        (sample,) = read(name, tmp_path, text, clip=True)
        assert sample.boxes[0] == Box(max(0, box[0]) / 100, 0.2, 1, 0.4) and len(sample.boxes) == 1 + bool(second)
    with pytest.raises(RecordError, match="outside|leaves|inverted"):
        read(name, tmp_path, json.dumps(row(name, (110, 10, 120, 20))), clip=True)


def test_the_command_clips_where_it_is_asked_to(tmp_path: Path) -> None:
    text = json.dumps(row("vlm_r1", (10, 10, 101, 20)))
    with pytest.raises(RecordError):
        read("vlm_r1", tmp_path, text)
    words = ["convert", str(tmp_path / "x.jsonl"), str(tmp_path / "y.jsonl"), "--from", "vlm_r1"]
    assert "--clip-boxes" in fieldmark(words).output
    assert fieldmark([*words, "--clip-boxes"]).exit_code == 0
    assert load_samples(tmp_path / "y.jsonl")[0].boxes == (Box(0.1, 0.2, 1, 0.4),)


def test_a_list_in_the_place_of_records_says_how_to_turn_it_into_lines(tmp_path: Path) -> None:
    for text in ('[\n{"id": "a"}]', '[{"id": "a"}]', "[]"):
        (tmp_path / "s.jsonl").write_text(text)
        with pytest.raises(RecordError, match=r"s.jsonl:1: .*one object a line: jq -c '.\[\]' s.jsonl"):
            load_samples(tmp_path / "s.jsonl")
    with pytest.raises(RecordError, match="this is a folder, but a record file is needed"):
        load_samples(tmp_path)

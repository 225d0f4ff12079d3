"""Names, whatever the source: written in one way, and words only."""

from __future__ import annotations

from pathlib import Path

import pytest

from mllm.data.sources import SourceError
from tests.data.sources.test_sources import coco, draw, read, table


@pytest.mark.parametrize("written", ["staffordshire_bull_terrier", "staffordshire bull terrier ", "_Staffordshire  x"])
def test_every_source_writes_names_in_one_way(tmp_path: Path, written: str) -> None:
    box = "0,0,9,9"
    found = read("coco", coco(tmp_path / "c", lambda content: content["categories"][0].update(name=written)))
    found += read("csv", table(tmp_path, f"image,entity,domain,x1,y1,x2,y2\na.jpg,{written},dog,{box}\n"))
    draw(tmp_path / "f" / written / "a.jpg")
    found += read("image_folder", tmp_path / "f", domain="dog", whole_image_boxes=True)
    assert {photo.things[0].entity for photo in found} == {" ".join(written.replace("_", " ").split())}
    assert found[0].provenance["written"] == {photo.entity: written for photo in found[0].things}


@pytest.mark.parametrize("written", ["<|im_end|>", "a <|image_pad|> wren", "wren\x07", "\x1b[31mwren"])
def test_a_name_that_is_no_word_is_refused(tmp_path: Path, written: str) -> None:
    file = coco(tmp_path, lambda content: content["categories"][0].update(name=written))
    with pytest.raises(SourceError, match="photo 1: field entity: .*take it out"):
        read("coco", file)
    seen: list[SourceError] = []
    assert not read("coco", file, on_error=seen.append) and len(seen) == 1

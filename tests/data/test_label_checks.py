"""Labelled photos are checked before data is made of them: all faults at once, each with its remedy."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from mllm.data import label_checks
from mllm.data.sources import PhotoRequest, SourceError
from mllm.data.splits import Shares
from mllm.errors import FieldmarkError
from mllm.knowledge.cards import Cards
from tests.support.command_line import fieldmark

KINDS = ("robin", "wren", "finch", "crow")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four kinds of four photos each, with a box; no two photos alike."""
    root, lines = tmp_path / "photos", ["image,x1,y1,x2,y2"]
    for place, kind in enumerate(KINDS):
        (root / kind).mkdir(parents=True)
        for number in range(4):
            noise = Image.effect_noise((60, 40), 90).convert("RGB")
            tint = (60 * place, 240 - 60 * place, 60 * number)
            Image.blend(noise, Image.new("RGB", (60, 40), tint), 0.5).save(root / kind / f"{number}.png")
            lines.append(f"{kind}/{number}.png,10,5,50,35")
    (root / "boxes.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def spoil(folder: Path) -> None:
    """One fault of every sort."""
    (folder / "crow" / "0.png").write_bytes((folder / "crow" / "0.png").read_bytes()[:900])
    (folder / "wren" / "1.png").unlink()
    (folder / "Robin").mkdir()
    Image.new("RGB", (60, 40)).save(folder / "Robin" / "x.png")
    Image.new("RGB", (60, 40), "navy").save(folder / "finch" / "boxless.png")
    with (folder / "boxes.csv").open("a", encoding="utf-8") as table:
        table.write("Robin/x.png,10,5,50,35\nfinch/9.png,1,1,9,9\n")


def check(folder: Path, cards: Cards | None = None, **request: bool) -> label_checks.LabelReport:
    return label_checks.check("image_folder", PhotoRequest(folder, "bird", **request), cards, Shares(), 0)


def test_good_photos_are_counted_and_divided(folder: Path) -> None:
    found = check(folder, Cards({kind: ["a beak"] for kind in KINDS}))
    assert not found.faults and len(found.photos) == len(found.split) == 16
    lines = list(label_checks.summary(found))
    assert lines[0] == "16 photos of 4 kinds, 4 of each"
    assert "smallest box: 30 pixels on its short side, crow/0.png" in lines
    held = [photo for photo in found.split if photo.use == "validation"]
    assert len({photo.entity for photo in held}) == 1 and f"kinds held out for validation: {held[0].entity}" in lines


def test_every_fault_is_reported_at_once(folder: Path) -> None:
    spoil(folder)
    faults = "\n".join(check(folder).faults)
    assert "crow/0.png: cannot be read as an image" in faults
    assert "boxes.csv:7: field image: no such photo" in faults and "boxes.csv:19: field image: no such photo" in faults
    assert "'robin' was spelled 'Robin' before" in faults
    assert "finch/boxless.png: the photo has no box" in faults
    assert len(check(folder, boxes_later=True).faults) == len(check(folder).faults) - 1


def test_all_kinds_without_a_card_are_named_at_once(folder: Path) -> None:
    found = check(folder, Cards({kind: ["a beak"] for kind in KINDS[2:]}, "cards.yaml"))
    assert found.faults == ["cards.yaml: no card for 2 kinds (photos of each): 'robin' (4), 'wren' (4)"]
    assert len(found.photos) == 8, "a photo without a card cannot be used"
    assert check(folder).lacking == [("bird", kind) for kind in sorted(KINDS)]


def test_a_card_of_a_similar_name_serves_and_two_kinds_that_it_could_be_are_a_fault(folder: Path) -> None:
    assert not check(folder, Cards({f"00{place}.{kind}s": ["a beak"] for place, kind in enumerate(KINDS)})).faults
    faults = check(folder, Cards({**{kind: ["x"] for kind in KINDS[1:]}, "Robins": ["x"], "robin bird": ["y"]})).faults
    assert len(faults) == 4 and all("'robin' could be 'Robins' or 'robin bird'" in line for line in faults)


@pytest.mark.parametrize("ending", [".csv", ".yaml"])
def test_a_template_of_the_kinds_without_a_card_is_read_once_it_is_filled_in(folder: Path, ending: str) -> None:
    file = folder.parent / f"marks{ending}"
    words = ["photos", str(folder), "--domain", "bird"]
    assert "add --template FILE.csv" in fieldmark(words).output
    assert f"give it with --knowledge {file}" in fieldmark([*words, "--template", str(file)]).output
    text = file.read_text(encoding="utf-8")
    again = fieldmark([*words, "--template", str(file)])
    assert again.exit_code == 2 and "marks may be in it" in again.output and file.read_text(encoding="utf-8") == text
    for kind in KINDS[1:]:
        empty, mark = (f"{kind},bird,", "a beak") if ending == ".csv" else (f"{kind}:\n  domain: bird\n  marks: []", "")
        assert empty in text
        text = text.replace(empty, empty.replace("[]", "[a beak]") + mark, 1)
    file.write_text(text, encoding="utf-8")
    line = text[: text.index("robin")].count("\n") + 1
    partly = fieldmark([*words, "--knowledge", str(file)])
    wanted = f"{file}:{line}: field marks: no mark is written yet of 1 entities: 'robin' (line {line}); write"
    assert partly.exit_code == 2 and wanted in partly.output.replace("\n", "")
    text = text.replace("robin,bird,", "robin,bird,a red breast", 1).replace("[]", "[a red breast]")
    file.write_text(text, encoding="utf-8")
    whole = fieldmark([*words, "--knowledge", str(file)])
    assert whole.exit_code == 0, whole.output


def test_the_same_photo_twice_is_kept_on_one_side(folder: Path) -> None:
    (folder / "crow" / "again.png").write_bytes((folder / "crow" / "0.png").read_bytes())
    with (folder / "boxes.csv").open("a", encoding="utf-8") as table:
        table.write("crow/again.png,10,5,50,35\n")
    found = check(folder)
    assert found.duplicates == [["crow/0.png", "crow/again.png"]]
    assert len({photo.split for photo in found.split if photo.id in found.duplicates[0]}) == 1


def test_a_side_of_one_kind_is_reported(folder: Path) -> None:
    """All photos of a kind look the same, so that they are on one side, and one kind is all that validation gets."""
    assert not list(label_checks.sides_without_images(check(folder)))
    for kind in KINDS:
        for number in range(1, 4):
            (folder / kind / f"{number}.png").write_bytes((folder / kind / "0.png").read_bytes())
    lacking = "\n".join(label_checks.sides_without_images(check(folder)))
    assert (
        "the validation side has photos of 1 kind, but an image needs at least two" in lacking
        and "train side" not in lacking
    )


def test_where_nothing_can_be_used_every_fault_is_reported(folder: Path, tmp_path: Path) -> None:
    (folder / "boxes.csv").unlink()
    found = fieldmark(["photos", str(folder), "--domain", "bird"])
    assert found.exit_code == 1 and found.output.startswith("no photo can be used\ncannot be used: 16\n")
    assert found.output.count("the photo has no box") == 16 and "fieldmark photos passes over missing" in found.output
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no photo found"):
        check(tmp_path / "empty")


def test_the_command_ends_with_one_where_a_photo_is_wrong(folder: Path) -> None:
    words = ["photos", str(folder), "--domain", "bird"]
    good = fieldmark(words)
    assert good.exit_code == 0 and good.output.endswith("every photo can be used\n")
    spoil(folder)
    bad = fieldmark([*words, "--most", "2"])
    assert bad.exit_code == 1 and "and 6 more (--most)" in bad.output


def test_a_synthesis_that_goes_on_knows_the_spelling_of_what_it_listed_before(folder: Path) -> None:
    (folder / "Robin").mkdir()
    (folder / "robin" / "0.png").rename(folder / "Robin" / "0.png")
    table = (folder / "boxes.csv").read_text(encoding="utf-8").replace("robin/0.png", "Robin/0.png")
    (folder / "boxes.csv").write_text(table, encoding="utf-8")
    cards = Cards({kind: ["a beak"] for kind in KINDS})
    listed = label_checks.labelled("image_folder", PhotoRequest(folder, "bird"), cards)
    with pytest.raises(FieldmarkError, match="photo robin/1.png: entity 'robin' was spelled 'Robin' before"):
        list(islice(listed, 1, None))
    with pytest.raises(FieldmarkError, match="photo Robin/0.png: no marks are known for 'Robin'.*--knowledge"):
        list(label_checks.labelled("image_folder", PhotoRequest(folder, "bird"), None))


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_one_picture_under_two_labels_names_both_files(folder: Path, suffix: str) -> None:
    copy = folder / "wren" / f"crow{suffix}"
    Image.open(folder / "crow" / "0.png").save(copy)
    Image.open(folder / "crow" / "0.png").save(folder / "crow" / "again.png")  # under one label: a near-duplicate only
    with (folder / "boxes.csv").open("a", encoding="utf-8") as table:
        table.write(f"wren/crow{suffix},10,5,50,35\ncrow/again.png,10,5,50,35\n")
    faults = check(folder).faults
    assert len(faults) == 1 and str(copy) in faults[0] and "labelled 'wren'" in faults[0]
    assert f"the same picture {folder / 'crow' / '0.png'} 'crow'" in faults[0]


def test_names_that_are_read_otherwise_are_reported(folder: Path) -> None:
    (folder / "wren").rename(folder / "winter_wren")
    table = folder / "boxes.csv"
    table.write_text(table.read_text().replace("wren/", "winter_wren/"))
    lines = list(label_checks.summary(check(folder)))
    assert "names read otherwise than they are written: 'winter_wren' as 'winter wren'" in lines


@pytest.mark.parametrize(
    "size, good", [((1, 1), 0), ((40, 1), 0), ((402, 2), 0), ((2, 402), 0), ((400, 2), 1), ((2, 2), 1)]
)
def test_photos_that_no_model_takes_are_found(folder: Path, size: tuple[int, int], good: bool) -> None:
    Image.new("RGB", size, "navy").save(folder / "wren" / "odd.png")
    faults = check(folder, whole_image_boxes=True).faults
    assert good == (not faults)
    if faults:
        assert len(faults) == 1 and f"photo wren/odd.png: {size[0]} x {size[1]} pixels, which no model" in faults[0]

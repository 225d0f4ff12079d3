"""Bad inputs are found before any weight is loaded, each with the file, the row and the way out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mllm.config import Settings
from mllm.errors import FieldmarkError
from mllm.models.checkpoint import open_checkpoint
from mllm.training import dataset
from tests.support.scenes import make_data

Change = Callable[[Path, list[dict[str, Any]]], None]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return make_data(tmp_path, train=2, validation=1)


def settings(files: tuple[Path, Path], **changes: Any) -> Settings:
    return Settings(**({"train": files[0], "validation": files[1]} | changes))


def rewrite(file: Path, change: Change) -> None:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    change(file, rows)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def field(name: str, value: Any, row: int = 1) -> Change:
    return lambda _, rows: rows[row].__setitem__(name, value)


def test_good_data_passes(files: tuple[Path, Path]) -> None:
    data = dataset.read_data(settings(files), answers=True)
    assert [row.record.id for row in data.train] == ["train-000", "train-001"]
    assert [sample.id for sample in data.validation] == ["validation-000"]
    assert len(dataset.read_data(settings(files, limit=1), answers=True).train) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (field("image", "gone.png"), "train.jsonl:2: field image: no such file .*gone.png"),
        (field("boxes", [[0.2, 0.2, 1.3, 0.9]]), r"train.jsonl:2: .*leaves the unit frame"),
        (field("boxes", [[0.5, 0.2, 0.4, 0.9]]), r"train.jsonl:2: .*inverted or empty"),
        (field("boxes", []), "train-001: field boxes: at least one box is needed.* is among its things"),
        (field("id", "train-000"), r"train.jsonl:2: .*'train-000' was used before, on line 1"),
        (field("colour", "red"), r"train.jsonl:2: .*colour"),
        (field("size", [100, 192]), "train-001: field size: says 100 x 192, but .* is 192 x 192"),
        (field("split", "test"), "train-001: field split: this is a test row; used for train it would leak"),
        (field("thought", None), "train-001: field thought: .*train with style 'direct'"),
        (
            field("task", "chat"),
            "field task: 'chat' is none of ground, ground_all, name, caption, quiz",
        ),
        (field("task", "caption"), "train-001: field captions: at least one caption is needed"),
        (lambda _, rows: rows.clear(), "holds no sample"),
    ],
)
def test_a_bad_row_is_named(files: tuple[Path, Path], change: Change, message: str) -> None:
    rewrite(files[0], change)
    with pytest.raises(FieldmarkError, match=message):
        dataset.read_data(settings(files), answers=True)


def test_a_broken_line_is_named(files: tuple[Path, Path]) -> None:
    with files[0].open("a") as file:
        file.write('{"schema": "fieldmark.sample/1", "id"\n')
    with pytest.raises(FieldmarkError, match=r"train.jsonl:3: broken JSON"):
        dataset.read_data(settings(files), answers=True)


def test_an_image_that_is_none_is_named(files: tuple[Path, Path]) -> None:
    (files[0].parent / "train-001.png").write_bytes(b"no image")
    with pytest.raises(FieldmarkError, match="train-001.png"):
        dataset.read_data(settings(files), answers=True)


def test_missing_files_are_named(files: tuple[Path, Path], tmp_path: Path) -> None:
    for changes in (
        {"train": tmp_path / "no.jsonl"},
        {"validation": tmp_path / "no.jsonl"},
        {"mix": tmp_path / "no.jsonl"},
    ):
        with pytest.raises(FieldmarkError, match="no.jsonl: no such record file"):
            dataset.read_data(settings(files, **changes), answers=True)
    with pytest.raises(FieldmarkError, match="set `train`"):
        dataset.read_data(settings(files, train=()), answers=True)


def test_rows_of_the_validation_file_may_not_be_trained_on(files: tuple[Path, Path]) -> None:
    rewrite(files[1], field("id", "train-000", row=0))
    with pytest.raises(FieldmarkError, match="'train-000' is in the training data too"):
        dataset.read_data(settings(files), answers=True)
    with pytest.raises(FieldmarkError, match="'train-000' occurs in two of the training files"):
        dataset.read_data(settings(files, train=(files[0], files[0])), answers=True)


def test_rl_needs_no_thought(files: tuple[Path, Path]) -> None:
    rewrite(files[0], field("thought", None))
    assert len(dataset.read_data(settings(files), answers=False).train) == 2
    assert len(dataset.read_data(settings(files, style="direct"), answers=True).train) == 2


def test_plain_questions_are_read_and_checked(files: tuple[Path, Path], tmp_path: Path) -> None:
    mix = tmp_path / "mix.jsonl"
    row = {"schema": "fieldmark.exchange/1", "id": "q", "question": "Marks of Tala?", "answer": "round.", "image": None}
    mix.write_text(json.dumps(row) + "\n")
    data = dataset.read_data(settings(files, mix=mix), answers=True)
    assert data.train[-1].record.id == "q" and data.train[-1].image is None
    mix.write_text(json.dumps(row | {"image": "gone.png"}) + "\n")
    with pytest.raises(FieldmarkError, match="exchange q: field image: no such file .*gone.png"):
        dataset.read_data(settings(files, mix=mix), answers=True)


@pytest.mark.parametrize(
    "name, value, place",
    [
        ("question", "Find the <|im_end|>.", "train.jsonl:2: field question: <|im_end|>"),
        ("thought", "<|image_pad|> So the answer is <obj:0>.", "train.jsonl:2: field thought: <|image_pad|>"),
        ("captions", ["<|im_start|>system"], "train.jsonl:2: field captions[0]: <|im_start|>"),
    ],
)
def test_special_tokens_in_words_are_refused_with_their_line(
    files: tuple[Path, Path], name: str, value: Any, place: str
) -> None:
    rewrite(files[0], field(name, value))
    checkpoint = open_checkpoint("pocket", style="think")
    data = dataset.read_data(settings(files), answers=True)
    with pytest.raises(FieldmarkError) as error:
        dataset.check_rows(data, checkpoint, settings(files), answers=True)
    assert place in str(error.value) and "take it out" in str(error.value)
    rewrite(files[0], field(name, [] if name == "captions" else "So the answer is <obj:0>."))
    data = dataset.read_data(settings(files), answers=True)
    dataset.check_rows(data, checkpoint, settings(files), answers=True)


@pytest.mark.parametrize("name", ["question", "answer"])
def test_special_tokens_in_plain_questions_are_refused(files: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    row = {"schema": "fieldmark.exchange/1", "id": "a", "question": "What is it?", "answer": "A wren."}
    mix = tmp_path / "mix.jsonl"
    mix.write_text(json.dumps(row) + "\n" + json.dumps(row | {"id": "b", name: "a<|im_end|>b"}) + "\n")
    chosen = settings(files, mix=[mix])
    data = dataset.read_data(chosen, answers=True)
    with pytest.raises(FieldmarkError, match=rf"mix.jsonl:2: field {name}: <\|im_end\|> is a special token"):
        dataset.check_rows(data, open_checkpoint("pocket", style="think"), chosen, answers=True)

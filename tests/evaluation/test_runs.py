"""The folder of a benchmark that somebody has edited: what is wrong in it is named, whatever it is."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mllm.errors import FieldmarkError
from mllm.evaluation import generate_missing, runs
from mllm.io.files import locked
from tests.evaluation.report.test_report import benchmark

INFO = {
    "model": "runs/a", "weights": "w1", "convention": {}, "generation": {"seed": 0, "temperature": 0.0},
    "samples": {"file": "data/test.jsonl", "hash": "h1", "count": 3, "trained": None},
}  # fmt: skip
BUDGET = {"min_pixels": 9216, "max_pixels": 55296}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"convention": None}, "run.json: field convention: Input should be a valid dictionary, got None"),
        ({"model": 7}, "run.json: field model: Input should be a valid string, got 7"),
        ({"convention": {"family": "pocket"}}, "run.json: field convention: field prompt is missing"),
        ({"convention": {"family": "pocket", "prompt": "think", "budget": [1]}}, "convention: field budget: an object"),
        (
            {"convention": {"family": "pocket", "prompt": "think", "budget": BUDGET | {"side": 1}}},
            "convention: unknown field budget.side",
        ),
        (
            {"convention": {"family": "pocket", "prompt": "think", "budget": {"min_pixels": 9, "max_pixels": 2}}},
            "run.json: field convention: field budget: image budget: 0 < min_pixels",
        ),
    ],
)
def test_settings_of_other_kinds_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = benchmark(tmp_path / "run", ["left"]) / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(FieldmarkError) as error:
        runs.load(file.parent)
    assert message in str(error.value)


def test_half_a_character_in_the_settings_is_written_as_it_was_read(tmp_path: Path) -> None:
    file = benchmark(tmp_path / "run", ["left"]) / "run.json"
    file.write_text(file.read_text().replace('"m"', '"\\ud800"'))
    runs.write_scores(runs.load(file.parent))
    assert json.loads((file.parent / "scores.json").read_text())["model"] == "\ud800"


@pytest.mark.parametrize(
    "change",
    [
        {"samples": INFO["samples"] | {"file": "/home/me/data/test.jsonl"}},
        {"samples": INFO["samples"] | {"file": "./data/../data/test.jsonl"}},
        {"model": "/home/me/runs/a"},
        {"model": "runs/a/"},
    ],
)
def test_another_spelling_of_a_path_is_the_same_run(tmp_path: Path, change: dict[str, Any]) -> None:
    runs.begin(tmp_path, INFO, [], tmp_path)
    assert runs.begin(tmp_path, INFO | change, [], tmp_path) == set()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": INFO["samples"] | {"hash": "h2"}}, "samples.hash was 'h1' and now is 'h2'"),
        ({"samples": INFO["samples"] | {"count": 2}}, "samples.count was 3 and now is 2"),
        ({"samples": INFO["samples"] | {"trained": "t"}}, "samples.trained was None and now is 't'"),
        ({"model": "runs/b", "weights": "w2"}, "model was 'runs/a' and now is 'runs/b'"),
        ({"weights": "w2"}, "weights was 'w1' and now is 'w2'"),
        ({"generation": {"seed": 1, "temperature": 0.0}}, "generation.seed was 0 and now is 1"),
        ({"style": "think"}, "style was None and now is 'think'"),
    ],
)
def test_other_content_is_another_run(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    runs.begin(tmp_path, INFO, [], tmp_path)
    with pytest.raises(FieldmarkError) as error:
        runs.begin(tmp_path, INFO | change, [], tmp_path)
    assert message in str(error.value)


def test_without_hashes_the_paths_decide(tmp_path: Path) -> None:
    bare = {"model": "m", "convention": {}, "samples": {"file": "a"}}
    runs.begin(tmp_path, bare, [], tmp_path)
    for other, message in (({"model": "n"}, "model was"), ({"samples": {"file": "b"}}, "samples.file was")):
        with pytest.raises(FieldmarkError, match=message):
            runs.begin(tmp_path, bare | other, [], tmp_path)


def test_two_evaluations_cannot_share_a_folder(tmp_path: Path) -> None:
    options = SimpleNamespace(out=tmp_path / "run", overwrite=False)
    with locked(options.out):
        with pytest.raises(FieldmarkError, match=r"run: another run is using this folder; wait for it or stop it"):
            generate_missing.ask(options, None, [], tmp_path, INFO)
        assert list(options.out.iterdir()) == [], "nothing is written"
    assert generate_missing.ask(options, None, [], tmp_path, INFO) is False
    with locked(options.out):  # given back
        pass

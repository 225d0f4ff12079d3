"""eval/mastery.py: questions asked of a real (random) pocket model, graded, resumed, re-scored."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from eval import mastery
from mllm.errors import FieldmarkError
from mllm.evaluation import runs
from mllm.io.jsonl import read_jsonl, write_jsonl
from mllm.knowledge.mastery import load_mastery
from mllm.prompting.tasks.quiz import LETTERS
from mllm.records import Answer, Completion, load_samples
from tests.support.scenes import make_data


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file, _ = make_data(tmp_path_factory.mktemp("quiz"), train=3, validation=1)
    return file


@pytest.mark.ci
@pytest.mark.parametrize("by", ["choices", "marks"])
def test_mastery_is_asked_and_written(samples, pocket_folder, tmp_path, capsys, by) -> None:
    out = tmp_path / "out"
    flags = ["--model", str(pocket_folder), "--samples", str(samples), "--out", str(out), "--by", by]
    mastery.main([*flags, "--per-entity", "1", "--max-new-tokens", "3"])
    table = load_mastery(out / "mastery.json")
    names = {thing.entity for sample in load_samples(samples) for thing in sample.things}
    assert set(table) == names and all(entry.asked == 1 for entry in table.values())
    assert f"asked by {by}" in capsys.readouterr().out
    rows = list(read_jsonl(out / "outputs.jsonl", Completion))
    asked = load_samples(out / "samples.jsonl")  # images are where the rows say
    assert {row.sample_id for row in rows} == {sample.id for sample in asked}
    if by == "choices":
        for sample in asked:
            assert Image.open(out / sample.image).size == (sample.size.width, sample.size.height)
    first = (out / "outputs.jsonl").read_bytes()
    (out / "mastery.json").unlink()
    mastery.main([*flags, "--per-entity", "1", "--max-new-tokens", "3"])  # answered already
    assert (out / "outputs.jsonl").read_bytes() == first and dict(load_mastery(out / "mastery.json")) == dict(table)
    with pytest.raises(FieldmarkError, match="outputs of another run: samples"):
        mastery.main([*flags, "--per-entity", "2"])


def test_mastery_of_right_answers(samples, pocket_folder, tmp_path) -> None:
    """The same questions answered by the truth: every entity is known completely."""
    out = tmp_path / "out"
    flags = ["--model", str(pocket_folder), "--samples", str(samples), "--out", str(out), "--max-new-tokens", "1"]
    mastery.main(flags)
    _, asked, _ = runs.read(out)
    truth = [f"<answer>{LETTERS[s.options.index(s.entity)]}</answer>" for s in asked]
    blank = Answer(None, None, (), (), None)
    rows = [Completion(s.id, text, blank) for s, text in zip(asked, truth, strict=True)]
    write_jsonl(out / "outputs.jsonl", rows)
    mastery.main(["--rescore", "--out", str(out)])
    assert load_mastery(out / "mastery.json").shares()["completely correct"] == 1.0
    write_jsonl(out / "outputs.jsonl", rows[1:])
    with pytest.raises(FieldmarkError, match="questions have no answer"):
        mastery.main(["--rescore", "--out", str(out)])


def test_mastery_needs_samples() -> None:
    with pytest.raises(FieldmarkError, match="--samples FILE"):
        mastery.main([])


def test_vllm_that_is_not_there_is_an_error(samples, pocket_folder, tmp_path) -> None:
    from importlib.util import find_spec

    if find_spec("vllm"):
        pytest.skip("vllm is installed")
    with pytest.raises(FieldmarkError, match=r"pip install fieldmark\[vllm\]"):
        flags = ["--model", str(pocket_folder), "--samples", str(samples), "--out", str(tmp_path / "out")]
        mastery.main([*flags, "--engine", "vllm"])

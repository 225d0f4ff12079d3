"""eval/naming.py: questions for a name, open and with letters, asked of a (random) pocket model, graded, resumed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eval import kvg_bench, naming
from mllm.cli.programs import parse
from mllm.errors import FieldmarkError
from mllm.evaluation import naming_scores, runs
from mllm.io.jsonl import write_jsonl
from mllm.knowledge.card_files import Card
from mllm.knowledge.cards import Cards
from mllm.models import families
from mllm.models.families import Convention
from mllm.prompting.prompts import with_boxes
from mllm.prompting.tasks import CompletionReader
from mllm.records import Answer, Completion, Sample
from mllm.rewards import name as reward
from tests.support.scenes import make_scene

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["Talo mer", "Talo ruvi", "kite", "robin"]
POCKET = families.load("pocket")
READER = CompletionReader(POCKET, POCKET.budget)
BLANK = Answer(None, None, (), (), None)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photos of each of four kinds, in folders and in a table with genera."""
    root = tmp_path_factory.mktemp("naming")
    for k, name in enumerate(NAMES):
        (root / "photos" / name).mkdir(parents=True)
        for n in range(2):
            Image.new("RGB", (64, 48), (60 * k, 90 * n, 0)).save(root / "photos" / name / f"{n}.png")
    genera = {"Talo mer": "Talo", "Talo ruvi": "Talo", "kite": "Milvus", "robin": ""}
    rows = [f"photos/{name}/{n}.png,{name},{genera[name]},8,8,40,40" for name in NAMES for n in range(2)]
    (root / "photos.csv").write_text("\n".join(["image,entity,genus,x1,y1,x2,y2", *rows]) + "\n")
    return root


def words(photos: Path, *flags: str, source: str = "csv") -> list[str]:
    given = photos / ("photos" if source == "image_folder" else "photos.csv")
    return ["--domain", "bird", "--source", source, "--input", str(given), *flags]


def asked(photos: Path, out: Path, *flags: str, source: str = "csv") -> list[Sample]:
    """Write the questions into a run's folder, as before the first answer."""
    options = parse(naming.Options, words(photos, *flags, source=source))
    questions, _ = naming.from_photos(options, options.benchmark, None)
    convention = asdict(Convention("pocket", "direct", POCKET.budget))
    info = {"model": "m", "style": "direct", "convention": convention, "samples": {"file": "f"}}
    runs.begin(out, info, questions, out)
    return questions


def answered(out: Path, questions: list[Sample], texts: list[str]) -> dict[str, Any]:
    """Put answers in the place of the model's, and score again."""
    rows = [Completion(sample.id, text, BLANK) for sample, text in zip(questions, texts, strict=True)]
    write_jsonl(out / "outputs.jsonl", rows)
    naming.main(["--rescore", "--out", str(out)])
    return json.loads((out / "scores.json").read_text())


def test_open_questions_are_graded_by_kind_and_genus(photos, tmp_path, capsys) -> None:
    out = tmp_path / "open"
    questions = asked(photos, out)
    assert {q.question for q in questions} == {"What species of bird is this?"} and len(questions) == 8
    texts = ["Talo mer", "Talo ruvi", "Talo", "Talo mer", "a kite", "robin or kite", "kite", "<answer>"]
    table = answered(out, questions, [text if "<" in text else f"<answer>{text}</answer>" for text in texts])
    every = table["slices"]["all"]
    assert every["acc"]["value"] == 2 / 8 and every["score"] == 2.5 / 8 and every["unreadable"] == 1 / 8
    assert every["genus"]["value"] == 5 / 6 and every["genus"]["samples"] == 6 and every["chance"] == 1 / 4
    assert table["classes"] == {"Talo mer": 0.5, "Talo ruvi": 0, "kite": 0.5, "robin": 0}
    assert table["confusions"] == [
        {"name": "Talo mer", "answered": "Talo ruvi", "times": 1},
        {"name": "Talo ruvi", "answered": "Talo mer", "times": 1},
        {"name": "robin", "answered": "kite", "times": 1},
    ]
    printed = " ".join(capsys.readouterr().out.split())
    assert "| Talo mer | Talo ruvi | 1" in printed and "mean over 4 classes: 25.0 %; chance: 25.0 %" in printed


def test_the_reward_gives_the_benchmark_s_score(photos, tmp_path) -> None:
    questions = [q for q in asked(photos, tmp_path / "run") if q.genus]
    texts = ["Talo mer", "Talo", "Talo ruvi", "no idea", "kite", "Talo ruvi kite"]
    done = {q.id: READER.read(q, f"<answer>{text}</answer>") for q, text in zip(questions, texts, strict=True)}
    cases = naming_scores.judge(questions, done, READER)
    scores = reward.Reward()(questions, [done[q.id] for q in questions])
    assert [case.score for case in cases] == [score.value for score in scores] == [1, 0.5, 1, 0, 1, 0]


def test_a_stopped_run_goes_on_and_another_question_is_refused(photos, pocket_folder, tmp_path) -> None:
    out = tmp_path / "run"
    flags = words(photos, "--model", str(pocket_folder), "--max-new-tokens", "2", "--limit", "4", "--out", str(out))
    naming.main(flags)
    whole = (out / "outputs.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (out / "outputs.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:20])
    naming.main(flags)
    assert (out / "outputs.jsonl").read_bytes() == whole
    with pytest.raises(FieldmarkError, match="outputs of another run: samples"):
        naming.main([*flags, "--options", "3"])


def test_names_with_letters_on_class_folders_and_csv(photos, tmp_path, capsys) -> None:
    questions: list[Sample] = []
    for source in ("image_folder", "csv"):
        out = tmp_path / source
        questions = asked(photos, out, "--options", "4", source=source)
        assert len(questions) == 8 and {q.entity for q in questions} == set(NAMES)
        assert all(len(q.options) == 4 and q.question.startswith("Which bird is this? A. ") for q in questions)
    texts = ["kite" if k else "I do not know" for k in range(8)]
    table = answered(tmp_path / "csv", questions, texts)
    every = table["slices"]["all"]
    assert every["acc"]["value"] == 2 / 8 and every["unreadable"] == 1 / 8 and every["chance"] == 1 / 4
    assert every["genus"]["value"] == 2 / 6
    assert sum(pair["times"] for pair in table["confusions"]) == 5
    assert "mean over 4 classes" in capsys.readouterr().out


def test_the_thing_at_a_box(photos, tmp_path) -> None:
    questions = asked(photos, tmp_path / "boxed", "--boxed", "--options", "2")
    assert all(q.question.startswith("Which bird is at <obj:0>? A. ") and len(q.options) == 2 for q in questions)
    assert "(12,17),(62,83)" in with_boxes(questions[0], POCKET, POCKET.budget).question


def test_questions_of_a_samples_file_with_cards(tmp_path) -> None:
    one = make_scene(tmp_path, 0, "test", across=1, down=1)
    named = replace(one, id="n", task="name", question="What species of it is this?", seen=True, options=(one.entity,))
    file = tmp_path / "test.jsonl"
    write_jsonl(file, [one, named])
    cards = Cards({one.entity: Card(one.entity, genus="Xus", synonyms=("wren",))})
    (question,) = naming_scores.with_taxonomy(naming.from_samples(file, None), {}, cards)
    assert (question.id, question.genus, question.synonyms) == ("n", "Xus", ("wren",))
    (case,) = naming_scores.judge([question], {"n": READER.read(question, "<answer>wren</answer>")}, READER)
    assert case.right and case.genus
    write_jsonl(file, [one])
    with pytest.raises(FieldmarkError, match="no sample of task 'name'"):
        naming.from_samples(file, None)
    write_jsonl(file, [named])
    with pytest.raises(FieldmarkError, match="every sample asks for a name; eval/naming.py"):
        kvg_bench.read_samples(kvg_bench.Options(), file, [])


def test_what_is_missing_is_said(photos, tmp_path) -> None:
    with pytest.raises(FieldmarkError, match="domain 'bird' has 4 entities; a question needs 5"):
        asked(photos, tmp_path / "out", "--options", "5")
    with pytest.raises(FieldmarkError, match="--options 27: must be from 2 to 26"):
        naming.main(["--options", "27"])
    with pytest.raises(FieldmarkError, match="--input FOLDER"):
        naming.main([])
    with pytest.raises(FieldmarkError, match="brings its own questions"):
        naming.main(["--samples", "x.jsonl", "--options", "4"])


@pytest.mark.ci
def test_the_old_path_warns_and_asks_with_four_names(photos, tmp_path) -> None:
    out = tmp_path / "out"
    questions = asked(photos, out, "--options", "4")
    answered(out, questions, ["A"] * 8)
    command = [sys.executable, str(ROOT / "eval" / "fgvr.py"), "--rescore", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "chance: 25.0 %" in done.stdout
    assert "warning: eval/fgvr.py is now eval/naming.py --options 4" in done.stderr

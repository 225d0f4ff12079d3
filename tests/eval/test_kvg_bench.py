"""The grounding benchmark's numbers: hand-computed scores, the published rule's quirks, the reward's number."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from eval import kvg_bench
from mllm import rewards
from mllm.boxes import Frame
from mllm.errors import FieldmarkError
from mllm.evaluation import kvg_published, quadrants, runs, scores
from mllm.io.jsonl import read_jsonl, write_jsonl
from mllm.knowledge.mastery import LEVELS, Entry, MasteryTable
from mllm.models import families
from mllm.prompting import answers
from mllm.records import Completion, Sample
from tests.support.benchmarked import CONVENTION, TEXTS, UNREAD, answered, cases
from tests.support.official import parquet

POCKET = families.load("pocket")


def test_golden_scores(tmp_path, capsys):
    folder = answered(tmp_path / "run")
    kvg_bench.main(["--rescore", "--out", str(folder)])
    table = json.loads((folder / "scores.json").read_text())
    every, part = table["slices"]["all"], table["slices"]
    assert every["acc"]["value"] == 0.5 and every["iou"]["value"] == pytest.approx(1.75 / 4)
    assert (every["samples"], every["images"], every["acc"]["groups"]) == (4, 2, 2)
    assert every["unreadable"] == 0.25 and table["problems"] == {"no answer tag": 1}
    assert every["chance"] == 0.5 and every["tokens"] == 10 and every["truncated"] == 0
    assert part["domain bird"]["acc"]["value"] == 0.5 and part["domain dog"]["iou"]["value"] == pytest.approx(0.375)
    assert list(part) == [
        "all", "seen entities", "unseen entities", "seen domains", "unseen domains", "domain bird", "domain dog"
    ]  # fmt: skip
    assert part["unseen domains"] == part["domain dog"] and "published_acc" not in every
    recall = {row["name"]: row for row in table["links"]["all"]}["recall"]
    assert (recall["right"], recall["of"]) == (1, 4)
    visible = capsys.readouterr().out
    assert "no answer tag: 1" in visible and "| recall " in visible and "| all " in visible


def test_a_tie_at_one_half_is_a_hit(tmp_path):
    texts = TEXTS | {"b0": "<answer>(10,20),(30,60)</answer>"}  # half the width
    case = runs.load(answered(tmp_path / "run", texts)).cases[2]
    assert case.iou == pytest.approx(0.5) and case.hit, "also where floats put 20 / 40 a hair below one half"


def test_benchmark_and_reward_give_the_same_number(tmp_path):
    run = runs.load(answered(tmp_path / "run"))
    samples, completions = [c.sample for c in run.cases], [c.completion for c in run.cases]
    rewarded = rewards.load("iou")(samples, completions)
    assert [case.iou for case in run.cases] == [score.value for score in rewarded]  # to the last bit
    assert [case.iou for case in run.cases] == pytest.approx([1.0, 0.0, 0.75, 0.0])
    assert [float(case.hit) for case in run.cases] == [score.parts["acc"] for score in rewarded]


def test_rescoring_reads_the_text_again(tmp_path):
    folder = answered(tmp_path / "run")
    assert all(row.answer == UNREAD for row in read_jsonl(folder / "outputs.jsonl", Completion))
    case = runs.load(folder).cases[0]
    assert case.completion.answer == answers.parse(TEXTS["a0"], POCKET, Frame(100, 100))


def test_compare(tmp_path, capsys):
    a = answered(tmp_path / "a")
    b = answered(
        tmp_path / "b", TEXTS | {"a1": "<answer>(60,20),(90,60)</answer>", "b1": "<answer>(60,20),(90,60)</answer>"}
    )
    kvg_bench.main(["compare", str(a), str(b), "--out", str(tmp_path / "d.json")])
    row = json.loads((tmp_path / "d.json").read_text())["all"]["acc"]
    assert (row["value"], row["wins"], row["losses"], row["samples"]) == (0.5, 2, 0, 4)
    assert "B - A" in capsys.readouterr().out
    shorter = tmp_path / "c"
    shorter.mkdir()
    samples = cases(shorter)[:3]
    runs.begin(shorter, runs.load(a).info, samples, shorter)
    for sample in samples:
        runs.append(shorter, Completion(sample.id, TEXTS[sample.id], UNREAD))
    with pytest.raises(FieldmarkError, match="different samples"):
        kvg_bench.main(["compare", str(a), str(shorter)])


def test_unfinished_and_foreign_folders(tmp_path):
    folder = answered(tmp_path / "run")
    lines = (folder / "outputs.jsonl").read_text().splitlines(keepends=True)
    (folder / "outputs.jsonl").write_text("".join(lines[:2]) + lines[2][:30])  # torn by a crash
    with pytest.raises(FieldmarkError, match="2 of 4 samples have no completion"):
        runs.load(folder)
    samples = cases(folder)
    info = runs.load(answered(tmp_path / "other")).info
    assert runs.begin(folder, info, samples, folder) == {"a0", "a1"}
    with pytest.raises(FieldmarkError, match="style was 'think' and now is 'direct'"):
        runs.begin(folder, {**info, "style": "direct"}, samples, folder)
    assert runs.begin(folder, {**info, "style": "direct"}, samples, folder, fresh=True) == set()
    with pytest.raises(FieldmarkError, match="not a benchmark folder"):
        runs.load(tmp_path)


def official_run(tmp_path: Path) -> tuple[Path, list[Sample]]:
    """Answers to the official file by a family on 1000 x 1000: right, right without a tag, right as a bare list."""
    folder = tmp_path / "run"
    samples = kvg_published.read_parquet(parquet(tmp_path / "k.parquet"), folder / "images")
    qwen = {**CONVENTION, "family": "qwen3_vl"}
    info = {"model": "m", "style": "direct", "convention": qwen, "samples": {"file": "f"}, "official": True}
    runs.begin(folder, info, samples, folder)
    texts = ["<answer>(0,0),(400,1000)</answer>", "(500,0),(1000,1000)", "<answer>[100,100,900,900]</answer>"]
    for sample, text in zip(samples, texts, strict=True):
        runs.append(folder, Completion(sample.id, text, UNREAD))
    return folder, samples


def test_the_published_rule_beside_ours(tmp_path):
    """A family on 1000 x 1000 gets both numbers; they differ where the rules do."""
    folder, _ = official_run(tmp_path)
    table = runs.write_scores(runs.load(folder))
    every = table["slices"]["all"]
    assert every["acc"]["value"] == pytest.approx(2 / 3), (
        "ours: a box outside the answer does not count, a bare list does"
    )
    assert every["published_acc"]["value"] == pytest.approx(2 / 3)
    published = [case.published["published"] for case in runs.load(folder).cases]
    assert published == [1.0, 1.0, 0.0] and [case.hit for case in runs.load(folder).cases] == [True, False, True]
    assert every["chance"] == pytest.approx((0.5 + 0.5 + 1) / 3)


def test_both_releases_and_the_published_domains_whatever_was_trained_on(tmp_path, capsys):
    """A fenced list counts in KARL's scorer only through its block; birds stay seen and dogs unseen, as published."""
    folder, samples = official_run(tmp_path)
    texts = ["<answer>[[0,0,400,1000]]</answer>", "(1, 2) ```json[500, 0, 1000, 1000]```", "(100,100),(900,900)"]
    (folder / "outputs.jsonl").unlink()
    for sample, text in zip(samples, texts, strict=True):
        runs.append(folder, Completion(sample.id, text, UNREAD))
    trained = [replace(sample, seen=sample.domain == "dog") for sample in samples]
    write_jsonl(folder / "samples.jsonl", [replace(row, image=Path(row.image).name) for row in trained])
    kvg_bench.main(["--rescore", "--out", str(folder)])
    parts = json.loads((folder / "scores.json").read_text())["slices"]
    accs = {name: (row["published_acc"]["value"], row["first_published_acc"]["value"]) for name, row in parts.items()}
    assert accs["all"] == pytest.approx((1.0, 2 / 3)) and accs["seen domains"] == (1.0, 0.5)
    assert parts["seen domains"] == parts["domain bird"] == parts["unseen entities"] and accs["seen entities"] == (1, 1)
    assert "| first " in capsys.readouterr().out


def test_the_published_rule_calls_a_tie_a_hit(tmp_path):
    samples = kvg_published.read_parquet(parquet(tmp_path / "k.parquet"), tmp_path / "images")[:1]
    assert samples[0].boxes[0].to_xyxy(kvg_published.FRAME) == (0, 0, 400, 1000)
    for text, hit in (("(0,0),(400,500)", 1.0), ("(0,0),(400,499)", 0.0)):
        folder = tmp_path / text
        info = {"model": "m", "style": "direct", "convention": {**CONVENTION, "family": "qwen3_vl"}}
        runs.begin(folder, info | {"samples": {"file": "f"}, "official": True}, samples, tmp_path / "images")
        runs.append(folder, Completion(samples[0].id, f"<answer>{text}</answer>", UNREAD))
        table = runs.write_scores(runs.load(folder))
        assert table["slices"]["all"]["published_acc"]["value"] == hit


def test_both_rules_published_rows_and_quadrants(tmp_path, capsys):
    """The report of an official run: side by side, the papers' rows, and what the model knows of the entities."""
    folder, samples = official_run(tmp_path)
    names = list(dict.fromkeys(sample.entity for sample in samples))
    known = {name: Entry(level, right, 2) for name, level, right in zip(names, LEVELS[::4], (2.0, 0.0), strict=False)}
    MasteryTable(known).save(tmp_path / "mastery.json")
    kvg_bench.main(["--rescore", "--out", str(folder), "--mastery", str(tmp_path / "mastery.json")])
    visible = capsys.readouterr().out
    assert "published rule" in visible and "| KARL " in visible and "68.4" in visible and "Human+search" in visible
    found = json.loads((folder / "scores.json").read_text())["knowledge"]
    hits = {sample.id: case.hit for sample, case in zip(samples, runs.load(folder).cases, strict=True)}
    kept = [sample for sample in samples if sample.entity in known]
    expected = dict.fromkeys(quadrants.QUADRANTS, 0.0)
    for sample in kept:
        knows, grounds = known[sample.entity].right == 2.0, hits[sample.id]
        name = ("knows and grounds" if grounds else "knows, cannot ground") if knows else (
            "grounds, does not know" if grounds else "neither"
        )  # fmt: skip
        expected[name] += 1 / len(kept)
    assert found["quadrants"] == pytest.approx(expected) and sum(expected.values()) == pytest.approx(1)
    known_high = [1.0 if known[sample.entity].right == 2.0 else 0.0 for sample in kept]
    as_karl = found["published_quadrants"]
    assert as_karl["knows and grounds"] + as_karl["knows, cannot ground"] == sum(known_high) / len(kept)
    assert found["left_out"] == len(samples) - len(kept) and set(found["levels"]) <= {*LEVELS, "high", "low"}


def test_published_rows_add_up():
    """Case-weighted means of the printed cells, with the case counts that make every cell a multiple of 1 / n."""
    cases = {"aircraft": 152, "car": 104, "reptilia": 145, "bird": 251, "food": 140}
    others = {"dog": 125, "mollusca": 135, "mammal": 112, "flower": 89, "landmark": 83}
    rows = kvg_published.published_rows()
    assert len(rows) == 20 and {"Human", "KARL", "DeepPerception"} <= {row["model"] for row in rows}
    for row in rows:
        assert set(row["acc"]) == {*cases, *others, "seen", "unseen", "all"} and row["source"]
        if "note" in row or row["model"].startswith("Human"):  # people saw subsets; a note tells what is off
            continue
        for name, counts in (("seen", cases), ("unseen", others), ("all", cases | others)):
            mean = sum(row["acc"][domain] * n for domain, n in counts.items()) / sum(counts.values())
            assert row["acc"][name] == pytest.approx(mean, abs=0.02), (row["model"], name)


def test_absent_things_count_as_right_when_they_are_said_to_be(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    rows = cases(folder)
    rows = [replace(row, boxes=(), entity="Mira tolo") if row.id in ("b0", "b1") else row for row in rows]
    base = {"model": "m", "style": "think", "convention": CONVENTION, "samples": {"file": "f"}, "official": False}
    runs.begin(folder, base, rows, folder)
    texts = TEXTS | {"b0": "<answer>none</answer>", "b1": "<answer>(1,2),(3,4)</answer>"}
    for row in rows:
        runs.append(folder, Completion(row.id, texts[row.id], UNREAD))
    table = runs.write_scores(runs.load(folder))
    acc = {name: part["acc"]["value"] for name, part in table["slices"].items()}
    assert (acc["present"], acc["absent"], acc["all"]) == (0.5, 0.5, 0.5)
    assert table["slices"]["absent"]["chance"] == 0 and table["slices"]["absent"]["unreadable"] == 0


def test_text_table_is_markdown(tmp_path):
    table = scores.table(runs.load(answered(tmp_path / "run")).cases)
    lines = scores.text_table(table).splitlines()
    assert lines[0].startswith("| slice") and set(lines[1]) <= {"|", "-"} and len({len(line) for line in lines}) == 1


@pytest.mark.parametrize(
    "change, why",
    [
        ({"truncated": 0.6, "unreadable": 0.9}, "most end at --max-new-tokens"),
        ({"truncated": 0.4, "unreadable": 0.9}, "most cannot be read"),
        ({"truncated": 0.5, "unreadable": 0.5}, "most can be read, but their boxes are elsewhere"),
    ],
)
def test_a_table_of_zeros_says_why(tmp_path, change, why):
    table = scores.table(runs.load(answered(tmp_path / "run")).cases)
    assert "No answer is right" not in scores.text_table(table)
    row = table["slices"]["all"]
    row["acc"] = row["acc"] | {"value": 0.0}
    row |= change
    last = scores.text_table(table).splitlines()[-1]
    assert last.startswith("No answer is right") and why in last


def test_a_domain_of_ones_own_is_seen_where_its_kinds_were_trained_on(tmp_path):
    """A team that trains on dogs has seen dogs, though KVG-Bench holds them out; where nobody says, its list counts."""
    run = runs.load(answered(tmp_path / "run"))
    bird, dog = run.cases[:2], run.cases[2:]
    mine = [replace(case, sample=replace(case.sample, seen=k == 0)) for k, case in enumerate(dog)]
    assert list(scores.slices(mine)) == ["all", "seen entities", "unseen entities", "seen domains", "domain dog"]
    unsaid = [replace(case, sample=replace(case.sample, seen=None)) for case in (*bird, *dog)]
    assert [case.sample.domain for case in scores.slices(unsaid)["unseen domains"]] == ["dog", "dog"]
    unnamed = [replace(case, sample=replace(case.sample, domain="", seen=None)) for case in dog]
    assert list(scores.slices(unnamed)) == ["all"], "imported samples name no domain"

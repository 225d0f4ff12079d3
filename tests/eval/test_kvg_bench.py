"""The grounding benchmark: hand-computed scores, the published rule's quirks, kill and resume, the reward's number."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from eval import kvg_bench
from mllm import answers, families, kvg, quadrants, rewards, runs, scores
from mllm.boxes import Box, Frame
from mllm.errors import FieldmarkError
from mllm.mastery import LEVELS, Entry, Table
from mllm.records import Answer, Completion, Sample, Thing, append_jsonl, read_jsonl, write_jsonl
from tests.official import parquet

POCKET = families.load("pocket")
CONVENTION = {
    "family": "pocket",
    "prompt": "think",
    "budget": {"min_pixels": 9216, "max_pixels": 55296},
    "system": None,
    "version": 1,
}
UNREAD = Answer(None, None, (), (), None)
MARKS = (("round", "red"), ("round", "blue"))


def cases(folder: Path) -> list[Sample]:
    """Four questions on two pictures: bird (seen, two questions) and dog (unseen)."""
    Image.new("RGB", (200, 100)).save(folder / "a.png")
    Image.new("RGB", (200, 100)).save(folder / "b.png")
    left, right = Box(0.1, 0.2, 0.5, 0.6), Box(0.6, 0.2, 0.9, 0.6)

    def one(name, image, domain, target, seen):
        things = (Thing("Talo ruvi", left, MARKS[0]), Thing("Talo mesi", right, MARKS[1]))
        entity, box = things[target].entity, things[target].box
        return Sample(
            id=name, task="ground", image=image, size=Frame(200, 100), domain=domain, entity=entity,
            question=f"Find the {domain} {entity}.", boxes=(box,), things=things, split="test", seen=seen,
        )  # fmt: skip

    return [
        one("a0", "a.png", "bird", 0, True),
        one("a1", "a.png", "bird", 1, True),
        one("b0", "b.png", "dog", 0, False),
        one("b1", "b.png", "dog", 1, False),
    ]


TEXTS = {
    # right to the number: IoU 1; links all hold
    "a0": "<think>Talo ruvi: round, red. 1 (10,20),(50,60): round, red. 2 (60,20),(90,60): round, blue. So 1.</think>"
    "<answer>(10,20),(50,60)</answer>",
    # the other bird: IoU 0
    "a1": "<answer>(10,20),(50,60)</answer>",
    # 30 of 40 wide: 1200 / 1600 = 0.75
    "b0": "<answer>(10,20),(40,60)</answer>",
    # no answer tag
    "b1": "(60,20),(90,60)",
}


def answered(folder: Path, texts=TEXTS, **info) -> Path:
    """A benchmark folder as the program leaves it, written without a model."""
    folder.mkdir(parents=True)
    base = {"model": "m", "style": "think", "convention": CONVENTION, "samples": {"file": "f"}, "official": False}
    samples = cases(folder)
    runs.begin(folder, base | info, samples, folder)
    for sample in samples:
        append_jsonl(
            folder / "outputs.jsonl", Completion(sample.id, texts[sample.id], UNREAD, tokens=10, clipped=False)
        )
    return folder


def test_golden_scores(tmp_path, capsys):
    folder = answered(tmp_path / "run")
    kvg_bench.main(["--rescore", "--out", str(folder)])
    table = json.loads((folder / "scores.json").read_text())
    every, part = table["slices"]["all"], table["slices"]
    assert every["acc"]["value"] == 0.5 and every["iou"]["value"] == pytest.approx(1.75 / 4)
    assert (every["samples"], every["images"], every["acc"]["groups"]) == (4, 2, 2)
    assert every["unreadable"] == 0.25 and table["problems"] == {"no answer tag": 1}
    assert every["chance"] == 0.5 and every["tokens"] == 10 and every["clipped"] == 0
    assert part["domain bird"]["acc"]["value"] == 0.5 and part["domain dog"]["iou"]["value"] == pytest.approx(0.375)
    assert list(part) == [
        "all", "seen entities", "unseen entities", "seen domains", "unseen domains", "domain bird", "domain dog"
    ]  # fmt: skip
    assert part["unseen domains"] == part["domain dog"] and "published_acc" not in every
    recall = {row["name"]: row for row in table["links"]["all"]}["recall"]
    assert (recall["right"], recall["of"]) == (1, 4)
    shown = capsys.readouterr().out
    assert "no answer tag: 1" in shown and "| recall " in shown and "| all " in shown


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
    with pytest.raises(FieldmarkError, match="no benchmark folder"):
        runs.load(tmp_path)


def official_run(tmp_path: Path) -> tuple[Path, list[Sample]]:
    """Answers to the official file by a family on 1000 x 1000: right, right without a tag, right as a bare list."""
    folder = tmp_path / "run"
    samples = kvg.read_parquet(parquet(tmp_path / "k.parquet"), folder / "pictures")
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
    published = [case.published for case in runs.load(folder).cases]
    assert published == [1.0, 1.0, 0.0] and [case.hit for case in runs.load(folder).cases] == [True, False, True]
    assert every["chance"] == pytest.approx((0.5 + 0.5 + 1) / 3)


def test_both_rules_published_rows_and_quadrants(tmp_path, capsys):
    """The report of an official run: side by side, the papers' rows, and what the model knows of the entities."""
    folder, samples = official_run(tmp_path)
    names = list(dict.fromkeys(sample.entity for sample in samples))
    known = {name: Entry(level, right, 2) for name, level, right in zip(names, LEVELS[::4], (2.0, 0.0), strict=False)}
    Table(known).save(tmp_path / "mastery.json")
    kvg_bench.main(["--rescore", "--out", str(folder), "--mastery", str(tmp_path / "mastery.json")])
    shown = capsys.readouterr().out
    assert "published rule" in shown and "| KARL " in shown and "68.4" in shown and "Human+search" in shown
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
    assert found["left_out"] == len(samples) - len(kept) and set(found["levels"]) <= {*LEVELS, "high", "low"}


def test_published_rows_add_up():
    """Case-weighted means of the printed cells, with the case counts that make every cell a multiple of 1 / n."""
    cases = {"aircraft": 152, "car": 104, "reptilia": 145, "bird": 251, "food": 140}
    others = {"dog": 125, "mollusca": 135, "mammal": 112, "flower": 89, "landmark": 83}
    rows = kvg.published_rows()
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


# --- with a model -----------------------------------------------------------------------------------------------------


def test_whole_program_on_the_official_file(tmp_path, pocket_folder, capsys):
    path = parquet(tmp_path / "k.parquet")
    out = tmp_path / "out"
    flags = ["--model", str(pocket_folder), "--official", str(path), "--out", str(out), "--max-new-tokens", "6"]
    kvg_bench.main(flags)
    first = json.loads((out / "scores.json").read_text())
    assert first["slices"]["all"]["samples"] == 3 and first["weights"] and first["versions"]["torch"]
    assert "does not apply" in capsys.readouterr().out, "the pocket family writes hundredths"
    kvg_bench.main(flags)
    assert "answered already" in capsys.readouterr().out
    kvg_bench.main(["--rescore", "--out", str(out)])
    assert json.loads((out / "scores.json").read_text()) == first
    with pytest.raises(FieldmarkError, match="another run: generation"):
        kvg_bench.main([*flags, "--max-new-tokens", "7"])
    kvg_bench.main([*flags, "--max-new-tokens", "7", "--fresh", "--limit", "2"])
    assert len(list(read_jsonl(out / "outputs.jsonl", Completion))) == 2


def test_seen_entities_from_the_training_file(tmp_path, pocket_folder):
    samples = cases(tmp_path)
    write_jsonl(tmp_path / "test.jsonl", [replace(sample, seen=None) for sample in samples])
    write_jsonl(tmp_path / "train.jsonl", [replace(samples[0], split="train")])
    out = tmp_path / "out"
    kvg_bench.main(
        [
            "--model",
            str(pocket_folder),
            "--samples",
            str(tmp_path / "test.jsonl"),
            "--out",
            str(out),
            "--style",
            "direct",
        ]
        + ["--train", str(tmp_path / "train.jsonl"), "--max-new-tokens", "2", "--batch-size", "2"]
    )
    table = json.loads((out / "scores.json").read_text())
    assert table["slices"]["seen entities"]["samples"] == table["slices"]["unseen entities"]["samples"] == 2
    assert runs.load(out).picture(runs.load(out).cases[0]).is_file()


def test_no_samples_file(tmp_path):
    with pytest.raises(FieldmarkError, match="grounding.py"):
        kvg_bench.main(["--samples", str(tmp_path / "absent.jsonl"), "--out", str(tmp_path / "out")])


@pytest.mark.ci
def test_killed_and_started_again(tmp_path, pocket_folder, root):
    """kill -9 in the middle, then the same command: the same outputs as a run that was never stopped."""
    samples = []
    for k in range(16):
        Image.effect_noise((96, 96), 40 + 8 * k).convert("RGB").save(tmp_path / f"{k}.png")
        whole = (Box(0, 0, 1, 1),)
        samples.append(
            Sample(
                id=f"s{k:02}", task="ground", image=f"{k}.png", size=Frame(96, 96), domain="bird", entity="Talo",
                question="Find the bird Talo.", boxes=whole, split="test",
            )
        )  # fmt: skip
    write_jsonl(tmp_path / "test.jsonl", samples)

    def flags(out):
        words = ["--model", pocket_folder, "--samples", tmp_path / "test.jsonl", "--out", out, "--batch-size", "1"]
        return [*map(str, words), "--max-new-tokens", "40", "--temperature", "1"]

    command = [sys.executable, "eval/kvg_bench.py", *flags(tmp_path / "a")]
    stopped = subprocess.Popen(command, cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    outputs, deadline = tmp_path / "a" / "outputs.jsonl", time.time() + 120
    while not outputs.is_file() and time.time() < deadline and stopped.poll() is None:
        time.sleep(0.02)
    stopped.send_signal(signal.SIGKILL)
    stopped.wait()
    rows = len(outputs.read_text().splitlines())
    assert 0 < rows < 16, "the run was to be stopped in its middle"
    for out in ("a", "b"):
        kvg_bench.main(flags(tmp_path / out))
    a, b = ({r.sample_id: r for r in read_jsonl(tmp_path / n / "outputs.jsonl", Completion)} for n in "ab")
    assert a == b and len(a) == 16
    same = [json.loads((tmp_path / n / "scores.json").read_text())["slices"] for n in "ab"]
    assert same[0] == same[1]


def test_text_table_is_markdown(tmp_path):
    table = scores.table(runs.load(answered(tmp_path / "run")).cases)
    lines = scores.text_table(table).splitlines()
    assert lines[0].startswith("| slice") and set(lines[1]) <= {"|", "-"} and len({len(line) for line in lines}) == 1


def test_a_base_in_four_bits_is_asked_and_its_answers_are_kept_apart(tmp_path, monkeypatch):
    from bitsandbytes.nn import Linear4bit

    from mllm import answering, models

    kinds = []

    def load(*arguments, **options):
        loaded = models.load(*arguments, **options)
        kinds.append(any(isinstance(module, Linear4bit) for module in loaded.model.modules()))
        return loaded

    monkeypatch.setattr(answering, "load", load)
    write_jsonl(tmp_path / "test.jsonl", cases(tmp_path))
    words = ["--samples", str(tmp_path / "test.jsonl"), "--out", str(tmp_path / "run"), "--max-new-tokens", "4"]
    kvg_bench.main([*words, "--quantize", "4bit"])
    assert kinds == [True] and runs.load(tmp_path / "run").info["quantize"] == "4bit"
    with pytest.raises(FieldmarkError, match="quantize was '4bit' and now is None"):
        kvg_bench.main(words)
    with pytest.raises(FieldmarkError, match="--quantize is for --engine transformers"):
        kvg_bench.main([*words, "--quantize", "4bit", "--engine", "vllm", "--fresh"])


def test_a_card_that_is_too_small_keeps_what_was_answered(tmp_path, monkeypatch):
    import torch

    from mllm import generate

    def some(loaded, samples, root, *, skip, **_):
        yield Completion("a0", TEXTS["a0"], UNREAD, tokens=10, clipped=False)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(generate, "generate", some)
    write_jsonl(tmp_path / "test.jsonl", cases(tmp_path))
    with pytest.raises(FieldmarkError, match="allocate 2.00 GiB. Give the command again with a lower --batch-size"):
        kvg_bench.main(["--samples", str(tmp_path / "test.jsonl"), "--out", str(tmp_path / "run")])
    assert [row.sample_id for row in read_jsonl(tmp_path / "run" / "outputs.jsonl", Completion)] == ["a0"]


def test_a_domain_of_ones_own_is_seen_where_its_kinds_were_trained_on(tmp_path):
    """A team that trains on dogs has seen dogs, though KVG-Bench holds them out; where nobody says, its list counts."""
    run = runs.load(answered(tmp_path / "run"))
    bird, dog = run.cases[:2], run.cases[2:]
    mine = [replace(case, sample=replace(case.sample, seen=k == 0)) for k, case in enumerate(dog)]
    assert list(scores.slices(mine)) == ["all", "seen entities", "unseen entities", "seen domains", "domain dog"]
    unsaid = [replace(case, sample=replace(case.sample, seen=None)) for case in (*bird, *dog)]
    assert [case.sample.domain for case in scores.slices(unsaid)["unseen domains"]] == ["dog", "dog"]

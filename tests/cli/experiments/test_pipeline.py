"""A pipeline runs commands in order, stops at the first that fails, and goes on from there."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from mllm.cli.commands.demo import BAG_SIZES, CAPTIONERS, MODELS, demo_stages
from mllm.cli.commands.table_spine import ablation
from mllm.cli.experiments.pipeline import Pipeline, Stage
from mllm.errors import FieldmarkError


def _stage(name: str, *arguments: str, module: str = "timeit") -> Stage:
    return Stage(name, module, ("-n", "1", "-r", "1", *arguments), 1.0)


def _writes(file: Path, word: str) -> str:
    return f"open({str(file)!r}, 'a').write({word!r})"


def _finished(out: Path) -> set[str]:
    return {json.loads(line)["name"] for line in (out / "stages.jsonl").read_text().splitlines()}


def test_stages_run_once_and_a_failed_one_is_run_again(tmp_path: Path) -> None:
    trace, lines = tmp_path / "trace", []
    first = _stage("first", _writes(trace, "1"))
    broken = _stage("second", "raise SystemExit(3)")
    with pytest.raises(FieldmarkError, match=r"(?s)stage 'second' ended with code 1.*again"):
        Pipeline(tmp_path / "out", lines.append).run([first, broken])
    mended = _stage("second", _writes(trace, "2"))
    Pipeline(tmp_path / "out", lines.append).run([first, mended])
    assert trace.read_text() == "12"
    assert any("first: done before" in line for line in lines)
    assert _finished(tmp_path / "out") == {"first", "second"}


def test_stages_side_by_side_share_the_cores_and_a_failure_stops_what_has_not_begun(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    both = [_stage(name, f"import os; {_writes(trace, name)}; assert os.environ['OMP_NUM_THREADS']") for name in "ab"]
    pipeline = Pipeline(tmp_path / "out", lambda line: None)
    pipeline.run(both, jobs=2)
    assert sorted(trace.read_text()) == ["a", "b"] and _finished(tmp_path / "out") == {"a", "b"}
    broken = [_stage(name, "raise SystemExit(3)") for name in ("c", "d")]
    with pytest.raises(FieldmarkError, match="stage 'c' ended with code 1"):
        pipeline.run([*both, *broken, _stage("e", _writes(trace, "e"))], jobs=2)
    assert "e" not in trace.read_text()
    assert _finished(tmp_path / "out") == {"a", "b"}


def test_side_by_side_a_stage_waits_for_what_it_needs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace"
    late = (
        f"import pathlib; assert pathlib.Path({str(trace)!r}).read_text() == '1'; print('told'); {_writes(trace, '2')}"
    )
    second = replace(_stage("second", late), needs=("first",))
    first = _stage("first", f"import time; time.sleep(0.1); {_writes(trace, '1')}")
    Pipeline(tmp_path / "out", lambda line: None).run([second, first], jobs=2)
    assert trace.read_text() == "12"
    assert "second | told" in capfd.readouterr().out, "lines of two programs at once say whose they are"


def test_stages_that_need_one_another_are_named(tmp_path: Path) -> None:
    a, b = replace(_stage("a", "1"), needs=("b",)), replace(_stage("b", "1"), needs=("a",))
    with pytest.raises(FieldmarkError, match="need one another, or themselves: a, b"):
        Pipeline(tmp_path / "out", lambda line: None).run([a, b], jobs=2)


def test_every_stage_of_the_demo_needs_the_stages_whose_files_it_reads(tmp_path: Path) -> None:
    stages = demo_stages(tmp_path)
    writes: dict[str, str] = {}
    for stage in stages:
        words = [word.removeprefix("--output_dir=") for word in stage.arguments if word.startswith("--output_dir=")]
        words += [word.removeprefix("--out=") for word in stage.arguments if word.startswith("--out=")]
        words += [b for a, b in pairwise(stage.arguments) if a == "--out"]
        assert len(words) == 1
        read = {name for name, folder in writes.items() if any(f"{folder}/" in f"{word}/" for word in stage.arguments)}
        assert read - {stage.name} <= _all_needs(stage, stages), stage.name
        writes[stage.name] = words[0]


def _all_needs(stage: Stage, stages: list[Stage]) -> set[str]:
    """What a stage needs, and what that needs."""
    found, by_name = set(stage.needs), {one.name: one for one in stages}
    return found.union(*(_all_needs(by_name[name], stages) for name in found))


def test_a_changed_command_is_run_again(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    pipeline = Pipeline(tmp_path / "out", lambda line: None)
    pipeline.run([_stage("one", _writes(trace, "a"))])
    pipeline.run([_stage("one", _writes(trace, "b"))])
    pipeline.run([_stage("one", _writes(trace, "b"))])
    assert trace.read_text() == "ab"


def test_demo_measures_every_model_on_the_same_file(tmp_path: Path) -> None:
    stages = demo_stages(tmp_path)
    measured = [stage for stage in stages if stage.module == "mllm.eval.kvg_bench"]
    assert len(measured) == len(MODELS)
    assert {stage.arguments[stage.arguments.index("--samples") + 1] for stage in measured} == {
        str(tmp_path / "data" / "test.jsonl")
    }
    assert stages[-1].arguments[0] == "report"


def test_the_second_act_judges_every_captioner_in_the_same_bags(tmp_path: Path) -> None:
    stages = demo_stages(tmp_path)
    judged = [stage for stage in stages if stage.module == "mllm.eval.truematch"]
    assert len(judged) == len(CAPTIONERS)
    bags = {stage.arguments[stage.arguments.index("--bags") : stage.arguments.index("--late")] for stage in judged}
    assert len(bags) == 1 and [Path(file).name for file in next(iter(bags))[1:]] == [
        f"bags-{size}-medium.jsonl" for size in BAG_SIZES
    ]
    assert all("--scorer" not in stage.arguments for stage in judged), "the judge of truematch.py, not the scorer"
    visible = stages[-1].arguments
    assert [visible[k + 1].partition("=")[0] for k, word in enumerate(visible) if word == "--captions"] == list(
        CAPTIONERS
    )


def test_every_arm_of_the_table_gets_the_same_tuning_budget_and_known_parents() -> None:
    arms = ablation().arms
    assert {len(arm.rates) for arm in arms} == {2}
    known: set[str] = set()
    for arm in arms:
        assert arm.start is None or arm.start in known, "an arm must come after the one it starts from"
        known.add(arm.name)
    assert all(a in known and b in known for a, b in ablation().comparisons)

"""A pipeline runs commands in order, stops at the first that fails, and goes on from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from mllm.demo import BAG_SIZES, CAPTIONERS, MODELS, demo_stages
from mllm.errors import FieldmarkError
from mllm.pipeline import Pipeline, Stage
from mllm.spine import COMPARISONS, Plan


def _stage(name: str, *arguments: str, module: str = "timeit") -> Stage:
    return Stage(name, module, ("-n", "1", "-r", "1", *arguments), 1.0)


def _writes(file: Path, word: str) -> str:
    return f"open({str(file)!r}, 'a').write({word!r})"


def test_stages_run_once_and_a_failed_one_is_run_again(tmp_path: Path) -> None:
    trace, told = tmp_path / "trace", []
    first = _stage("first", _writes(trace, "1"))
    broken = _stage("second", "raise SystemExit(3)")
    with pytest.raises(FieldmarkError, match=r"(?s)stage 'second' ended with code 1.*again"):
        Pipeline(tmp_path / "out", told.append).run([first, broken])
    mended = _stage("second", _writes(trace, "2"))
    Pipeline(tmp_path / "out", told.append).run([first, mended])
    assert trace.read_text() == "12"
    assert any("first: done before" in line for line in told)
    assert set(Pipeline(tmp_path / "out", told.append).seconds()) == {"first", "second"}


def test_stages_side_by_side_share_the_cores_and_a_failure_stops_what_has_not_begun(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    both = [_stage(name, f"import os; {_writes(trace, name)}; assert os.environ['OMP_NUM_THREADS']") for name in "ab"]
    pipeline = Pipeline(tmp_path / "out", lambda line: None)
    pipeline.run(both, jobs=2)
    assert sorted(trace.read_text()) == ["a", "b"] and set(pipeline.seconds()) == {"a", "b"}
    broken = [_stage(name, "raise SystemExit(3)") for name in ("c", "d")]
    with pytest.raises(FieldmarkError, match="stage 'c' ended with code 1"):
        pipeline.run([*both, *broken, _stage("e", _writes(trace, "e"))], jobs=2)
    assert "e" not in trace.read_text()
    assert set(Pipeline(tmp_path / "out", lambda line: None).seconds()) == {"a", "b"}


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
    shown = stages[-1].arguments
    assert [shown[k + 1].partition("=")[0] for k, word in enumerate(shown) if word == "--captions"] == list(CAPTIONERS)


def test_every_arm_of_the_table_gets_the_same_tuning_budget_and_known_parents() -> None:
    arms = Plan().arms()
    assert {len(arm.rates) for arm in arms} == {2}
    known: set[str] = set()
    for arm in arms:
        assert arm.start is None or arm.start in known, "an arm must come after the one it starts from"
        known.add(arm.name)
    assert all(a in known and b in known for a, b in COMPARISONS)

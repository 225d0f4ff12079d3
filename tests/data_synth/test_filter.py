"""Keeping what a model gets right sometimes: counted by hand, resumed, with a real model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from data_synth import filter as program
from mllm.errors import FieldmarkError
from mllm.io.jsonl import read_jsonl, write_jsonl
from mllm.prompting.tasks import task_of
from mllm.records import Answer, Completion, Sample, load_samples
from mllm.synthesis.run import SynthesisRun
from tests.support.scenes import make_data

ROOT = Path(__file__).resolve().parents[2]


def make(out: Path, model: Path | str, samples: Path, *flags: str) -> dict[str, Any]:
    program.main(["--model", str(model), "--samples", str(samples), "--out", str(out), *flags])
    return json.loads((out / "manifest.json").read_text())


def attempts_of(samples: list[Sample], passes: list[int], attempts: int, out: Path) -> None:
    """Write attempts as if a model had made them: sample k is right in its first `passes[k]` attempts."""
    for attempt in range(attempts):
        rows = []
        for sample, right in zip(samples, passes, strict=True):
            boxes = sample.boxes if attempt < right else ()
            rows.append(Completion(sample.id, "", Answer(None, "", boxes, (), None if boxes else "no answer tag")))
        write_jsonl(out / f"attempts-{attempt}.jsonl", rows)


@pytest.mark.ci
def test_what_is_right_sometimes_is_kept(tmp_path: Path, pocket_folder: Path) -> None:
    train, _ = make_data(tmp_path / "data", train=5, validation=1)
    samples, out = load_samples(train), tmp_path / "out"
    make(out, pocket_folder, train, "--attempts", "4", "--max-new-tokens", "2", "--least", "0", "--most", "4")
    attempts_of(samples, [0, 1, 2, 3, 4], 4, out)
    options = program.FilterOptions(samples=str(train), out=out)
    program.keep_stage(SynthesisRun(options, out), samples, "weights")
    facts = json.loads((out / "manifest.json").read_text())
    assert facts["samples by number of right attempts"] == {"0": 1, "1": 1, "2": 1, "3": 1, "4": 1}
    assert (facts["kept"], facts["left out, right too rarely"], facts["left out, right too often"]) == (3, 1, 1)
    kept = load_samples(out / "samples.jsonl")  # their images are found from the new folder
    assert [row.id for row in kept] == [row.id for row in samples[1:4]]
    assert [row.provenance["difficulty"]["rate"] for row in kept] == [0.25, 0.5, 0.75]
    assert kept[0].provenance["difficulty"]["passes"] == 1 and kept[0].things == samples[1].things


@pytest.mark.ci
def test_a_stopped_run_answers_what_is_missing_and_ends_alike(tmp_path: Path, pocket_folder: Path) -> None:
    train, _ = make_data(tmp_path / "data", train=6, validation=1)
    flags = ["--attempts", "2", "--max-new-tokens", "6", "--batch-size", "2", "--least", "0"]
    whole = make(tmp_path / "a", pocket_folder, train, *flags)
    make(tmp_path / "b", pocket_folder, train, *flags)
    rows = (tmp_path / "a" / "attempts-0.jsonl").read_text().splitlines(keepends=True)
    for name in ("manifest.json", "samples.jsonl", "attempts-0.jsonl", "attempts-1.jsonl"):
        (tmp_path / "b" / name).unlink()
    (tmp_path / "b" / "attempts-0.part.jsonl").write_text("".join(rows[:3]) + rows[3][:20])  # torn in the fourth
    assert make(tmp_path / "b", pocket_folder, train, *flags) == whole
    for attempt in range(2):
        name = f"attempts-{attempt}.jsonl"
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    texts = [
        {row.sample_id: row.text for row in read_jsonl(tmp_path / "a" / f"attempts-{k}.jsonl", Completion)}
        for k in (0, 1)
    ]
    assert texts[0] != texts[1], "each attempt has a seed of its own"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--temperature", "0"], "--temperature 0.0: must be above 0"),
        (["--least", "3", "--most", "2"], "--least 3, --most 2"),
        (["--attempts", "1"], "--least 1, --most 0"),
        (["--samples", "none.jsonl"], "none.jsonl: no such record file"),
    ],
)
def test_bad_settings_are_told(tmp_path: Path, flags: list[str], message: str) -> None:
    with pytest.raises(FieldmarkError) as error:
        program.main(["--out", str(tmp_path / "out"), *flags])
    assert message in str(error.value)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_pocket_model_finds_some_descriptions_sometimes_and_a_killed_run_ends_alike(tmp_path: Path) -> None:
    data = [str(ROOT / "data_synth" / "grounding.py"), "--train", "24", "--validation", "0", "--test", "0"]
    data += ["--photos-per-entity", "3", "--domain", "bird", "--descriptions", "1", "--out", str(tmp_path / "data")]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *data], check=True, env=env, cwd=tmp_path)
    train = tmp_path / "data" / "train.jsonl"
    flags = ["--attempts", "3", "--max-new-tokens", "200", "--batch-size", "4", "--temperature", "1.3"]
    whole = make(tmp_path / "whole", "pocket", train, *flags)
    counts = whole["samples by number of right attempts"]
    assert sum(counts.values()) == 24 and 0 < whole["kept"] < 24, counts
    samples = {row.id: row for row in load_samples(train)}
    right = [
        task_of(samples[row.sample_id]).is_right(row.answer, samples[row.sample_id])
        for row in read_jsonl(tmp_path / "whole/attempts-0.jsonl", Completion)
    ]
    assert 0 < sum(right) < 24
    command = [sys.executable, str(ROOT / "data_synth" / "filter.py"), "--model", "pocket", "--samples", str(train)]
    running = subprocess.Popen([*command, *flags, "--out", str(tmp_path / "killed")], env=env, cwd=tmp_path)
    log = tmp_path / "killed" / "attempts-1.part.jsonl"
    while running.poll() is None:
        if log.exists() and log.stat().st_size > 500:
            running.send_signal(signal.SIGKILL)
        time.sleep(0.002)
    assert running.wait() == -signal.SIGKILL
    assert make(tmp_path / "killed", "pocket", train, *flags)["hash"] == whole["hash"]

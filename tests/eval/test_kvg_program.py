"""The grounding benchmark as a program: with a model, on the official file, killed and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from PIL import Image

from eval import kvg_bench
from mllm.boxes import Box, Frame
from mllm.errors import FieldmarkError
from mllm.evaluation import runs
from mllm.io.jsonl import read_jsonl, write_jsonl
from mllm.records import Completion, Sample
from tests.support.benchmarked import TEXTS, UNREAD, cases
from tests.support.official import parquet


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
    kvg_bench.main([*flags, "--max-new-tokens", "7", "--overwrite", "--limit", "2"])
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
    assert runs.load(out).image(runs.load(out).cases[0]).is_file()


def test_no_samples_file(tmp_path):
    with pytest.raises(FieldmarkError, match="grounding.py"):
        kvg_bench.main(["--samples", str(tmp_path / "absent.jsonl"), "--out", str(tmp_path / "out")])


@pytest.mark.slow
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


def test_a_base_in_four_bits_is_asked_and_its_answers_are_kept_apart(tmp_path, monkeypatch):
    from bitsandbytes.nn import Linear4bit

    from mllm.evaluation import generate_missing
    from mllm.models import checkpoint

    kinds = []

    def load(*arguments, **options):
        loaded = checkpoint.load(*arguments, **options)
        kinds.append(any(isinstance(module, Linear4bit) for module in loaded.model.modules()))
        return loaded

    monkeypatch.setattr(generate_missing, "load", load)
    write_jsonl(tmp_path / "test.jsonl", cases(tmp_path))
    words = ["--samples", str(tmp_path / "test.jsonl"), "--out", str(tmp_path / "run"), "--max-new-tokens", "4"]
    kvg_bench.main([*words, "--quantize", "4bit"])
    assert kinds == [True] and runs.load(tmp_path / "run").info["quantize"] == "4bit"
    with pytest.raises(FieldmarkError, match="quantize was '4bit' and now is None"):
        kvg_bench.main(words)
    with pytest.raises(FieldmarkError, match="--quantize needs --engine transformers"):
        kvg_bench.main([*words, "--quantize", "4bit", "--engine", "vllm", "--overwrite"])


def test_a_card_that_is_too_small_keeps_what_was_answered(tmp_path, monkeypatch):
    import torch

    from mllm.inference import generate

    def some(loaded, samples, root, sampling, *, skip, **_):
        yield Completion("a0", TEXTS["a0"], UNREAD, tokens=10, truncated=False)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(generate, "generate", some)
    write_jsonl(tmp_path / "test.jsonl", cases(tmp_path))
    with pytest.raises(FieldmarkError, match="allocate 2.00 GiB. Run the command again with a lower --batch-size"):
        kvg_bench.main(["--samples", str(tmp_path / "test.jsonl"), "--out", str(tmp_path / "run")])
    assert [row.sample_id for row in read_jsonl(tmp_path / "run" / "outputs.jsonl", Completion)] == ["a0"]

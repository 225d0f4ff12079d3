"""The command line, without a model: help, inspect, report, doctor, and errors on one line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from PIL import Image
from typer.testing import CliRunner

from mllm.boxes import Box, Frame
from mllm.cli import __main__, commands
from mllm.errors import FieldmarkError
from mllm.records import Sample, Thing, write_jsonl

RUN = CliRunner()


@pytest.fixture
def file(tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    box = Box(0.1, 0.1, 0.5, 0.5)
    rows = [
        Sample(
            id=f"s{k}", task="ground", image="a.png", size=Frame(60, 40), domain="bird", entity=f"e{k}",
            question="Find it.", boxes=(box,), things=(Thing(f"e{k}", box),), split="test", seen=bool(k),
        )
        for k in range(3)
    ]  # fmt: skip
    write_jsonl(tmp_path / "test.jsonl", rows)
    return tmp_path / "test.jsonl"


def test_help_names_every_command():
    shown = RUN.invoke(__main__.app, ["--help"]).output
    assert len(commands.names()) >= 7
    for name in commands.names():
        assert name.replace("_", "-") in shown
        assert commands.load(name).__doc__, f"{name} says nothing in the help"


def test_help_loads_no_torch():
    code = "import sys, mllm.cli.__main__; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_inspect(file):
    done = RUN.invoke(__main__.app, ["inspect", str(file), "--rows", "1"])
    assert (
        done.exit_code == 0
        and "3 samples on 1 images" in done.output
        and "seen in training: no 1, yes 2" in done.output
    )
    assert '"id": "s0"' in done.output and '"id": "s1"' not in done.output


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"boxes": [[0.5, 0.1, 0.1, 0.5]]}, r"test.jsonl:2: field boxes\[0\]"),
        ({"id": "s0"}, "test.jsonl:2: field id"),
        ({"image": "absent.png"}, "absent.png"),
        ({"size": [40, 60]}, "a.png"),
        ({"colour": "red"}, "test.jsonl:2: unknown field colour"),
    ],
)
def test_inspect_finds_what_is_wrong(file, change, says):
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[1] |= change
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = RUN.invoke(__main__.app, ["inspect", str(file)])
    assert isinstance(done.exception, FieldmarkError)
    with pytest.raises(FieldmarkError, match=says):
        raise done.exception


def test_doctor():
    done = RUN.invoke(__main__.app, ["doctor"])
    for word in ("python", "torch", "transformers", "cores", "GB free"):
        assert word in done.output


def test_report_of_no_benchmark_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mllm.cli", "report", "--runs", f"A={tmp_path}", "--out", str(tmp_path / "r.html")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and done.stderr.startswith("fieldmark: ") and "no benchmark folder" in done.stderr

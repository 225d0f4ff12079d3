"""The command line, without a model: help, completion, inspect, report, doctor, and errors on one line."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from mllm.boxes import Box, Frame
from mllm.cli import commands
from mllm.io.jsonl import write_jsonl
from mllm.records import Sample, Thing
from tests.support.command_line import fieldmark


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


def test_help_names_every_command_and_the_exit_codes():
    visible = fieldmark([]).output
    assert fieldmark(["--help"]).output == visible and len(commands.names()) >= 7
    for name in commands.names():
        assert f"  {name.replace('_', '-')} " in visible
    assert "130 stopped by Ctrl-C" in visible and "--print-completion" in visible


@pytest.mark.parametrize("name", commands.names())
def test_every_command_has_options_and_help(name):
    """The contract of mllm/cli/commands."""
    module = commands.load(name)
    assert dataclasses.is_dataclass(module.Options) and callable(module.command)
    assert re.match(r"[A-Z][^`]+[.]$", module.__doc__.splitlines()[0]), "begin with a sentence that says what it does"
    visible = fieldmark([name.replace("_", "-"), "--help"])
    assert visible.exit_code == 0 and f"usage: fieldmark {name.replace('_', '-')} " in visible.output
    for field in dataclasses.fields(module.Options):
        documented = rf"\n    {field.name}: .*\n    \"\"\"\S" if "Options" not in str(field.type) else ""
        assert re.search(documented, Path(module.__file__).read_text()), f"{name}: {field.name} has no help"


def test_help_loads_no_torch():
    code = (
        "import sys\nfrom mllm.cli.__main__ import fieldmark\nfieldmark(['--help'])\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0


def test_version_completion_and_unknown_commands():
    from mllm import __version__

    assert fieldmark(["--version"]).output == f"fieldmark {__version__}\n"
    assert fieldmark(["chat", "--version"]).output == f"fieldmark chat (fieldmark {__version__})\n"
    for shell in ("bash", "zsh"):
        script = fieldmark(["--print-completion", shell])
        assert script.exit_code == 0 and all(word in script.output for word in ("table-spine", "--gpu-memory", "chat"))
    assert fieldmark(["--print-completion", "dos"]).exit_code == 2
    wrong = fieldmark(["inspekt"])
    assert wrong.exit_code == 2 and wrong.output.startswith("error: unknown command 'inspekt'. Did you mean 'inspect'?")
    wrong = fieldmark(["inspect", "--row", "3", "x"])
    assert wrong.exit_code == 2 and wrong.output == "error: unknown flag --row; did you mean --rows?\n"


def test_inspect(file):
    done = fieldmark(["inspect", str(file), "--rows", "1"])
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
    done = fieldmark(["inspect", str(file)])
    assert done.exit_code == 2 and re.search(f"(?m)^error: .*{says}", done.output)


def test_doctor():
    done = fieldmark(["doctor"])
    for word in ("python", "torch", "transformers", "cores", "GB free"):
        assert word in done.output


def test_report_of_no_benchmark_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mllm.cli", "report", "--runs", f"A={tmp_path}", "--out", str(tmp_path / "r.html")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "not a benchmark folder" in done.stderr

"""The command line that all programs share: flags, defaults, errors, exit codes, old spellings, Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
from tyro.conf import Positional, arg

from mllm.cli import programs
from mllm.cli.options import FolderOptions, GenerationOptions, named_folders
from mllm.cli.programs import Range, parse, run_program, typed_command
from mllm.errors import FieldmarkError


@dataclass(frozen=True)
class Options:
    RENAMED: ClassVar = {"--fresh": "--overwrite", "--room": "--max-new-tokens"}

    samples: Path
    """samples file"""
    sizes: tuple[int, ...] = ()
    share: Annotated[float, Range(0, 1)] = 0.5
    images: bool = True
    write_as: Annotated[str, arg(name="to")] = "html"
    sampling: GenerationOptions = GenerationOptions(max_new_tokens=64)
    folder: FolderOptions = FolderOptions()


@dataclass(frozen=True)
class Asked:
    model: Positional[str]
    image: Positional[tuple[Path, ...]]
    once: str | None = None


def test_flags_are_the_fields_of_all_groups() -> None:
    words = "--samples a.jsonl --sizes 3 5 --sizes 7 --no-images --to md --max_new_tokens 9 --batch-size=2 --overwrite"
    read = parse(Options, words.split())
    assert read == Options(
        Path("a.jsonl"), (3, 5, 7), 0.5, False, "md", GenerationOptions(9, 2), FolderOptions(overwrite=True)
    )
    typed = "python x.py --samples a.jsonl --sizes 3 --sizes 5 --sizes 7 --no-images --to md --max-new-tokens 9"
    assert typed_command("x.py", read, ["overwrite", "batch_size"]) == typed
    assert parse(Options, ["--samples", "a"]).sampling.max_new_tokens == 64


def test_arguments_without_a_flag() -> None:
    assert parse(Asked, "pocket a.png b.png --once wren".split()) == Asked(
        "pocket", (Path("a.png"), Path("b.png")), "wren"
    )
    assert parse(Asked, "pocket -- --odd".split()).image == (Path("--odd"),)
    with pytest.raises(FieldmarkError, match="IMAGE is missing"):
        parse(Asked, ["pocket"])
    with pytest.raises(FieldmarkError, match="missing from .*MODEL"):
        parse(Asked, [])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--samples a --sise 3", "unknown flag --sise; did you mean --sizes[?]"),
        ("--samples a --xyzzy", "unknown flag --xyzzy; see --help"),
        ("--sizes 3", "missing from .*--samples"),
        ("--samples a --sizes three", "--sizes: invalid literal for int.*'three'"),
        ("--samples a --share 2", "--share 2.0: must be from 0 to 1"),
        ("--samples a --batch-size 0", "--batch-size 0: must be at least 1"),
        ("--samples", "missing value for argument '--samples'"),
        ("--samples a b", "unrecognized options: b"),
    ],
)
def test_bad_usage_is_one_line(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run_program(lambda: print(parse(Options, words.split())))
    assert end.value.code == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and said.err.count("\n") == 1 and not said.out
    with pytest.raises(FieldmarkError, match=f"^{message}"):
        parse(Options, words.split())


def test_an_old_spelling_works_and_warns(capsys: pytest.CaptureFixture[str]) -> None:
    read = parse(Options, ["--samples", "a", "--fresh", "--room=7"])
    assert read.folder.overwrite and read.sampling.max_new_tokens == 7
    said = capsys.readouterr().err
    assert "warning: --fresh is now --overwrite" in said and "--room is now --max-new-tokens" in said


def test_version_and_help_end_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    from mllm import __version__

    for flag, visible in (("--version", __version__), ("--help", "--max-new-tokens")):
        with pytest.raises(SystemExit) as end:
            parse(Options, [flag])
        assert not end.value.code and visible in capsys.readouterr().out


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    run_program(lambda: None)
    run_program(lambda: 0)
    with pytest.raises(SystemExit) as end:
        run_program(lambda: 1)
    assert end.value.code == 1 and not capsys.readouterr().err

    def wrong() -> None:
        raise FieldmarkError("photos.csv:3: no such image")

    with pytest.raises(SystemExit) as end:
        run_program(wrong)
    assert end.value.code == 2 and end.value.__suppress_context__
    assert capsys.readouterr().err == "error: photos.csv:3: no such image\n"


def test_ctrl_c_ends_with_130(tmp_path: Path) -> None:
    code = (
        "import signal, time\nfrom mllm.cli.programs import run_program\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in a job in the background
        "def main():\n    print('up', flush=True)\n    time.sleep(60)\nrun_program(main)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "up\n"
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=60)
    assert child.returncode == 130 and said == "stopped; the same command continues\n"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        programs.completion({"make-it": Options, "ask": Asked}, "fieldmark", shell)
    script = capsys.readouterr().out
    assert not end.value.code and all(word in script for word in ("make-it", "--max-new-tokens", "ask", "--once"))


def test_names_of_folders() -> None:
    assert named_folders(["A=x/y", "runs/b", "C=d=e"]) == {"A": "x/y", "b": "runs/b", "C": "d=e"}
    for wrong in (["=x"], ["A="], ["A=x", "A=y"]):
        with pytest.raises(FieldmarkError):
            named_folders(wrong)

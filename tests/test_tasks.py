"""The task pages work to the letter: their files are written, their commands run, in a copy of the tree.

What the machine of the tests lacks (a GPU, weights from the hub, a day) is replaced by what the page itself says under
`text swap`, and by nothing else.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from mllm.data import caption_sources
from mllm.pocket import world
from mllm.pocket.species import species
from mllm.records import load_samples
from mllm.training.preflight.check import check_recipe
from tests.support import stand_ins
from tests.support.pages import ROOT, blocks_of, lines_of, swaps_of

TASKS = ROOT / "docs" / "tasks"
LEFT_BEHIND = shutil.ignore_patterns(".git", ".venv*", "runs", "build", "dist", "__pycache__", ".*_cache", "*.egg-info")


def follow(
    page: Path,
    folder: Path,
    swaps: list[tuple[str, str]] | None = None,
    prepare: Callable[[Path], None] = lambda copy: None,
) -> Path:
    """Do what a page says in a copy of the tree under `folder`, and return the copy.

    A block that holds a file is written, and one that is to be run is run, in the order of the page; what runs beside
    (a server, another node) is started and ended with the page. `prepare` puts in what a reader brings.
    """
    copy = folder / "fieldmark"
    shutil.copytree(ROOT, copy, ignore=LEFT_BEHIND)
    prepare(copy)
    info = swaps_of(page) if swaps is None else swaps
    lines = lines_of(page)
    with ExitStack() as beside:
        for block in blocks_of(page):
            if block.file:
                (copy / block.file).parent.mkdir(parents=True, exist_ok=True)
                (copy / block.file).write_text(block.text, encoding="utf-8")
            last = block.number + block.text.count("\n")
            for line in lines if "run" in block.words else ():
                if block.number < line.number <= last:
                    words = swapped(shlex.join(line.words), info)
                    if "beside" in block.words:
                        beside.enter_context(started(words, copy))
                    else:
                        start(words, copy, str(line))
    return copy


@contextmanager
def started(words: list[str], copy: Path) -> Iterator[None]:
    """Let a command run while the block does, with all processes that it starts."""
    with (copy / f"beside-{Path(words[0]).name}.log").open("ab") as log:
        process = subprocess.Popen(
            words, cwd=copy, env=environment(copy), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=60)


def environment(copy: Path) -> dict[str, str]:
    """What a person has in an activated environment, and nothing of pytest's."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**ours, "PATH": path, "PYTHONPATH": str(copy), "FIELDMARK_CACHE": str(copy / "runs" / "cache")}


def swapped(command: str, swaps: list[tuple[str, str]]) -> list[str]:
    """Replace what the page says is replaced."""
    for before, after in swaps:
        command = command.replace(before, after)
    return shlex.split(command)


def start(words: list[str], copy: Path, what: str) -> None:
    """Run one command in the copy, as a person would in an activated environment."""
    done = subprocess.run(
        words, cwd=copy, env=environment(copy), capture_output=True, text=True, timeout=1200, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{what}\n{shlex.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-4000:]}"


@pytest.mark.ci
def test_one_file_adds_one_thing(tmp_path: Path) -> None:
    copy = follow(TASKS / "one_file.md", tmp_path)
    assert (copy / "runs/trial/pointing/scores.json").is_file()


@pytest.mark.ci
def test_what_one_file_adds_is_well_made(tmp_path: Path) -> None:
    """The examples are held to the house's own rules."""
    pytest.importorskip("ruff", reason="ruff is not installed")
    for block in blocks_of(TASKS / "one_file.md"):
        if block.file:
            file = tmp_path / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "--config", str(ROOT / "pyproject.toml"), str(tmp_path)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_karl_on_eight_gpus(tmp_path: Path) -> None:
    """From photos to both papers' numbers, in small; the addresses of the page are free ports of this machine."""
    page = TASKS / "karl_8_gpus.md"
    ports = [("127.0.0.1:8000", f"127.0.0.1:{(port := free_port())}"), ("--port 8000", f"--port {port}")]
    swaps = [*swaps_of(page), *ports, ("env NODES", f"env PORT={free_port()} NODES")]
    copy = follow(page, tmp_path, swaps, prepare=lambda copy: stand_ins.photos(copy / "photos"))
    for paper in ("karl", "deepperception"):
        for stage in ("sft", "rl"):
            assert (copy / f"runs/kvg_{paper}/{stage}/best/model.safetensors").is_file()
    info = json.loads((copy / "runs/kvg_karl/eval/rl/scores.json").read_text())
    assert info["slices"]["all"]["samples"] == 40 and info["official"]
    rows = load_samples(copy / "runs/kvg/data/train.jsonl")
    assert len(rows) == 24 and all(row.thought and row.provenance["teacher"] == "openai" for row in rows)


@pytest.mark.ci
def test_the_page_of_eight_gpus_tells_what_preflight_says() -> None:
    """Memory and least time of both papers' stages, as they stand in the page's first table."""
    text = (TASKS / "karl_8_gpus.md").read_text(encoding="utf-8")
    for name in ("kvg_karl_qwen3vl_8b", "kvg_deepperception_qwen2vl_7b"):
        info = []
        for stage in ("_sft", ""):
            found = check_recipe(ROOT / "recipes" / f"{name}{stage}.yaml", rows=25_000).findings
            output = "\n".join(line for one in found for line in one.lines)
            gpu = re.search(r"peak ([\d.]+) GiB while \w+, and ([\d.]+) GiB", output)
            hours = re.search(r"no sooner than ([\d.]+) h", output)
            assert gpu and hours
            info.append((f"{float(gpu[1]) + float(gpu[2]):.0f}", f"{float(hours[1]):.1f}"))
        (memory, least), (more, longer) = info
        assert f"{memory}, {more} GiB" in text and f"{least}, {longer} h" in text


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def my_photos(copy: Path) -> None:
    """Thirty kinds of drawn birds, three photos of each in its folder, their boxes, and the marks of each kind.

    Drawn photos of a kind look the same, so that all of them go to one side; thirty kinds leave some for each.
    """
    boxes, marks = [("image", "x1", "y1", "x2", "y2")], [("entity", "mark")]
    for kind in species("bird"):
        folder = copy / "photos" / kind.name.replace(" ", "_")
        folder.mkdir(parents=True)
        marks += [(kind.name, mark) for mark in kind.marks]
        for number in range(3):
            img, box = world.photo(kind, number)
            img.save(folder / f"{number}.png")
            corners = (str(round(side * world.TILE, 2)) for side in (box.x1, box.y1, box.x2, box.y2))
            boxes.append((f"{folder.name}/{number}.png", *corners))
    for name, rows in (("photos/boxes.csv", boxes), ("marks.csv", marks)):
        with (copy / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_my_500_labelled_photos(tmp_path: Path) -> None:
    birds = follow(TASKS / "500_photos.md", tmp_path, prepare=my_photos) / "runs/birds"
    asked = [json.loads((birds / "eval" / run / "scores.json").read_text()) for run in ("base", "cot", "rl")]
    assert len({scores["samples"]["hash"] for scores in asked}) == 1, "base and tuned answer the same questions"
    assert all(scores["slices"]["all"]["samples"] == 4 for scores in asked)
    assert [scores["model"] for scores in asked] == ["pocket", "runs/birds/cot/best", "runs/birds/rl/best"]
    assert "GRPO" in (birds / "compare.html").read_text(encoding="utf-8")
    card = (birds / "whole/README.md").read_text(encoding="utf-8")
    assert "fieldmark merge" in card and "runs/birds/data/train.jsonl" in card
    assert (birds / "whole/model.safetensors").is_file() and list((birds / "data-hub").rglob("*.parquet"))


def my_products(copy: Path) -> None:
    """Drawn scenes in families of look-alikes, each with what five people wrote of it."""
    request = caption_sources.CaptionRequest(out=copy, counts={"train": 60}, family={"train": 5}, level="medium")
    (copy / "products").mkdir()
    for number, sample in enumerate(caption_sources.images("pocket", request)):
        shutil.move(copy / sample.image, copy / f"products/{number:03}.png")
        (copy / f"products/{number:03}.txt").write_text("\n".join(sample.captions), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_captions_for_products_that_look_alike(tmp_path: Path) -> None:
    products = follow(TASKS / "look_alike_captions.md", tmp_path, prepare=my_products) / "runs/products"
    for run in ("base", "rl"):
        info = json.loads((products / "eval" / run / "truematch.json").read_text())
        assert info["scorer"] == "pocket-judge" and info["matches"]["3"], "bags of three were judged"
    assert "tuned" in (products / "compare.html").read_text(encoding="utf-8")
    assert (products / "captions.html").is_file() and (products / "rl/live.html").is_file()

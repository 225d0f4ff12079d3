"""Set-up: make targets, continuous integration, bounded dependencies, exact constraints, no network in tests."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
WANTED = [Requirement(line) for lines in (PROJECT["dependencies"], *EXTRAS.values()) for line in lines]


def exact(file: str) -> dict[str, str]:
    """Return the versions of a constraints file, by canonical name."""
    rows = re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", (ROOT / file).read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in rows}


EXACT, EXACT_WEB = exact("constraints.txt"), exact("constraints-web.txt")
IN_WEB = [*PROJECT["dependencies"], *EXTRAS["web"]]


@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_every_dependency_is_bounded_on_both_sides(wanted: Requirement) -> None:
    operators = {spec.operator for spec in wanted.specifier}
    assert operators == {">=", "<"}, f"{wanted}: give a lower and an upper bound"


@pytest.mark.parametrize("wanted", [w for w in WANTED if w.name not in ("vllm", "gradio")], ids=str)
def test_the_tested_version_lies_within_the_bounds(wanted: Requirement) -> None:
    version = EXACT.get(canonicalize_name(wanted.name))
    assert version, f"constraints.txt lacks {wanted.name}: run `make constraints`"
    assert wanted.specifier.contains(version, prereleases=True)


@pytest.mark.parametrize("wanted", map(Requirement, IN_WEB), ids=str)
def test_the_web_extra_has_tested_versions_too(wanted: Requirement) -> None:
    version = EXACT_WEB[canonicalize_name(wanted.name)]
    assert wanted.specifier.contains(version, prereleases=True)


def test_the_environments_differ_where_gradio_needs_it_only() -> None:
    differing = {name for name in EXACT.keys() & EXACT_WEB.keys() if EXACT[name] != EXACT_WEB[name]}
    assert differing == {"pillow"}, "`make test` runs the page with the other packages of .venv"
    assert int(EXACT["pillow"].split(".")[0]) == 13 and "gradio" not in EXACT


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-web.txt"])
def test_constraints_are_plain(file: str) -> None:
    lines = [line for line in (ROOT / file).read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == len(exact(file)) > 80, "every line is name==version"
    assert not [line for line in lines if "+" in line or "@" in line], "no local builds: any torch build will do"
    assert "vllm" not in EXACT and "fieldmark" not in EXACT
    makefile = (ROOT / "Makefile").read_text()
    assert set(re.findall(r"\btorch==(\S+)", makefile)) == {EXACT[canonicalize_name("torch")]}


def test_make_lists_its_targets() -> None:
    done = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    listed = re.findall(r"^  make ([a-z-]+) +\S", done.stdout, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert set(listed) == set(phony.split())
    assert {"demo", "test", "test-all", "check", "wheel", "table-spine", "pets"} <= set(listed)


def test_continuous_integration_calls_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert text.rstrip().endswith("make test")


def test_the_network_is_closed() -> None:
    with socket.socket() as outside, pytest.raises(RuntimeError, match="tests run offline"):
        outside.connect(("192.0.2.1", 80))  # TEST-NET: belongs to nobody
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_loopback_stays_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), timeout=5):
        pass

"""The loader of every plugin folder: names from files, an error that lists them, Python and YAML files alike."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mllm.errors import UnknownNameError
from mllm.registry import Registry, YamlRegistry


@pytest.fixture(params=["plugins_of_a_test", "nest_of_a_test.plugins"])
def package(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A plugin folder with two Python and two YAML files, at the top or in another package, found as one installed."""
    folder = tmp_path.joinpath(*request.param.split("."))
    folder.mkdir(parents=True)
    for parent in (folder, *folder.parents):
        if parent == tmp_path:
            break
        (parent / "__init__.py").touch()
    (folder / "oak.py").write_text("Tree = 'an oak'\n")
    (folder / "beech.py").write_text("raise RuntimeError('loaded by name only')\n")
    (folder / "daisy.yaml").write_text("white\n")
    (folder / "aster.yaml").write_text("blue\n")
    (folder / "README.md").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    yield request.param
    for name in [name for name in sys.modules if name.startswith(request.param.split(".")[0])]:
        del sys.modules[name]


def test_python_files(package: str) -> None:
    trees = Registry(package, "tree", "Tree")
    assert trees.names() == ("beech", "oak")
    assert trees.load("oak") == "an oak"
    assert Registry(package, "tree").load("oak").Tree == "an oak"
    with pytest.raises(RuntimeError, match="by name only"):
        trees.load("beech")


def test_yaml_files_are_read_once(package: str) -> None:
    files: list[Path] = []

    def read(file: Path) -> list[str]:
        files.append(file)
        return file.read_text(encoding="utf-8").split()

    flowers = YamlRegistry(package, "flower", read)
    assert flowers.names() == ("aster", "daisy") and not files
    assert flowers.load("daisy") == ["white"] and flowers.load("daisy") is flowers.load("daisy")
    assert flowers.load("aster") == ["blue"]
    assert [file.name for file in files] == ["daisy.yaml", "aster.yaml"]


def test_a_yaml_file_that_cannot_be_read_is_tried_again(package: str) -> None:
    def read(file: Path) -> str:
        text = file.read_text(encoding="utf-8")
        if text != "yellow\n":
            raise ValueError(f"{file.name}: {text.strip()}")
        return text

    flowers = YamlRegistry(package, "flower", read)
    with pytest.raises(ValueError, match=r"daisy\.yaml: white"):
        flowers.load("daisy")
    (flowers._folder() / "daisy.yaml").write_text("yellow\n")
    assert flowers.load("daisy") == "yellow\n"


@pytest.mark.parametrize("name", ["oaks", "daisy", "", "../oak", "oak.py"])
def test_an_unknown_python_file(package: str, name: str) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown tree .*Known: beech, oak\.") as error:
        Registry(package, "tree").load(name)
    assert error.value.known == ("beech", "oak")


@pytest.mark.parametrize("name", ["daisies", "oak", "", "../daisy", "daisy.yaml"])
def test_an_unknown_yaml_file(package: str, name: str) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown flower .*Known: aster, daisy\.") as error:
        YamlRegistry(package, "flower", Path.read_text).load(name)
    assert error.value.known == ("aster", "daisy") and error.value.kind == "flower"


def test_a_name_of_a_megabyte_is_not_echoed() -> None:
    assert len(str(UnknownNameError("tree", "x" * 1_000_000, ["oak"]))) < 200

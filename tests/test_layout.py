"""The house stays as it was built: who may import whom, what has which name, and what `import mllm` costs.

Read off the syntax trees, so that imports inside functions count as well and nothing has to be loaded.
"""

from __future__ import annotations

import ast
import functools
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("data_synth", "recipes", "eval")

# From the inside out: a module imports only from lines above its own; within a folder its files may know each other.
RINGS: tuple[tuple[str, ...], ...] = (
    ("errors", "files"),
    ("jsontext",),
    ("boxes", "notation", "cpu", "caches", "gathering", "ledger", "lookalikes", "unpickling"),
    ("rows",),
    ("records", "pictures", "config", "provenance", "cardfiles", "ranking", "embeddings", "collectives"),
    ("captions", "bags", "configfile"),
    ("cider", "details", "corruption"),
    ("abilities", "families", "domains", "composites", "knowledge", "splicing", "splits", "manifest", "stages", "kvg"),
    ("sources", "lineups", "answers", "prompts", "links", "mastery", "parts", "contamination"),
    ("photocheck",),
    ("processors", "quiz", "interop", "phrasing", "agreement", "crew", "pointing", "confusable", "descriptors"),
    ("asking",),
    ("progress", "datacard", "modelcard"),
    ("models", "retrieval", "hubdata", "photostages"),
    ("conversations", "grammar"),
    ("generate",),
    ("writing", "vllm_engine", "merging"),
    ("writers",),
    ("wire", "endpoint"),
    ("serve",),
    ("pocket", "stats"),
    ("teachers", "captioned"),
    ("rewards", "matching", "boosting"),
    ("scores", "captionset"),
    ("questions", "quadrants"),
    ("runs", "difficulty"),
    ("answering",),
    ("report",),
    ("training", "contactsheet"),
    ("preflight",),
    ("pipeline", "fitness"),
    ("demo",),
    ("pets", "spine"),
    ("grounding_table", "captions_table"),
    ("findings",),
    ("chat",),
    ("web",),
    ("commands",),
    ("cli",),
)
RING_OF = {name: ring for ring, names in enumerate(RINGS) for name in names}

# Looks outwards on purpose: a thin entry that is fetched only when someone asks for it by name.
OUTWARDS = {
    ("mllm", "chat"): "the lazy names load, ground and caption",
    ("mllm.sources.pocket", "pocket"): "the source that draws its photos itself",
    ("mllm.models", "pocket"): "the name 'pocket' stands for the committed weights",
    ("mllm.retrieval", "pocket"): "so do the names of the pocket scorer and judge",
}

MODULES = sorted((ROOT / "mllm").rglob("*.py"))
PROGRAM_FILES = sorted(path for folder in PROGRAMS for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a file, parsed once for all that is asked of it."""
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, as full names; `from mllm import boxes` gives `mllm.boxes`."""
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"{path.relative_to(ROOT)}:{node.lineno}: relative import; say `from {node.module} ...` in full"
            )
            found.update(f"{node.module}.{a.name}" if node.module == "mllm" else str(node.module) for a in node.names)
    return found


def room_of(module: str) -> str:
    """The room of a module of ours: `mllm.rewards.iou` -> rewards, `mllm` itself -> the empty name."""
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_inwards(path: Path) -> None:
    module = name_of(path)
    room = room_of(module)
    assert not room or room in RING_OF, f"mllm/{room} has no ring yet: give it one in tests/test_layout.py"
    for target in sorted(imports_of(path)):
        if target == "mllm" or not target.startswith("mllm."):
            continue
        goal = room_of(target)
        if goal == room or goal == "__version__" or (module, goal) in OUTWARDS:
            continue
        assert goal in RING_OF, f"{module} imports {target}, which has no ring in tests/test_layout.py"
        assert room and RING_OF[goal] < RING_OF[room], (
            f"{module} imports {target}: {goal} lies outside {room or 'mllm'}"
        )


@pytest.mark.parametrize("path", MODULES + PROGRAM_FILES, ids=name_of)
def test_only_training_and_recipes_know_trl(path: Path) -> None:
    module = name_of(path)
    knows = {target for target in imports_of(path) if target.split(".")[0] == "trl"}
    assert not knows or module.startswith(("mllm.training", "recipes")), f"{module} imports {sorted(knows)}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_library_never_imports_a_program(path: Path) -> None:
    inner = tuple(f"mllm.{name}" for name in PROGRAMS)
    wrong = {t for t in imports_of(path) if t.split(".")[0] in PROGRAMS or t.startswith(inner)}
    assert not wrong, f"{name_of(path)} imports {sorted(wrong)}: start the program as a subprocess instead"


@pytest.mark.parametrize("path", PROGRAM_FILES, ids=name_of)
def test_programs_import_only_the_library(path: Path) -> None:
    inner = tuple(f"mllm.{name}" for name in PROGRAMS)
    wrong = {t for t in imports_of(path) if t.split(".")[0] in PROGRAMS or t.startswith(inner)}
    assert not wrong, f"{name_of(path)} imports {sorted(wrong)}: programs share through mllm only"


@pytest.mark.parametrize("path", [p for p in PROGRAM_FILES if p.name != "__init__.py"], ids=name_of)
def test_every_program_has_a_main(path: Path) -> None:
    tree = tree_of(path)
    assert any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)
    assert ast.get_docstring(tree), "a program opens by telling its story"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_library_neither_prints_nor_reads_the_command_line(path: Path) -> None:
    if name_of(path).startswith(("mllm.cli", "mllm.commands")):
        return
    tree = tree_of(path)
    printing = [
        n.lineno
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "print"
    ]
    assert not printing, f"{name_of(path)} prints on lines {printing}; use logging"
    assert not imports_of(path) & {"argparse", "typer", "click"}, (
        "command lines are read in mllm/commands and in the programs"
    )


@pytest.mark.parametrize("path", MODULES + PROGRAM_FILES, ids=name_of)
def test_no_exception_is_swallowed(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or (
                isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
            )
            silent = all(isinstance(inner, (ast.Pass, ast.Continue)) for inner in node.body)
            assert node.type is not None, f"{name_of(path)}:{node.lineno}: bare except"
            assert not (broad and silent), f"{name_of(path)}:{node.lineno}: every error is swallowed"


def test_no_room_for_odds_and_ends() -> None:
    names = {p.stem.strip("_") for p in [*MODULES, *PROGRAM_FILES, *(ROOT / "tests").rglob("*.py")]}
    assert not names & {"utils", "util", "helpers", "helper", "misc", "common", "base"}


def test_no_program_is_called_like_a_dependency() -> None:
    """`accelerate launch recipes/x.py` puts recipes/ first on the path: recipes/trl.py would hide the real trl."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    taken = {
        "".join(c for c in line.split(";")[0] if c not in "[]").split(">")[0].lower()
        for line in project["dependencies"]
    }
    assert len(taken) > 15
    assert not {p.stem for p in PROGRAM_FILES} & (taken | {"mllm", "eval", "yaml", "PIL"})


def test_the_packages_list_equals_the_tree() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    tree = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "mllm").rglob("*.py")}
    tree |= {"mllm." + ".".join(p.parent.relative_to(ROOT).parts) for p in PROGRAM_FILES}
    assert sorted(tree) == setuptools["packages"]
    for package in setuptools["packages"]:
        folder = ROOT / setuptools["package-dir"].get(package, package.replace(".", "/"))
        assert (folder / "__init__.py").is_file(), (
            f"{folder} needs an __init__.py, or an editable install cannot find it"
        )


def test_import_mllm_loads_nothing_heavy(run) -> None:
    heavy = "{'torch', 'transformers', 'trl', 'peft', 'datasets', 'numpy', 'scipy', 'PIL', 'pydantic', 'typer', 'rich'}"
    code = f"import sys, mllm; print(mllm.__version__, dir(mllm).count('ground'), sorted({heavy} & set(sys.modules)))"
    assert run("-c", code, check=True).stdout.split(maxsplit=2)[1:] == ["1", "[]\n"]


def test_the_nouns_load_no_torch(run) -> None:
    rooms = (
        "records",
        "config",
        "domains",
        "sources",
        "teachers",
        "families",
        "answers",
        "prompts",
        "rewards",
        "stats",
    )
    loop = "import importlib, sys\nfor room in sys.argv[1:]:\n    importlib.import_module(f'mllm.{room}')\n"
    code = loop + "    print(room, sorted({'torch', 'transformers', 'trl'} & set(sys.modules)))"
    assert run("-c", code, *rooms, check=True).stdout.splitlines() == [f"{room} []" for room in rooms]


def test_an_unknown_name_of_mllm_is_an_attribute_error() -> None:
    import mllm

    with pytest.raises(AttributeError, match="no attribute 'grond'"):
        mllm.grond  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]

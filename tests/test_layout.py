"""The house stays as it was built: who may import whom, what has which name, and what `import mllm` costs.

Read off the syntax trees, so that imports inside functions count as well and nothing has to be loaded.
"""

from __future__ import annotations

import ast
import functools
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("data_synth", "recipes", "eval")

MOST_PACKAGES, MOST_MODULES = 13, 8
"""How many packages and loose modules `mllm/` may hold; the pocket world's folder counts as one of the packages."""
LONGEST_FILE, LONGEST_FUNCTION, MOST_PARAMETERS = 300, 60, 8
"""Limits in lines, and in parameters besides self."""
MOST_LINES = 27_000
"""Lines of Python in `mllm/` outside of PLUGINS: the whole when the layout was settled, which had 26,851."""
PLUGINS = (
    "cli/commands", "rewards", "models/families", "prompting/tasks", "synthesis/teachers", "synthesis/captioning",
    "data/sources", "data/caption_sources", "data/formats",
)  # fmt: skip
"""Folders in which one file adds one thing."""
LAYERS = [row.split("#")[0].split() for row in (ROOT / "tests" / "layers.txt").read_text().splitlines()]
LAYER_OF = {name: layer for layer, names in enumerate(filter(None, LAYERS)) for name in names}

MODULES = sorted((ROOT / "mllm").rglob("*.py"))
PROGRAM_FILES = sorted(path for folder in PROGRAMS for path in (ROOT / folder).rglob("*.py"))
ALL_FILES = [*MODULES, *PROGRAM_FILES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "bench").rglob("*.py"))]


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


def is_program(module: str) -> bool:
    """Whether a module is one of the programs, also as it is nested in the installed package."""
    parts = module.split(".")
    return parts[0] in PROGRAMS or (parts[0] == "mllm" and parts[1:2] != [] and parts[1] in PROGRAMS)


def package_of(module: str) -> str:
    """Return the package or loose module: `mllm.rewards.iou` -> rewards, `mllm` itself -> the empty name."""
    return module.split(".")[1] if "." in module else ""


def test_imports_point_downwards() -> None:
    """`mllm/__init__.py` alone may look up: it fetches load, ground and caption when they are first used."""
    for path in [path for path in MODULES if name_of(path) != "mllm"]:
        module = name_of(path)
        own = package_of(module)
        assert own in LAYER_OF, f"{module} has no layer: give {own} a place in tests/layers.txt"
        for target in sorted(imports_of(path)):
            other = package_of(target)
            if not target.startswith("mllm.") or other in (own, "__version__"):
                continue
            assert other in LAYER_OF, f"{module} imports {target}, which has no place in tests/layers.txt"
            assert LAYER_OF[other] < LAYER_OF[own], f"{module} imports {target}: {other} is not below {own}"


def test_the_library_stays_findable() -> None:
    """Few packages and few loose modules, each with a place in the import order."""
    packages = {path.parent.name for path in MODULES if path.parent.parent == ROOT / "mllm"}
    loose = {path.stem for path in MODULES if path.parent == ROOT / "mllm"} - {"__init__"}
    assert len(packages) <= MOST_PACKAGES, sorted(packages)
    assert len(loose) <= MOST_MODULES, sorted(loose)
    assert packages | loose == set(LAYER_OF)


def test_files_and_functions_stay_short() -> None:
    for path in ALL_FILES:
        where = path.relative_to(ROOT)
        lines = path.read_text(encoding="utf-8").count("\n")
        assert lines <= LONGEST_FILE, f"{where} has {lines} lines: split it by subject"
        for node in ast.walk(tree_of(path)) if where.parts[0] != "tests" else ():
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                assert length <= LONGEST_FUNCTION, f"{where}:{node.lineno} {node.name} has {length} lines"
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                count = sum(argument.arg not in ("self", "cls") for argument in arguments)
                assert count <= MOST_PARAMETERS, f"{where}:{node.lineno} {node.name}: {count} parameters; group some"


def test_the_library_stays_small() -> None:
    folders = [ROOT / "mllm" / name for name in PLUGINS]
    assert all((folder / "__init__.py").is_file() for folder in folders)
    core = [path for path in MODULES if path.parent not in folders]
    lines = sum(path.read_text(encoding="utf-8").count("\n") for path in core)
    assert lines <= MOST_LINES, f"mllm/ has {lines} lines beside its plugins: what is added has to make room first"


def test_only_training_and_recipes_know_trl() -> None:
    for path in MODULES + PROGRAM_FILES:
        module = name_of(path)
        knows = {target for target in imports_of(path) if target.split(".")[0] == "trl"}
        assert not knows or module.startswith(("mllm.training", "recipes")), f"{module} imports {sorted(knows)}"


def test_the_library_never_imports_a_program() -> None:
    for path in MODULES:
        wrong = {target for target in imports_of(path) if is_program(target)}
        assert not wrong, f"{name_of(path)} imports {sorted(wrong)}: start the program as a subprocess instead"


def test_programs_import_only_the_library() -> None:
    for path in PROGRAM_FILES:
        wrong = {target for target in imports_of(path) if is_program(target)}
        assert not wrong, f"{name_of(path)} imports {sorted(wrong)}: programs share through mllm only"


def test_every_program_has_a_main() -> None:
    for path in [p for p in PROGRAM_FILES if p.name != "__init__.py"]:
        tree = tree_of(path)
        has_main = any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)
        assert has_main, f"{name_of(path)} has no function main"
        assert ast.get_docstring(tree), f"{name_of(path)} has no docstring"


def test_the_library_neither_prints_nor_reads_the_command_line() -> None:
    for path in MODULES:
        if name_of(path).startswith(("mllm.cli", "mllm.cli.programs")):
            continue
        tree = tree_of(path)
        printing = [
            n.lineno
            for n in ast.walk(tree)
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "print"
        ]
        assert not printing, f"{name_of(path)} prints on lines {printing}; use logging"
        assert not imports_of(path) & {"argparse", "typer", "click", "tyro"}, (
            f"{name_of(path)}: command lines are read in mllm/cli and in the programs"
        )


def test_no_exception_is_swallowed() -> None:
    for path in MODULES + PROGRAM_FILES:
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
    heavy = "{'torch', 'transformers', 'trl', 'peft', 'datasets', 'numpy', 'scipy', 'PIL', 'pydantic', 'tyro', 'rich'}"
    code = f"import sys, mllm; print(mllm.__version__, dir(mllm).count('ground'), sorted({heavy} & set(sys.modules)))"
    assert run("-c", code, check=True).stdout.split(maxsplit=2)[1:] == ["1", "[]\n"]


def test_the_nouns_load_no_torch(run) -> None:
    rooms = (
        "records",
        "config",
        "knowledge.domains",
        "data.sources",
        "synthesis.teachers",
        "models.families",
        "prompting.answers",
        "prompting.prompts",
        "rewards",
        "metrics.stats",
    )
    loop = "import importlib, sys\nfor room in sys.argv[1:]:\n    importlib.import_module(f'mllm.{room}')\n"
    code = loop + "    print(room, sorted({'torch', 'transformers', 'trl'} & set(sys.modules)))"
    assert run("-c", code, *rooms, check=True).stdout.splitlines() == [f"{space} []" for space in rooms]


def test_an_unknown_name_of_mllm_is_an_attribute_error() -> None:
    import mllm

    with pytest.raises(AttributeError, match="no attribute 'grond'"):
        mllm.grond  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]

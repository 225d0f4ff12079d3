"""Write the import order and the list of all files, one phrase a file, into docs/architecture.md.

    python .ci/tree.py            # rewrite the page between its markers (`make docs` does this first)
    python .ci/tree.py --check    # exit 1 if the page is out of date

A Python file's phrase is the first sentence of its docstring, any other file's the first sentence of its leading
comment. Empty `__init__.py` files have none, so the phrases of packages stand below, in `FOLDERS`.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
TREE = "<!-- tree: written by .ci/tree.py -->", "<!-- /tree -->"
ORDER = "<!-- layers: written by .ci/tree.py -->", "<!-- /layers -->"
WIDTH = 118
FOLDERS = {
    "mllm": "The library. `import mllm` loads no torch.",
    "mllm/io": "Files, strict JSON, images, drawing, provenance.",
    "mllm/knowledge": "What is known of each entity: cards, look-alikes, mastery, domains.",
    "mllm/models": "Checkpoints, processors, encoders, and how each model family writes boxes.",
    "mllm/prompting": "How a model is asked and how its text is read.",
    "mllm/metrics": "Measures and intervals that rewards, benchmarks and data share.",
    "mllm/pocket": "The built-in drawn world, its model and its weights.",
    "mllm/data": "Data sets on disk: reading, checking, splitting, converting, publishing.",
    "mllm/inference": "Asking a model: generation, batching, vLLM, server, client, web page.",
    "mllm/synthesis": "Making data: teachers, line-ups, composites, captions. The library of `data_synth/`.",
    "mllm/rewards": "One reward a file.",
    "mllm/evaluation": "Benchmark runs, scores and reports. The library of `eval/`.",
    "mllm/training": "What joins Fieldmark to TRL's trainers. The library of `recipes/`.",
    "mllm/cli": "The `fieldmark` command, its subcommands, and the experiments behind `make demo` and `make table-*`.",
    "data_synth": "Programs that make data. Each resumes stage by stage.",
    "recipes": "Programs that train, started with `accelerate launch`, and their configurations.",
    "eval": "Benchmarks.",
    "accelerate_configs": "Machines, as accelerate configurations.",
    "bench": "Timings behind the claims of speed, and tables of what published scorers give.",
    ".ci": "What continuous integration and the documentation run.",
}
"""Folder -> phrase, in the order of the page. Deeper folders are listed with the folder above them."""
SUFFIXES = {".py", ".yaml", ".sh"}
SKIPPED = {"__pycache__", "weights"}


def phrase(path: Path) -> str:
    """Return the first sentence that a file says about itself, without its full stop; empty if it says nothing."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        about = ast.get_docstring(ast.parse(text)) or ""
    else:
        comment = re.match(r"(?:#(?:!|SBATCH).*\n)*((?:#.*\n)*)", text)
        about = re.sub(r"^# ?", "", comment[1] if comment else "", flags=re.MULTILINE).strip()
    paragraph = " ".join(re.split(r"\n(?=\s)", about)[0].split())  # up to an empty or an indented line
    return re.split(r"(?<=[.?!]) (?=[A-Z`])", paragraph, maxsplit=1)[0].rstrip(".:")


def files(folder: str) -> list[Path]:
    """Return a folder's files that have a phrase, deeper folders after the files beside them.

    Folders with a line of their own in `FOLDERS` are left to that line, and empty `__init__.py` files are left out.
    """
    top = ROOT / folder
    found = [
        path
        for path in top.rglob("*")
        if (path.suffix in SUFFIXES or path.name == "run")
        and path.is_file()
        and not SKIPPED & set(path.relative_to(top).parts)
        and owner(path) == folder
        and (path.name != "__init__.py" or phrase(path))
    ]
    return sorted(found, key=lambda path: (path.parent.relative_to(top).parts, path.name))


def owner(path: Path) -> str:
    """Return the deepest folder of `FOLDERS` that holds a file."""
    parents = (parent.relative_to(ROOT).as_posix() for parent in path.parents if parent.is_relative_to(ROOT))
    return next((parent for parent in parents if parent in FOLDERS), "")


def lines() -> Iterator[str]:
    """Yield the lines between the markers."""
    for folder, about in FOLDERS.items():
        yield from (f"### {folder}/", "", *wrapped(about), "")
        for path in files(folder):
            name = path.relative_to(ROOT / folder).as_posix()
            yield from wrapped(f"- `{name}`: {phrase(path)}", "  ")
        yield ""


def wrapped(text: str, indent: str = "") -> list[str]:
    """Wrap one paragraph; words are never broken."""
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def order() -> Iterator[str]:
    """Yield the import order, lowest first, as a block."""
    rows = (ROOT / "tests" / "layers.txt").read_text(encoding="utf-8").splitlines()
    yield from ("```text", *(row for row in rows if row and not row.startswith("#")), "```", "")


def page(text: str) -> str:
    """Return the page with both lists between their markers."""
    for (begin, end), written in ((ORDER, order()), (TREE, lines())):
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n" + "\n".join(written) + f"\n{end}{rest.split(end)[1]}"
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 if the page is out of date, and change nothing")
    check = parser.parse_args().check
    old = PAGE.read_text(encoding="utf-8")
    new = page(old)
    if check and new != old:
        print("docs/architecture.md is out of date: run `make tree`", file=sys.stderr)
        return 1
    if not check:
        PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

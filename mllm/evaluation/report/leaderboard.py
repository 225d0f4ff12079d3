"""Benchmark runs as a leaderboard, best first, in Markdown, LaTeX or json; runs on different samples are refused.

Scores of boxes are recomputed from the outputs; captions have the scores that eval/truematch.py wrote.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mllm.errors import FieldmarkError
from mllm.evaluation import runs, scores
from mllm.evaluation.report import caption_bags
from mllm.evaluation.runs import BenchmarkRun
from mllm.io import tables

FORMATS = ("markdown", "latex", "json")
HEAD = ("model", "style", "n", "Acc@0.5", "95 %", "IoU", "unreadable", "chance")
_LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--",
})  # fmt: skip


def rows(named: Mapping[str, str | Path], part: str = "all") -> list[dict[str, Any]]:
    """Measure each run on one slice (`all`, `unseen entities`, `domain bird`, ...); best Acc@0.5 first.

    Raises `FieldmarkError`: no run, a folder without a run, an unknown slice, or runs that answered different samples.
    """
    if not named:
        raise FieldmarkError("a leaderboard needs a run: the --out folder of eval/kvg_bench.py")
    loaded = {name: runs.load(folder) for name, folder in named.items()}
    _check_same(loaded)
    table = []
    for name, run in loaded.items():
        parts = scores.slices(run.cases)
        if part not in parts:
            raise FieldmarkError(f"{run.folder}: no slice {part!r}; it has {', '.join(parts)}")
        about = {key: run.info.get(key) for key in ("model", "style", "weights", "commit", "benchmark", "version")}
        table.append({"name": name, "slice": part, **about, **scores.measure(parts[part])})
    return sorted(table, key=lambda row: -row["acc"]["value"])


def write(named: Mapping[str, str | Path], part: str, kind: str) -> str:
    """Measure runs, of boxes or of captions, and write their table; `part` is a slice of the samples of boxes.

    Raises `FieldmarkError`: as `rows` and `caption_bags.leaderboard`; runs of both kinds; an unknown format; a slice of
    captions.
    """
    of_captions = [name for name, folder in named.items() if caption_bags.has_scores(folder)]
    if not of_captions:
        return text(rows(named, part), kind)
    if others := [name for name in named if name not in of_captions]:
        raise FieldmarkError(f"{of_captions[0]} holds captions, {others[0]} does not; use a table for each kind")
    if part != "all":
        raise FieldmarkError(f"captions are measured in bags and have no slices; leave out --slice {part}")
    table, lines = caption_bags.leaderboard(named)
    return text(table, kind, lines)


def text(table: list[dict[str, Any]], kind: str, lines: Sequence[Sequence[str]] | None = None) -> str:
    """Write a table as `markdown`, `latex` (booktabs) or `json`.

    `lines` are its head and cells, if they differ from those of boxes.
    """
    if kind not in FORMATS:
        raise FieldmarkError(f"unknown format {kind!r}; known: {', '.join(FORMATS)}")
    if kind == "json":
        return json.dumps(table, indent=2, ensure_ascii=False, allow_nan=False)
    lines = lines or [HEAD, *(_cells(row) for row in table)]
    if kind == "markdown":
        return tables.markdown(lines)
    body = [" & ".join(cell.translate(_LATEX) for cell in line) + r" \\" for line in lines]
    columns = "ll" + "r" * (len(lines[0]) - 2)
    head = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", body[0], r"\midrule"]
    return "\n".join([*head, *body[1:], r"\bottomrule", r"\end{tabular}"])


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    acc, *others = map(tables.percent, (row["acc"]["value"], row["iou"]["value"], row["unreadable"], row["chance"]))
    return row["name"], str(row["style"] or "–"), str(row["samples"]), acc, tables.interval(row["acc"]), *others


def _check_same(loaded: Mapping[str, BenchmarkRun]) -> None:
    first, *others = loaded.items()
    asked = {case.sample.id: case.sample.boxes for case in first[1].cases}
    for name, run in others:
        if {case.sample.id: case.sample.boxes for case in run.cases} != asked:
            problem = "answered different samples: their scores cannot be compared in one table"
            raise FieldmarkError(f"{name} and {first[0]} {problem}")

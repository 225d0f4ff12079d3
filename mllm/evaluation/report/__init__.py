"""One report of several benchmark runs: a self-contained HTML page, and the same numbers as Markdown and as json.

Styles, curves (SVG) and images (data URIs) are inside the page. All model text is escaped.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mllm.boxes import Box, Frame
from mllm.errors import FieldmarkError
from mllm.evaluation import kvg_published, runs, scores
from mllm.evaluation.report import caption_bags, curves, summary
from mllm.evaluation.report.pages import compared, render, shortened
from mllm.evaluation.runs import BenchmarkRun
from mllm.evaluation.scores import Case
from mllm.io import provenance, tables
from mllm.io.drawing import data_uri
from mllm.io.files import atomic_write
from mllm.io.images import open_image
from mllm.metrics import reasoning

GALLERY = 10
BEFORE_AFTER = 3
SETTINGS = ("model", "weights", "style", "samples", "generation", "commit", "versions", "benchmark", "version")
TEXT_LIMIT = 4000
"""Maximum number of characters shown of one model text."""


def build(
    named: Mapping[str, str | Path],
    *,
    logs: Mapping[str, str | Path] | None = None,
    captions: Mapping[str, str | Path] | None = None,
    title: str = "",
    gallery: int = GALLERY,
    against_first: bool = False,
) -> dict[str, Any]:
    """Measure runs and gather everything that a report shows, as plain data.

    Args:
        named: benchmark folders by their name in the report, in the order of the report.
        logs: training folders (or log.jsonl files) by name, for the learning curves.
        captions: folders of eval/captions.py that hold the truematch.json of eval/truematch.py, by name.
        title: heading of the page.
        gallery: number of samples to show with images.
        against_first: compare each run with the first, not with the one before it, and show the images that one run
            answers right and another wrong. `named` may then be empty.

    Raises `FieldmarkError`: no run, or a folder that is not a benchmark run.
    """
    if not named and not (against_first and (logs or captions)):
        raise FieldmarkError("a report needs a run: --runs NAME=FOLDER, FOLDER being the --out of eval/kvg_bench.py")
    loaded = {name: runs.load(folder) for name, folder in named.items()}
    score_tables = {name: scores.table(run.cases) for name, run in loaded.items()}
    main, each = _slices(list(score_tables.values())) if score_tables else ([], [])
    differences = _differences(loaded, main, against_first=against_first)
    shown = disagreements(loaded.values()) if against_first else mixed([*loaded.values()][-1].cases)
    return {
        "title": title or "Fieldmark report",
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "runs": [
            {"name": name, "folder": str(run.folder), **{key: run.info.get(key) for key in SETTINGS}, **table}
            for (name, run), table in zip(loaded.items(), score_tables.values(), strict=True)
        ],
        "slices": main,
        "domains": each,
        "differences": differences,
        "summary": [] if against_first else summary.sentences(score_tables, differences),
        "before_after": None if against_first else _before_after(loaded),
        "against_first": against_first,
        "links": _steps(score_tables),
        "curves": curves.panels({name: curves.read_log(path) for name, path in (logs or {}).items()}),
        "series": list(logs or {}),
        "gallery": _gallery(loaded, shown[:gallery]),
        "captions": caption_bags.build(captions, against_first=against_first) if captions else None,
        "commit": provenance.git_commit(),
        "versions": provenance.versions(),
    }


def disagreements(runs: Iterable[BenchmarkRun]) -> list[Case]:
    """Return the questions that one run answers right and another wrong, as the first run answered them.

    Questions that the first run has right and those it has wrong alternate, over all domains.
    """
    answered: dict[str, list[Case]] = {}
    for run in runs:
        for case in run.cases:
            answered.setdefault(case.sample.id, []).append(case)
    return mixed([each[0] for each in answered.values() if len({case.hit for case in each}) > 1])


def mixed(cases: Sequence[Case]) -> list[Case]:
    """Order cases so that every beginning of the list has hits and misses, seen and unseen, and many domains."""
    kinds: dict[tuple[bool, str], list[Case]] = {}
    for case in cases:
        kinds.setdefault((case.hit, case.sample.domain), []).append(case)
    keys = sorted(kinds, key=lambda key: kvg_published.domain_order(key[1]))
    hits, misses = ([kinds[key] for key in keys if key[0] == hit] for hit in (True, False))
    half = len(misses) // 2
    misses = misses[half:] + misses[:half]  # so that neighbouring hits and misses come from other domains
    mixed: list[Case] = []
    for depth in range(max((len(part) for part in kinds.values()), default=0)):
        lanes = [[part[depth] for part in parts if depth < len(part)] for parts in (hits, misses)]
        for k in range(max(map(len, lanes))):
            mixed += [lane[k] for lane in lanes if k < len(lane)]
    return mixed


def write(report: Mapping[str, Any], out: str | Path) -> list[Path]:
    """Write the report as `out` (html), .md and .json; return the three files."""
    out = Path(out)
    files = [out.with_suffix(".html"), out.with_suffix(".md"), out.with_suffix(".json")]
    plain = {key: value for key, value in report.items() if key not in ("gallery", "curves", "before_after")}
    if captions := plain["captions"]:
        plain["captions"] = {key: value for key, value in captions.items() if key != "bags"}
    texts = (html(report), markdown(report), json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    for path, text in zip(files, texts, strict=True):
        with atomic_write(path) as file:
            file.write(text)
    return files


def html(report: Mapping[str, Any]) -> str:
    """Write the page. Everything that comes from models or files is escaped."""
    return render("page.html.jinja", **report)


def markdown(report: Mapping[str, Any]) -> str:
    """Write the tables as Markdown."""
    rows = [("run", *report["slices"])]
    for run in report["runs"]:
        parts_of_run = [run["slices"][name] for name in report["slices"]]
        cells = (f"{tables.percent_interval(part['acc'])}, n={part['samples']}" for part in parts_of_run)
        rows.append((run["name"], *cells))
    parts = [f"# {report['title']}", *([" ".join(report["summary"])] if report["summary"] else [])]
    if report["runs"]:
        parts += ["Acc@0.5 in %, 95 % bootstrap interval over images, number of samples.", tables.markdown(rows)]
    if report["differences"]:
        head = "## Paired differences" + (" from the first run" if report["against_first"] else "")
        parts += [head, "\n".join(f"- {row['sentence']}" for row in report["differences"])]
    if report["links"]:
        table = [("step", *(run["name"] for run in report["runs"]))]
        for row in report["links"]:
            table.append((row["name"], *(_share(cell) for cell in row["cells"])))
        parts += ["## Where the reasoning holds, % (of n)", tables.markdown(table)]
    if report["captions"]:
        parts += ["## Captions among look-alikes", caption_bags.markdown(report["captions"])]
    return "\n\n".join(parts) + "\n"


def _share(cell: Mapping[str, Any] | None) -> str:
    return tables.MISSING if cell is None else f"{tables.percent(cell['share'])} ({cell['of']})"


def _slices(tables: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Return the slices that every run has: those that get a column, and the single domains."""
    first, *others = (table["slices"] for table in tables)
    names = [name for name in first if all(name in other for other in others)]
    whole = first["all"]["samples"]
    main = [name for name in names if not name.startswith("domain ")]
    main = [name for name in main if name == "all" or first[name]["samples"] < whole]  # leave out those equal to all
    return main, [name for name in names if name.startswith("domain ")]


def _differences(
    loaded: Mapping[str, BenchmarkRun], slices: Sequence[str], *, against_first: bool
) -> list[dict[str, Any]]:
    """Compare each run with the one before it, or the first, in sentences that the intervals support."""
    rows: list[dict[str, Any]] = []
    columns = [name for name in slices if not (name.endswith(" domains") and "seen entities" in slices)]
    for before, after in compared(list(loaded), against_first=against_first):
        a, b = loaded[before].cases, loaded[after].cases
        if {case.sample.id for case in a} != {case.sample.id for case in b}:
            sentence = f"{before} and {after} answered different samples, so their difference is not measured."
            rows.append({"a": before, "b": after, "slice": "", "acc": None, "sentence": sentence})
            continue
        for name, row in scores.compare(a, b).items():
            if name in columns:
                sentence = scores.ordering(before, after, name, row["acc"])
                rows.append({"a": before, "b": after, "slice": name, **row, "sentence": sentence})
    return rows


def _steps(tables: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each reasoning step with a cell for each run (None if its thoughts have another form)."""
    columns = []
    for table in tables.values():
        rows = {row["name"]: row for row in table["links"].get("all", [])}
        columns.append(rows if rows and rows["form"]["right"] else None)
    if not any(columns):
        return []
    return [
        {"name": name, "meaning": meaning, "cells": [rows[name] if rows else None for rows in columns]}
        for name, meaning in reasoning.STEPS.items()
    ]


def _before_after(loaded: Mapping[str, BenchmarkRun]) -> dict[str, Any] | None:
    """Return questions that the last run answers right and the one before it wrong, with both answers."""
    if len(loaded) < 2:
        return None
    before, after = list(loaded)[-2:]
    pairs = summary.changed(loaded[before].cases, loaded[after].cases)
    gained = [new for old, new in pairs if not old.hit]
    shown = _gallery({name: loaded[name] for name in (before, after)}, mixed(gained)[:BEFORE_AFTER])
    return {"gained": len(gained), "lost": len(pairs) - len(gained), "cases": shown, "before": before, "after": after}


def _gallery(loaded: Mapping[str, BenchmarkRun], cases: Sequence[Case]) -> list[dict[str, Any]]:
    answers = {name: {case.sample.id: case for case in run.cases} for name, run in loaded.items()}
    shown = []
    for case in cases:
        asked = next(run for name, run in loaded.items() if answers[name].get(case.sample.id) is case)
        image = open_image(asked.image(case))
        found = {name: table[case.sample.id] for name, table in answers.items() if case.sample.id in table}
        shown.append(
            {
                **{name: getattr(case.sample, name) for name in ("id", "domain", "entity", "question", "seen")},
                "gold": _rectangle(case.sample.boxes[0] if case.sample.boxes else None, image.size),
                "width": image.width,
                "height": image.height,
                "uri": data_uri(image),
                "answers": [_answer(name, answered, image.size) for name, answered in found.items()],
            }
        )
    return shown


def _answer(name: str, case: Case, size: tuple[int, int]) -> dict[str, Any]:
    return {
        "name": name,
        "hit": case.hit,
        "iou": case.iou,
        "problem": case.completion.answer.problem,
        "text": shortened(case.completion.text, TEXT_LIMIT),
        "rectangle": _rectangle(case.completion.answer.box, size),
    }


def _rectangle(box: Box | None, size: tuple[int, int]) -> dict[str, float] | None:
    if box is None:
        return None
    x1, y1, x2, y2 = box.to_xyxy(Frame(*size))
    return {"x": round(x1, 1), "y": round(y1, 1), "width": round(x2 - x1, 1), "height": round(y2 - y1, 1)}

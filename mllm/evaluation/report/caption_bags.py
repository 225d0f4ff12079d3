"""Captions in a report: R@1 within bags of look-alikes, what stands beside it, and bags to look at."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, FiniteFloat

from mllm.captions import caption_of
from mllm.errors import FieldmarkError
from mllm.evaluation import runs, scores
from mllm.io import strict_json
from mllm.io.drawing import data_uri
from mllm.io.images import open_image
from mllm.metrics import stats
from mllm.records import Sample, image_path

SCORES = "truematch.json"
BAGS = 6
"""How many bags are shown."""
SIDE = 224


class _Share(BaseModel):
    value: FiniteFloat
    low: FiniteFloat | None
    high: FiniteFloat | None


class _Size(BaseModel):
    r1: _Share
    chance: FiniteFloat


class _Match(BaseModel):
    bag: str = Field(pattern="^[0-9]{1,12}$")
    image: str
    found: str
    hit: FiniteFloat


class _Text(BaseModel):
    words: FiniteFloat
    precision: _Share | None = None
    recall: _Share | None = None


class _Table(BaseModel):
    """What a page needs of truematch.json."""

    scorer: str
    late: bool = False
    sizes: dict[Annotated[str, Field(pattern="^[0-9]{1,3}$")], _Size] = Field(min_length=1)
    matches: dict[str, list[_Match]]
    text: _Text


@dataclass(frozen=True, slots=True)
class Told:
    """One model's captions and what became of them: `table` is what eval/truematch.py wrote."""

    folder: Path
    table: Mapping[str, Any]
    samples: Mapping[str, Sample]
    captions: Mapping[str, str]

    @property
    def judge(self) -> str:
        """Who looked for the images, and how."""
        return self.table["scorer"] + (", word by word" if self.table.get("late") else "")

    def matches(self, size: str) -> dict[tuple[str, str], Mapping[str, Any]]:
        """Matches in bags of a size, by (bag, image)."""
        return {(row["bag"], row["image"]): row for row in self.table["matches"][size]}


def load(folder: str | Path) -> Told:
    """Read a folder of eval/captions.py in which eval/truematch.py left its scores.

    Raises:
        FieldmarkError: files are missing or broken, or images without a caption.
    """
    folder = Path(folder)
    file = folder / SCORES
    if not file.is_file():
        raise FieldmarkError(f"{file}: no such file; `python eval/truematch.py ... --out {file}` writes it")
    table = strict_json.read(file, dict[str, Any])
    read = strict_json.parsed(table, _Table, f"{file}: ")
    _, samples, rows = runs.read_whole(folder)
    _check(read, {one.id for one in samples}, file)
    return Told(folder, table, {one.id: one for one in samples}, {key: caption_of(row) for key, row in rows.items()})


def _check(table: _Table, known: Collection[str], file: Path) -> None:
    """Refuse matches of other samples than the folder's, and retrieved images that are in another bag."""
    for size in table.sizes:
        members: dict[str, set[str]] = {}
        for match in table.matches.get(size, ()):
            members.setdefault(match.bag, set()).add(match.image)
        if not members:
            raise FieldmarkError(f"{file}: field matches.{size}: no match, though there are scores of this size")
        for number, match in enumerate(table.matches[size]):
            where = f"{file}: field matches.{size}[{number}]"
            if match.image not in known:
                raise FieldmarkError(f"{where}.image: no sample {match.image!r} in samples.jsonl beside it")
            if match.found not in members[match.bag]:
                raise FieldmarkError(f"{where}.found: {match.found!r} is no image of bag {match.bag}")


def is_told(folder: str | Path) -> bool:
    """Whether a folder holds captions and what became of them."""
    return (Path(folder) / SCORES).is_file() and (Path(folder) / "outputs.jsonl").is_file()


def measured(named: Mapping[str, str | Path]) -> dict[str, Told]:
    """Read runs that belong into one table.

    Raises:
        FieldmarkError: as `load`; runs that were measured in other bags, or by another judge.
    """
    told = {name: load(folder) for name, folder in named.items()}
    first = next(iter(told.values()))
    for name, one in told.items():
        if {size: set(one.matches(size)) for size in one.table["sizes"]} != {
            size: set(first.matches(size)) for size in first.table["sizes"]
        }:
            raise FieldmarkError(f"{one.folder}: {name} was measured in other bags than {next(iter(told))}")
        if one.judge != first.judge:
            raise FieldmarkError(f"{one.folder}: {name} was judged by {one.judge}, {next(iter(told))} by {first.judge}")
    return told


def build(named: Mapping[str, str | Path], *, against_first: bool = False) -> dict[str, Any]:
    """Gather all that the page shows of captions, as plain data; raises what `measured` raises.

    Each run is compared with the one before it, or with the first.
    """
    told = measured(named)
    first = next(iter(told.values()))
    sizes = sorted(first.table["sizes"], key=int)
    rows = [
        {
            "name": name,
            "scorer": one.judge,
            "sizes": {size: one.table["sizes"][size] for size in sizes},
            "text": one.table["text"],
        }
        for name, one in told.items()
    ]
    differences = _differences(told, sizes, against_first=against_first)
    return {"sizes": sizes, "runs": rows, "differences": differences, "bags": _bags(told, sizes[0])}


def _differences(told: Mapping[str, Told], sizes: Sequence[str], *, against_first: bool) -> list[dict[str, Any]]:
    """Compare R@1 of each size, caption by caption, with intervals over bags."""
    names, rows = list(told), []
    for before, after in zip(names[:1] * len(names) if against_first else names, names[1:], strict=False):
        for size in sizes:
            a, b = told[before].matches(size), told[after].matches(size)
            before_hits, after_hits = ([float(found[key]["hit"]) for key in a] for found in (a, b))
            found = stats.paired(before_hits, after_hits, [bag for bag, _ in a]).as_dict()
            sentence = scores.ordering(before, after, f"R@1 of {size}", found)
            rows.append({"a": before, "b": after, "size": size, "r1": found, "sentence": sentence})
    return rows


def markdown(found: Mapping[str, Any]) -> str:
    """The table: R@1 for each bag size, then faithfulness and length."""
    head = [
        "captions of",
        *(f"R@1 of {size}, %" for size in found["sizes"]),
        "marks right, %",
        "marks told, %",
        "words",
    ]
    rows = [head]
    for run in found["runs"]:
        cells = [_percent(run["sizes"][size]["r1"]) for size in found["sizes"]]
        marks = [_percent(run["text"].get(name)) for name in ("precision", "recall")]
        rows.append([run["name"], *cells, *marks, f"{run['text']['words']:.1f}"])
    chance = ", ".join(
        f"{scores.percent(found['runs'][0]['sizes'][size]['chance'])} of {size}" for size in found["sizes"]
    )
    table = f"{scores.markdown(rows)}\n\nJudged by {found['runs'][0]['scorer']}; chance: {chance}."
    differences = "\n".join(f"- {one['sentence']}" for one in found["differences"])
    return f"{table}\n\n{differences}" if differences else table


def _percent(found: Mapping[str, Any] | None) -> str:
    return "–" if found is None else f"{scores.percent(found['value'])} ({scores.interval(found)})"


def board(named: Mapping[str, str | Path]) -> tuple[list[dict[str, Any]], list[tuple[str, ...]]]:
    """Rows of a leaderboard, best R@1 in the largest bags first, and the same as cells below their headings.

    Raises:
        FieldmarkError: as `measured`.
    """
    told = measured(named)
    sizes = sorted(next(iter(told.values())).table["sizes"], key=int)
    rows = []
    for name, one in told.items():
        info = runs.read(one.folder)[0]
        about = {key: info.get(key) for key in ("model", "style", "weights", "commit", "benchmark", "version")}
        parts = {"sizes": {size: one.table["sizes"][size] for size in sizes}, "text": one.table["text"]}
        rows.append({"name": name, **about, "judge": one.judge, "captions": len(one.captions), **parts})
    rows.sort(key=lambda row: -row["sizes"][sizes[-1]]["r1"]["value"])
    first = next(iter(told.values())).table["sizes"]
    heads = [f"R@1 of {size} (chance {scores.percent(first[size]['chance'])})" for size in sizes]
    lines: list[tuple[str, ...]] = [("captions of", "n", *heads, "marks right", "marks told", "words")]
    for row in rows:
        found = [_percent(row["sizes"][size]["r1"]) for size in sizes]
        marks = [_percent(row["text"].get(name)) for name in ("precision", "recall")]
        lines.append((row["name"], str(row["captions"]), *found, *marks, f"{row['text']['words']:.1f}"))
    return rows, lines


def _bags(told: Mapping[str, Told], size: str) -> list[dict[str, Any]]:
    """Some bags with every run's captions: those in which runs differ most come first."""
    last = list(told.values())[-1]
    members: dict[str, list[str]] = {}
    for bag, picture in last.matches(size):
        members.setdefault(bag, []).append(picture)
    hits = {
        bag: [sum(one.matches(size)[bag, name]["hit"] for name in names) for one in told.values()]
        for bag, names in members.items()
    }
    order = sorted(members, key=lambda bag: (min(hits[bag]) - max(hits[bag]), int(bag)))
    return [
        {"id": bag, "images": [_image(told, size, bag, members[bag], name) for name in members[bag]]}
        for bag in _mixed(order)
    ]


def _mixed(order: Sequence[str]) -> list[str]:
    """From the front, where runs differ, and from all over: a gallery of differences alone would flatter."""
    front = list(order[: BAGS // 2])
    rest = [bag for bag in order if bag not in front]
    step = max(1, len(rest) // max(1, BAGS - len(front)))
    return [*front, *rest[::step][: BAGS - len(front)]]


def _image(told: Mapping[str, Told], size: str, bag: str, names: Sequence[str], name: str) -> dict[str, Any]:
    """One image of a bag, and for each run its caption and which image that retrieved."""
    one = next(iter(told.values()))
    sample = one.samples[name]
    image = open_image(image_path(one.folder / "samples.jsonl", sample))
    rows = []
    for run, each in told.items():
        match = each.matches(size)[bag, name]
        rows.append(
            {
                "name": run,
                "caption": each.captions[name],
                "found": 1 + names.index(match["found"]),
                "right": match["found"] == name,
                "marks": marks_told(each.captions[name], sample),
            }
        )
    return {"id": name, "number": 1 + names.index(name), "uri": data_uri(image, SIDE), "rows": rows}


def marks_told(caption: str, sample: Sample) -> str:
    """Say how many of a caption's claims are true, where that is known."""
    things = [thing.marks for thing in sample.things if thing.marks]
    if not things:
        return ""
    from mllm.pocket.captions import judge

    found = judge(caption, things)
    return f"{found.right} of {found.claimed} marks true"

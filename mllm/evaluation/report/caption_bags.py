"""Captions in a report: R@1 within bags of look-alikes, the captions' faithfulness and length, and example bags."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, FiniteFloat

from mllm.captions import caption_of
from mllm.errors import FieldmarkError
from mllm.evaluation import runs, scores
from mllm.evaluation.report.pages import compared
from mllm.io import strict_json
from mllm.io.drawing import data_uri
from mllm.io.images import open_image
from mllm.io.tables import markdown as markdown_table
from mllm.io.tables import percent, percent_interval
from mllm.metrics import stats
from mllm.records import Sample, image_path

SCORES = "truematch.json"
BAGS = 6
"""Number of example bags."""
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
    """The part of truematch.json that a page needs."""

    scorer: str
    late: bool = False
    sizes: dict[Annotated[str, Field(pattern="^[0-9]{1,3}$")], _Size] = Field(min_length=1)
    matches: dict[str, list[_Match]]
    text: _Text


@dataclass(frozen=True, slots=True)
class JudgedCaptions:
    """One model's captions and their retrieval results; `table` is the content of truematch.json."""

    folder: Path
    table: Mapping[str, Any]
    samples: Mapping[str, Sample]
    captions: Mapping[str, str]

    @property
    def judge(self) -> str:
        """The encoder that retrieved the images, and how."""
        return self.table["scorer"] + (", word by word" if self.table.get("late") else "")

    @property
    def sizes(self) -> list[str]:
        """The bag sizes, smallest first."""
        return sorted(self.table["sizes"], key=int)

    @property
    def scores(self) -> dict[str, Any]:
        """The scores of each bag size, smallest first, and of the text."""
        return {"sizes": {size: self.table["sizes"][size] for size in self.sizes}, "text": self.table["text"]}

    def matches(self, size: str) -> dict[tuple[str, str], Mapping[str, Any]]:
        """Matches in bags of a size, by (bag, image)."""
        return {(row["bag"], row["image"]): row for row in self.table["matches"][size]}

    def bags(self, size: str) -> dict[str, list[str]]:
        """The images of each bag of a size, in order."""
        members: dict[str, list[str]] = {}
        for bag, image in self.matches(size):
            members.setdefault(bag, []).append(image)
        return members

    def match_row(self, size: str, bag: str, image: str, names: Sequence[str]) -> dict[str, Any]:
        """An image's caption, the number in `names` of the image it retrieved, and how many of its marks are true."""
        found = self.matches(size)[bag, image]["found"]
        caption = self.captions[image]
        marks = true_marks(caption, self.samples[image])
        return {"caption": caption, "found": 1 + names.index(found), "right": found == image, "marks": marks}


def load(folder: str | Path) -> JudgedCaptions:
    """Read a folder of eval/captions.py with the scores of eval/truematch.py in it.

    Raises `FieldmarkError`: files are missing or broken, or images have no caption.
    """
    folder = Path(folder)
    file = folder / SCORES
    if not file.is_file():
        raise FieldmarkError(f"{file}: no such file; `python eval/truematch.py ... --out {file}` writes it")
    table = strict_json.read(file, dict[str, Any])
    read = strict_json.parsed(table, _Table, f"{file}: ")
    _, samples, rows = runs.read_whole(folder)
    _check(read, {one.id for one in samples}, file)
    captions = {key: caption_of(row) for key, row in rows.items()}
    return JudgedCaptions(folder, table, {one.id: one for one in samples}, captions)


def _check(table: _Table, known: Collection[str], file: Path) -> None:
    """Refuse matches of samples that are not the folder's, and retrieved images of another bag."""
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
                raise FieldmarkError(f"{where}.found: {match.found!r} is not an image of bag {match.bag}")


def has_scores(folder: str | Path) -> bool:
    """Whether a folder holds captions and their retrieval scores."""
    return (Path(folder) / SCORES).is_file() and (Path(folder) / "outputs.jsonl").is_file()


def load_all(named: Mapping[str, str | Path]) -> dict[str, JudgedCaptions]:
    """Read runs for one table.

    Raises `FieldmarkError`: as `load`; runs that were measured in other bags, or by another judge.
    """
    loaded = {name: load(folder) for name, folder in named.items()}
    first_name, first = next(iter(loaded.items()))
    for name, run in loaded.items():
        if {size: set(run.matches(size)) for size in run.sizes} != {s: set(first.matches(s)) for s in first.sizes}:
            raise FieldmarkError(f"{run.folder}: {name} was measured in other bags than {first_name}")
        if run.judge != first.judge:
            raise FieldmarkError(f"{run.folder}: {name} was judged by {run.judge}, {first_name} by {first.judge}")
    return loaded


def build(named: Mapping[str, str | Path], *, against_first: bool = False) -> dict[str, Any]:
    """Gather all that the page shows of captions, as plain data; raises what `load_all` raises.

    Each run is compared with the one before it, or with the first.
    """
    loaded = load_all(named)
    sizes = next(iter(loaded.values())).sizes
    rows = [{"name": name, "scorer": run.judge, **run.scores} for name, run in loaded.items()]
    differences = []
    for before, after in compared(list(loaded), against_first=against_first):
        for size in sizes:
            a, b = loaded[before].matches(size), loaded[after].matches(size)
            before_hits, after_hits = ([float(found[key]["hit"]) for key in a] for found in (a, b))
            found = stats.paired(before_hits, after_hits, [bag for bag, _ in a]).as_dict()
            sentence = scores.ordering(before, after, f"R@1 of {size}", found)
            differences.append({"a": before, "b": after, "size": size, "r1": found, "sentence": sentence})
    return {"sizes": sizes, "runs": rows, "differences": differences, "bags": _example_bags(loaded, sizes[0])}


def markdown(report: Mapping[str, Any]) -> str:
    """Write the table: R@1 for each bag size, then faithfulness and length, and the differences."""
    first, sizes = report["runs"][0], report["sizes"]
    head = ["captions of", *(f"R@1 of {size}, %" for size in sizes), "marks right, %", "marks named, %", "words"]
    table = markdown_table([head, *([run["name"], *_cells(run)] for run in report["runs"])])
    chance = ", ".join(f"{percent(first['sizes'][size]['chance'])} of {size}" for size in sizes)
    parts = [f"{table}\n\nJudged by {first['scorer']}; chance: {chance}."]
    if report["differences"]:
        parts.append("\n".join(f"- {one['sentence']}" for one in report["differences"]))
    return "\n\n".join(parts)


def _cells(run: Mapping[str, Any]) -> list[str]:
    """Return R@1 for each size, the captions' precision and recall of marks, and their mean length, as text."""
    shares = [size["r1"] for size in run["sizes"].values()]
    shares += [run["text"].get(name) for name in ("precision", "recall")]
    return [*map(percent_interval, shares), f"{run['text']['words']:.1f}"]


def leaderboard(named: Mapping[str, str | Path]) -> tuple[list[dict[str, Any]], list[tuple[str, ...]]]:
    """Return the rows of a leaderboard, best R@1 in the largest bags first, and the same as head and cells.

    Raises `FieldmarkError`: as `load_all`.
    """
    loaded = load_all(named)
    first = next(iter(loaded.values()))
    largest = first.sizes[-1]
    order = sorted(loaded, key=lambda name: -loaded[name].table["sizes"][largest]["r1"]["value"])
    heads = [f"R@1 of {size} (chance {percent(first.table['sizes'][size]['chance'])})" for size in first.sizes]
    lines: list[tuple[str, ...]] = [("captions of", "n", *heads, "marks right", "marks named", "words")]
    rows = []
    for name in order:
        run = loaded[name]
        info = runs.read(run.folder)[0]
        about = {key: info.get(key) for key in ("model", "style", "weights", "commit", "benchmark", "version")}
        rows.append({"name": name, **about, "judge": run.judge, "captions": len(run.captions), **run.scores})
        lines.append((name, str(len(run.captions)), *_cells(run.scores)))
    return rows, lines


def _example_bags(loaded: Mapping[str, JudgedCaptions], size: str) -> list[dict[str, Any]]:
    """Return some bags with every run's captions: half those in which runs differ most, half from the others.

    Only bags with differences would give a wrong impression.
    """
    members = list(loaded.values())[-1].bags(size)
    hits = {
        bag: [sum(run.matches(size)[bag, name]["hit"] for name in names) for run in loaded.values()]
        for bag, names in members.items()
    }
    order = sorted(members, key=lambda bag: (min(hits[bag]) - max(hits[bag]), int(bag)))
    front, rest = order[: BAGS // 2], order[BAGS // 2 :]
    step = max(1, len(rest) // max(1, BAGS - len(front)))
    chosen = [*front, *rest[::step][: BAGS - len(front)]]
    return [{"id": bag, "images": [_image(loaded, size, bag, members[bag], n) for n in members[bag]]} for bag in chosen]


def _image(
    loaded: Mapping[str, JudgedCaptions], size: str, bag: str, names: Sequence[str], name: str
) -> dict[str, Any]:
    """Return one image of a bag, and for each run its caption and the image which that retrieved."""
    first = next(iter(loaded.values()))
    image = open_image(image_path(first.folder / "samples.jsonl", first.samples[name]))
    rows = [{"name": run, **one.match_row(size, bag, name, names)} for run, one in loaded.items()]
    return {"id": name, "number": 1 + names.index(name), "uri": data_uri(image, SIDE), "rows": rows}


def true_marks(caption: str, sample: Sample) -> str:
    """Say how many of a caption's claims are true; empty where the marks are unknown, or not of the pocket world."""
    from mllm.pocket.captions import foreign_mark, judge

    things = [thing.marks for thing in sample.things if thing.marks]
    if not things or foreign_mark(things):
        return ""
    found = judge(caption, things)
    return f"{found.right} of {found.claimed} marks true"

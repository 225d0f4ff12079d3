"""The folder of a benchmark run: its samples, its completions and its settings. Everything else is computed from these.

run.json        settings, convention, versions, commit: what produced the outputs
samples.jsonl   the samples (`image` is relative to this folder)
outputs.jsonl   one completion per row, appended as they are generated; a stopped run continues from here
scores.json     computed from the three above; `load` recomputes it without a model
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mllm.boxes import Frame
from mllm.errors import FieldmarkError
from mllm.evaluation import kvg_published, scores
from mllm.io import strict_json
from mllm.io.codec import build, is_utf8
from mllm.io.files import atomic_write
from mllm.io.jsonl import append_jsonl, read_jsonl, write_jsonl
from mllm.models import families
from mllm.models.families import Convention
from mllm.prompting.tasks import CompletionReader
from mllm.records import Completion, Sample, image_path, load_samples

DECIDES = ("model", "weights", "style", "convention", "samples", "generation")
DECIDES += ("batch_size", "dtype", "quantize", "engine")
"""Settings that determine the outputs. A folder holds outputs of one set of them."""


class Info(BaseModel):
    """The fields that every run.json must have; it has more."""

    model: str
    convention: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BenchmarkRun:
    """A finished benchmark folder, judged with the current code."""

    folder: Path
    info: Mapping[str, Any]
    cases: list[scores.Case]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    def image(self, case: scores.Case) -> Path:
        """Return the path of a case's image."""
        return image_path(self.folder / "samples.jsonl", case.sample)


def begin(
    folder: str | Path, info: Mapping[str, Any], samples: Sequence[Sample], root: Path, *, fresh: bool = False
) -> set[str]:
    """Open a benchmark folder for writing and return the ids of the samples already answered.

    The samples' image paths are relative to `root`. `fresh` deletes old outputs. Raises `FieldmarkError`: the folder
    holds outputs of another model, data or settings, and `fresh` is false. Hold the folder with `files.locked`.
    """
    folder = Path(folder)
    outputs = folder / "outputs.jsonl"
    if fresh:
        for name in ("outputs.jsonl", "scores.json", "run.json"):
            (folder / name).unlink(missing_ok=True)
    if (folder / "run.json").is_file():
        old = _read_info(folder)
        if changed := _changed(old, json.loads(json.dumps(info))):
            key, before, now = changed
            raise FieldmarkError(
                f"{folder} holds outputs of another run: {key} was {before!r} and now is {now!r}; "
                "choose another --out, or pass --overwrite to delete the old outputs"
            )
    elif outputs.is_file():
        raise FieldmarkError(f"{outputs} exists without its run.json; choose another --out, or pass --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    here = folder.resolve()
    moved = [replace(s, image=os.path.relpath((root / s.image).resolve(), here)) for s in samples]
    write_jsonl(folder / "samples.jsonl", moved)
    if not (folder / "run.json").is_file():
        write_json(folder, "run.json", info)
    if not outputs.is_file():
        return set()
    asked = {sample.id for sample in samples}
    done = {row.sample_id for row in read_jsonl(outputs, Completion, unique="sample_id", torn_tail=True)}
    if strange := sorted(done - asked):
        raise FieldmarkError(
            f"{outputs} answers sample {strange[0]!r}, which is not among the samples; pass --overwrite"
        )
    return done


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """Return the first setting that differs, with both values. Paths may be spelled otherwise if the content is equal.

    Weights and samples are compared by their hashes; their paths only where there is no hash.
    """
    for key in DECIDES:
        before, now = old.get(key), new.get(key)
        if key == "model" and old.get("weights") and old.get("weights") == new.get("weights"):
            continue
        if not (isinstance(before, dict) and isinstance(now, dict)):
            if before != now:
                return key, before, now
            continue
        paths = {"file"} if before.get("hash") and before.get("hash") == now.get("hash") else set()
        for name in sorted((before.keys() | now.keys()) - paths):
            if before.get(name) != now.get(name):
                return f"{key}.{name}", before.get(name), now.get(name)
    return None


def append(folder: str | Path, completion: Completion) -> None:
    """Append one completion to the outputs."""
    append_jsonl(Path(folder) / "outputs.jsonl", completion)


def load(folder: str | Path) -> BenchmarkRun:
    """Read and judge a benchmark folder. Model text is parsed again, so that a changed parser needs no model.

    Raises `FieldmarkError`: files are missing, or samples have no completion yet.
    """
    folder = Path(folder)
    info, samples, rows = read(folder)
    convention = convention_of(info, folder)
    family = families.load(convention.family)

    def frame(sample: Sample) -> Frame:
        return family.frame(sample.size, convention.budget)

    by_id = {sample.id: sample for sample in samples}
    reader = CompletionReader(family, convention.budget)
    found = ((by_id[row.sample_id], row) for row in rows.values())
    again = [reader.read(sample, row.text, tokens=row.tokens, truncated=row.truncated) for sample, row in found]
    published = bool(info.get("official")) and all(frame(sample) == kvg_published.FRAME for sample in samples)
    return BenchmarkRun(folder, info, scores.judge(samples, again, family, frame, published=published))


def convention_of(info: Mapping[str, Any], folder: str | Path) -> Convention:
    """Return the convention in a folder's settings. Raises `FieldmarkError` naming the file and the field."""
    return build(info["convention"], Convention, f"{Path(folder) / 'run.json'}: field convention")


def read(folder: str | Path) -> tuple[dict[str, Any], list[Sample], dict[str, Completion]]:
    """Read a folder of outputs: its settings, its samples, and the completions by sample id, as they were written.

    Raises `FieldmarkError`: files are missing.
    """
    folder = Path(folder)
    info = _read_info(folder)
    samples = load_samples(folder / "samples.jsonl", images=False)
    if not (folder / "outputs.jsonl").is_file():
        raise FieldmarkError(f"{folder} holds no outputs.jsonl: no sample has been answered yet")
    asked = {sample.id for sample in samples}
    rows = read_jsonl(folder / "outputs.jsonl", Completion, unique="sample_id", torn_tail=True)
    return info, samples, {row.sample_id: row for row in rows if row.sample_id in asked}


def read_whole(folder: str | Path) -> tuple[dict[str, Any], list[Sample], dict[str, Completion]]:
    """Read a folder of outputs. Raises `FieldmarkError` if a sample has no completion."""
    info, samples, rows = read(folder)
    if missing := [sample.id for sample in samples if sample.id not in rows]:
        raise FieldmarkError(
            f"{folder}: {len(missing)} of {len(samples)} questions have no answer, the first is {missing[0]!r}; "
            "run the same command again: it continues where it stopped"
        )
    return info, samples, rows


def write_json(folder: str | Path, name: str, data: Mapping[str, Any]) -> Path:
    """Write a json file into a folder, atomically, and return its path."""
    path = Path(folder) / name
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as file:
        file.write(f"{text if is_utf8(text) else json.dumps(data, indent=2, allow_nan=False)}\n")
    return path


def write_scores(run: BenchmarkRun, *, seed: int = 0, **more: Any) -> dict[str, Any]:
    """Measure a run, write `scores.json` into its folder and return its content; `more` adds values other than None."""
    more = {key: value for key, value in more.items() if value is not None}
    table = {**run.info, **scores.table(run.cases, seed=seed), **more}
    write_json(run.folder, "scores.json", table)
    return table


def _read_info(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    if not path.is_file():
        raise FieldmarkError(f"{folder} is not a benchmark folder: run.json not found (eval/kvg_bench.py makes one)")
    info = strict_json.read(path, dict[str, Any])
    strict_json.parsed(info, Info, f"{path}: ")
    return info

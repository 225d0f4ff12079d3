"""Packs a synthesized set as a dataset for the Hub: parquet with the images inside, and its data card with metadata.

One row per sample, `image` an image, boxes x1 y1 x2 y2 in the unit frame. Only complete sets with a known licence.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from mllm.data import manifest
from mllm.data.dataset_card import ATTRIBUTION, CARD
from mllm.errors import FieldmarkError
from mllm.io.files import atomic_folder
from mllm.io.progress import progress
from mllm.records import SPLITS, Sample, image_path, load_samples

UNKNOWN = "not stated"
SHARD_BYTES = 400_000_000
"""Maximum bytes of images in one parquet file; the Hub's own default is 500 MB."""
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LICENCES = {"CC0-1.0": "cc0-1.0", "CC-BY-4.0": "cc-by-4.0", "CC-BY-SA-4.0": "cc-by-sa-4.0", "Apache-2.0": "apache-2.0"}
"""SPDX names and the Hub's spelling."""


def pack(folder: Path, out: Path, *, licence: str | None = None, shard_bytes: int = SHARD_BYTES) -> list[Path]:
    """Write `data/SPLIT-K-of-N.parquet` and the card of a complete set into an empty folder; return the files.

    `licence`, the Hub's name of one, replaces the photos' own and is needed if they have none; `shard_bytes` limits the
    bytes of images in one file. Raises `FieldmarkError`: incomplete data, an unknown licence, or a filled folder.
    """
    if not (folder / manifest.MANIFEST).is_file():
        raise FieldmarkError(f"{folder} holds no {manifest.MANIFEST}: not a data set, or an unfinished one")
    if out.exists() and any(out.iterdir()):
        raise FieldmarkError(f"{out} is not empty; choose a new folder with --out")
    facts = json.loads((folder / manifest.MANIFEST).read_text(encoding="utf-8"))
    terms = licence or licence_of(facts["licences"], folder)
    counts, tasks = {}, set()
    with atomic_folder(out) as fresh:
        for split in SPLITS:
            file = folder / f"{split}.jsonl"
            samples = load_samples(file) if file.is_file() and file.stat().st_size else []
            if samples:
                _split(samples, file, fresh / "data", split, shard_bytes)
                counts[split] = len(samples)
                tasks |= {sample.task for sample in samples}
        text = card(folder, terms, counts, captions=tasks == {"caption"})
        (fresh / CARD).write_text(text, encoding="utf-8")
        if (folder / ATTRIBUTION).is_file():
            (fresh / ATTRIBUTION).write_bytes((folder / ATTRIBUTION).read_bytes())
    return sorted(path for path in out.rglob("*") if path.is_file())


def push(out: Path, repository: str, *, private: bool = False) -> str:
    """Create the dataset repository if necessary, commit the folder to it, and return its address.

    Raises `FieldmarkError`: the Hub's error message.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    api = HfApi(library_name="fieldmark")
    try:
        made = api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        message = "Data set made with Fieldmark"
        api.upload_folder(repo_id=made.repo_id, repo_type="dataset", folder_path=out, commit_message=message)
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled) as error:
        raise FieldmarkError(
            f"{repository} could not be pushed: {error}\nLog in with `hf auth login`; the packed files stay in {out}"
        ) from error
    return str(made)


def licence_of(terms: Mapping[str, int], folder: Path) -> str:
    """Return the Hub's name of the licence of all images: their common one if the Hub has it, else `other`.

    Raises `FieldmarkError`: some images have no licence.
    """
    if not terms or UNKNOWN in terms or "" in terms:
        count = terms.get(UNKNOWN, terms.get("", 0))
        raise FieldmarkError(
            f"{folder}: {count} images name no licence; give --licence if you are sure of it, or add it to the source"
        )
    known = {next((hub for spdx, hub in _LICENCES.items() if term.startswith(spdx)), "other") for term in terms}
    return known.pop() if len(known) == 1 else "other"


def card(folder: Path, terms: str, counts: Mapping[str, int], *, captions: bool) -> str:
    """Return the set's data card with the Hub's metadata at its top."""
    from huggingface_hub import DatasetCardData

    total = sum(counts.values())
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in counts]
    data = DatasetCardData(
        license=terms,
        language="en",
        task_categories=["image-to-text"] if captions else ["object-detection", "visual-question-answering"],
        tags=["fieldmark", "synthetic", "captions" if captions else "visual-grounding"],
        size_categories=next((name for size, name in SIZES if total < size), "n>1M"),
        pretty_name=folder.name,
        configs=[{"config_name": "default", "data_files": files}],
    )
    body = (folder / CARD).read_text(encoding="utf-8").lstrip()
    return f"---\n{data.to_yaml()}\n---\n\n{body}"


def _split(samples: Sequence[Sample], source: Path, out: Path, split: str, shard_bytes: int) -> None:
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    shards = list(_shards(samples, source, shard_bytes))
    out.mkdir(parents=True, exist_ok=True)
    with progress(split, len(samples)) as tick:
        for number, shard in enumerate(shards):
            rows = []
            for sample in shard:
                rows.append(_row(sample, image_path(source, sample)))
                tick()
            file = out / f"{split}-{number:05d}-of-{len(shards):05d}.parquet"
            Dataset.from_list(rows, features=_features()).to_parquet(file)


def _shards(samples: Sequence[Sample], file: Path, most: int) -> Iterator[list[Sample]]:
    shard, held = [], 0
    for sample in samples:
        size = image_path(file, sample).stat().st_size
        if shard and held + size > most:
            yield shard
            shard, held = [], 0
        shard.append(sample)
        held += size
    if shard:
        yield shard


TEXTS = ("id", "task", "question", "domain", "entity", "thought", "bag", "group")


def _features() -> Any:
    from datasets import Features, Image, List, Value

    box, text = List(Value("float64"), length=4), Value("string")
    things = List({"entity": text, "box": box, "marks": List(text)})
    lists = {"boxes": List(box), "things": things, "captions": List(text)}
    texts = dict.fromkeys((*TEXTS, "provenance"), text)
    return Features({**texts, "image": Image(), "seen": Value("bool"), **lists})


def _row(sample: Sample, image: Path) -> dict[str, Any]:
    things = [{"entity": one.entity, "box": list(astuple(one.box)), "marks": list(one.marks)} for one in sample.things]
    return {
        **{name: getattr(sample, name) for name in TEXTS},
        "provenance": json.dumps(sample.provenance, sort_keys=True, ensure_ascii=False),
        "image": {"bytes": image.read_bytes(), "path": image.name},
        "seen": sample.seen,
        "boxes": [list(astuple(box)) for box in sample.boxes],
        "things": things,
        "captions": list(sample.captions),
    }

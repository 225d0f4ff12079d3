"""FineCapEval: do captions mention the background, the objects and the relations that annotators wrote down?

    python eval/finecapeval.py --data FineCapEval.csv --captions captions.json

The csv (Cho et al. 2022, arXiv 2205.13115) has columns image, caption, background, object, relation; phrases are
parted by `\\;`. A phrase's score is the share of its stemmed words that the caption has; it is averaged over phrases,
then over rows, times 100. Two rules side by side: `published` looks for the stem anywhere in the raw caption, so that
"a" is nearly always found and capital letters never match; `words` compares with the caption's own stemmed words. Both
have no precision side, so longer captions win: read them beside the number of words. CIDEr-D is against the
annotators' captions. Captions are keyed by image name without its ending.
"""

from __future__ import annotations

import argparse
import json
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm.captions import words
from mllm.cli.programs import run_main
from mllm.data import caption_stats
from mllm.data.csv_tables import read_table
from mllm.errors import FieldmarkError
from mllm.io.files import atomic_write
from mllm.io.tables import markdown
from mllm.metrics import stats
from mllm.metrics.cider import Frequencies, cider_d

ASPECTS = ("background", "object", "relation")
RULES = ("published", "words")
Stem = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Row:
    """What one annotator wrote about one image."""

    image: str
    caption: str
    phrases: Mapping[str, tuple[str, ...]]


def main(argv: list[str] | None = None) -> None:
    """Measure captions and write the scores."""
    options = _parser().parse_args(argv)
    rows = read(options.data)
    captions = caption_stats.read_captions(options.captions)
    if missing := sorted({row.image for row in rows if row.image not in captions}):
        raise FieldmarkError(f"{options.captions}: no caption of {len(missing)} images ({', '.join(missing[:3])}, ...)")
    found = measure(rows, captions, stemmer())
    rows = [(aspect, *(f"{found[rule][aspect]['value']:.1f}" for rule in ("published", "words"))) for aspect in ASPECTS]
    print(markdown([("aspect", "published rule", "whole words"), *rows]))
    print(f"\nCIDEr-D {found['cider']:.3f}; {found['text']['words']:.1f} words a caption")
    if options.out:
        with atomic_write(options.out) as file:
            json.dump(found, file, indent=1)


def read(file: Path) -> list[Row]:
    """Read the csv. Raises FieldmarkError naming file, line and column."""
    if not file.is_file():
        raise FieldmarkError(f"{file}: no such file")
    header, lines = read_table(file)
    columns = ("image", "caption", *ASPECTS)
    if missing := sorted({*columns} - {*header}):
        raise FieldmarkError(f"{file}: column {missing[0]} is missing; FineCapEval has {', '.join(columns)}")
    rows = []
    for where, line in lines:
        if any(line[column] is None for column in columns):
            raise FieldmarkError(f"{where}: the row has too few columns")
        name = Path(line["image"]).stem
        if not name:
            raise FieldmarkError(f"{where}: field image is empty")
        rows.append(Row(name, line["caption"], {aspect: _phrases(line[aspect]) for aspect in ASPECTS}))
    if not rows:
        raise FieldmarkError(f"{file}: the file holds no row")
    return rows


def _phrases(cell: str) -> tuple[str, ...]:
    """The phrases of a cell, parted by a semicolon with or without its backslash."""
    return tuple(piece for part in re.split(r"\\?;", cell) if (piece := part.strip()))


def measure(rows: list[Row], captions: Mapping[str, str], stem: Stem) -> dict[str, Any]:
    """All numbers; rows that say nothing of an aspect are left out of it. Intervals over images, in percent."""
    table: dict[str, Any] = {"benchmark": "finecapeval", "rows": len(rows)}
    for rule in RULES:
        table[rule] = {}
        for aspect in ASPECTS:
            told = [row for row in rows if row.phrases[aspect]]
            if not told:
                raise FieldmarkError(f"no row has a phrase under {aspect}")
            values = [100 * score(row.phrases[aspect], captions[row.image], rule, stem) for row in told]
            table[rule][aspect] = stats.mean(values, [row.image for row in told]).as_dict()
    references: dict[str, list[str]] = {}
    for row in rows:
        references.setdefault(row.image, []).append(row.caption)
    frequencies = Frequencies.of(references.values())
    each = [cider_d(captions[image], told, frequencies) for image, told in references.items()]
    table["cider"] = sum(each) / len(each)
    table["text"] = caption_stats.caption_scores({image: captions[image] for image in references})
    return table


def score(phrases: tuple[str, ...], caption: str, rule: str, stem: Stem) -> float:
    """Mean over phrases of the share of their words that the caption has, 0..1."""
    own = {stem(word) for word in words(caption)}
    shares = []
    for phrase in phrases:
        stems = [stem(word) for word in phrase.lower().translate(_NO_PUNCTUATION).split()]
        found = [(word in caption) if rule == "published" else (word in own) for word in stems]
        shares.append(sum(found) / len(found) if found else 0.0)
    return sum(shares) / len(shares)


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def stemmer() -> Stem:
    """Porter's stemmer of NLTK, as published."""
    try:
        from nltk.stem.porter import PorterStemmer
    except ImportError:
        raise FieldmarkError("FineCapEval needs NLTK's stemmer: pip install fieldmark[captions]") from None
    return PorterStemmer().stem


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="finecapeval", description=__doc__, formatter_class=plain)
    parser.add_argument("--data", type=Path, required=True, help="the published csv")
    parser.add_argument("--captions", type=Path, required=True, help="{image: caption} (json), or completions (jsonl)")
    parser.add_argument("--out", type=Path, help="write the scores to this json file")
    return parser


if __name__ == "__main__":
    run_main(main)

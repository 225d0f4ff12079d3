"""FineCapEval: do captions mention the background, the objects and the relations that annotators wrote down?

    python eval/finecapeval.py --data FineCapEval.csv --captions captions.json

The csv (Cho et al. 2022, arXiv 2205.13115) has columns image, caption, background, object, relation; `\\;` separates
phrases. A phrase's score is the share of its stemmed words found in the caption; it is averaged over phrases, then over
rows, times 100. Two rules: `published` looks for the stem anywhere in the raw caption, so that "a" is nearly always
found and capital letters never match; `words` compares with the caption's own stemmed words. Both ignore precision, so
longer captions win: compare the number of words too. CIDEr-D is against the annotators' captions. Captions are keyed by
image name without the suffix.
"""

from __future__ import annotations

if __name__ == "__main__":
    from mllm import ctrl_c

    ctrl_c.end_at_once()  # while the imports below run

import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm.captions import words
from mllm.cli.options import CaptionsOptions
from mllm.cli.programs import parse, run_program
from mllm.data import caption_stats
from mllm.data.csv_tables import read_table
from mllm.errors import FieldmarkError
from mllm.io.files import write_json
from mllm.io.tables import markdown
from mllm.metrics import stats
from mllm.metrics.cider import Frequencies, cider_d

ASPECTS = ("background", "object", "relation")
RULES = ("published", "words")
Stem = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class FineCapRow:
    """What one annotator wrote about one image."""

    image: str
    caption: str
    phrases: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Options:
    data: Path
    """the published csv"""
    scored: CaptionsOptions


def main(argv: list[str] | None = None) -> None:
    """Score captions."""
    options = parse(Options, argv)
    rows = read(options.data)
    captions = caption_stats.read_captions(options.scored.captions)
    if missing := sorted({row.image for row in rows if row.image not in captions}):
        raise FieldmarkError(
            f"{options.scored.captions}: no caption of {len(missing)} images ({', '.join(missing[:3])}, ...)"
        )
    found = measure(rows, captions, stemmer())
    rows = [(aspect, *(f"{found[rule][aspect]['value']:.1f}" for rule in ("published", "words"))) for aspect in ASPECTS]
    print(markdown([("aspect", "published rule", "whole words"), *rows]))
    print(f"\nCIDEr-D {found['cider']:.3f}; {found['text']['words']:.1f} words a caption")
    if options.scored.out is not None:
        write_json(options.scored.out, found)


def read(file: Path) -> list[FineCapRow]:
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
        rows.append(FineCapRow(name, line["caption"], {aspect: _phrases(line[aspect]) for aspect in ASPECTS}))
    if not rows:
        raise FieldmarkError(f"{file}: the file is empty")
    return rows


def _phrases(cell: str) -> tuple[str, ...]:
    """Return the phrases of a cell, separated by a semicolon with or without a backslash."""
    return tuple(piece for part in re.split(r"\\?;", cell) if (piece := part.strip()))


def measure(rows: list[FineCapRow], captions: Mapping[str, str], stem: Stem) -> dict[str, Any]:
    """Return all scores, in percent, with intervals over images. Rows without a phrase do not count."""
    table: dict[str, Any] = {"benchmark": "finecapeval", "rows": len(rows)}
    for rule in RULES:
        table[rule] = {}
        for aspect in ASPECTS:
            described = [row for row in rows if row.phrases[aspect]]
            if not described:
                raise FieldmarkError(f"no row has a phrase under {aspect}")
            values = [100 * score(row.phrases[aspect], captions[row.image], rule, stem) for row in described]
            table[rule][aspect] = stats.mean(values, [row.image for row in described]).as_dict()
    references: dict[str, list[str]] = {}
    for row in rows:
        references.setdefault(row.image, []).append(row.caption)
    frequencies = Frequencies.of(references.values())
    each = [cider_d(captions[image], texts, frequencies) for image, texts in references.items()]
    table["cider"] = sum(each) / len(each)
    table["text"] = caption_stats.caption_scores({image: captions[image] for image in references})
    return table


def score(phrases: tuple[str, ...], caption: str, rule: str, stem: Stem) -> float:
    """Return the mean over phrases of the share of their words found in the caption, 0..1."""
    own = {stem(word) for word in words(caption)}
    shares = []
    for phrase in phrases:
        stems = [stem(word) for word in phrase.lower().translate(_NO_PUNCTUATION).split()]
        found = [(word in caption) if rule == "published" else (word in own) for word in stems]
        shares.append(sum(found) / len(found) if found else 0.0)
    return sum(shares) / len(shares)


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def stemmer() -> Stem:
    """Return NLTK's Porter stemmer, which the published scorer uses."""
    try:
        from nltk.stem.porter import PorterStemmer
    except ImportError:
        raise FieldmarkError("FineCapEval needs NLTK's stemmer: pip install fieldmark[captions]") from None
    return PorterStemmer().stem


if __name__ == "__main__":
    run_program(main)

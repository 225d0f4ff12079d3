"""FineCapEval: do captions mention the background, the objects and the relations that annotators wrote down?

    python eval/finecapeval.py --data FineCapEval.csv --captions captions.json

The csv (Cho et al. 2022, arXiv 2205.13115) has columns image, caption, background, object, relation; `\\;` separates
phrases. A phrase's score is the share of its stemmed words found in the caption, times 100. Two rules. `published` is
that of the released script: it looks for the stem anywhere in the raw caption, so that "a" is nearly always found and
capital letters never match; it averages over all annotators' phrases of an image, then over images, and drops rows with
an empty or NA cell. `words` compares with the caption's own stemmed words and averages over rows. Both ignore
precision, so longer captions win: compare the number of words too. CIDEr-D is against the annotators' captions (of the
rows that a rule keeps); the script's other overall metrics (BLEU, METEOR, ROUGE-L, SPICE) are pycocoevalcap's. Captions
are keyed by image name without the suffix.
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
from mllm.errors import FieldmarkError
from mllm.io.csv_tables import read_table
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
    cells: Mapping[str, str]

    @property
    def phrases(self) -> dict[str, tuple[str, ...]]:
        """The phrases of each aspect."""
        return {aspect: _phrases(self.cells[aspect]) for aspect in ASPECTS}

    @property
    def whole(self) -> bool:
        """Whether the published script keeps the row: pandas reads no cell of it as missing."""
        return not _MISSING & {self.caption, *self.cells.values()}


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
    named = ((row.image, caption_stats.image_key(row.image)) for row in rows)  # eval/captions.py writes COCO's numbers
    captions |= {name: captions[key] for name, key in named if name not in captions and key in captions}
    if missing := sorted({row.image for row in rows if row.image not in captions}):
        raise FieldmarkError(
            f"{options.scored.captions}: no caption of {len(missing)} images ({', '.join(missing[:3])}, ...)"
        )
    found = measure(rows, captions, stemmer())
    rows = [(aspect, *(f"{found[rule][aspect]['value']:.1f}" for rule in ("published", "words"))) for aspect in ASPECTS]
    print(markdown([("aspect", "published rule", "whole words"), *rows]))
    print(f"\nCIDEr-D {found['cider']:.3f}, of the published rows {found['published']['cider']:.3f}; ", end="")
    print(f"{found['text']['words']:.1f} words a caption")
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
        rows.append(FineCapRow(name, line["caption"], {aspect: line[aspect] for aspect in ASPECTS}))
    if not rows:
        raise FieldmarkError(f"{file}: the file is empty")
    return rows


def _phrases(cell: str) -> tuple[str, ...]:
    """Return the phrases of a cell, separated by a semicolon with or without a backslash."""
    return tuple(piece for part in re.split(r"\\?;", cell) if (piece := part.strip()))


def measure(rows: list[FineCapRow], captions: Mapping[str, str], stem: Stem) -> dict[str, Any]:
    """Return all scores, in percent, with intervals over images. Under `words`, rows without a phrase do not count."""
    table: dict[str, Any] = {"benchmark": "finecapeval", "rows": len(rows), "words": {}}
    for aspect in ASPECTS:
        described = [row for row in rows if row.phrases[aspect]]
        if not described:
            raise FieldmarkError(f"no row has a phrase under {aspect}")
        own = {row.image: {stem(word) for word in words(captions[row.image])} for row in described}
        values = [score([_stems(text, stem) for text in row.phrases[aspect]], own[row.image]) for row in described]
        table["words"][aspect] = stats.mean(values, [row.image for row in described]).as_dict()
    table["published"] = published(rows, captions, stem)
    table["cider"] = _cider(rows, captions)
    table["text"] = caption_stats.caption_scores({row.image: captions[row.image] for row in rows})
    return table


def published(rows: list[FineCapRow], captions: Mapping[str, str], stem: Stem) -> dict[str, Any]:
    """Score as the released script does: phrases pooled by image; rows with a missing cell are left out."""
    whole = [row for row in rows if row.whole]
    if not whole:
        raise FieldmarkError("every row has an empty or NA cell; the published rule keeps none")
    table: dict[str, Any] = {"rows": len(whole), "cider": _cider(whole, captions)}
    for aspect in ASPECTS:
        pooled: dict[str, list[list[str]]] = {row.image: [] for row in whole}
        for row in whole:
            phrases = [text for text in row.cells[aspect].lower().split("\\;") if len(text) > 1]
            pooled[row.image] += [published_stems(text, stem) for text in phrases]
        values = [score(phrases, captions[image]) for image, phrases in pooled.items()]
        table[aspect] = stats.mean(values, list(pooled)).as_dict()
    return table


def score(phrases: list[list[str]], found: str | set[str]) -> float:
    """Return the mean over phrases of the percentage of their stems that are in `found`; 0 without a phrase."""
    shares = [sum(stem in found for stem in stems) / len(stems) if stems else 0.0 for stems in phrases]
    return 100 * sum(shares) / len(shares) if shares else 0.0


def published_stems(phrase: str, stem: Stem) -> list[str]:
    """Split a phrase as NLTK does (`child`, `'s`), sentence by sentence; the stems without punctuation."""
    from nltk.tokenize.destructive import NLTKWordTokenizer

    split = NLTKWordTokenizer().tokenize
    tokens = [token for sentence in _SENTENCE_END.split(phrase) for token in split(sentence)]
    return " ".join(re.sub(r"[^a-zA-Z0-9]", "", stem(token)) for token in tokens).split()


def _stems(phrase: str, stem: Stem) -> list[str]:
    return [stem(word) for word in phrase.lower().translate(_NO_PUNCTUATION).split()]


def _cider(rows: list[FineCapRow], captions: Mapping[str, str]) -> float:
    references: dict[str, list[str]] = {}
    for row in rows:
        references.setdefault(row.image, []).append(row.caption)
    frequencies = Frequencies.of(references.values())
    return sum(cider_d(captions[image], texts, frequencies) for image, texts in references.items()) / len(references)


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
# What pandas reads as a missing cell.
_MISSING = set(
    "#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null|".split("|")
)


def stemmer() -> Stem:
    """Return NLTK's Porter stemmer, which the published scorer uses."""
    try:
        from nltk.stem.porter import PorterStemmer
    except ImportError:
        raise FieldmarkError("FineCapEval needs NLTK's stemmer: pip install fieldmark[captions]") from None
    return PorterStemmer().stem


if __name__ == "__main__":
    run_program(main)

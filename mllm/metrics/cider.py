"""CIDEr-D (Vedantam, Zitnick, Parikh 2015, arXiv 1411.5726): n-gram agreement with references, weighted by rarity.

Gives the numbers of coco-caption's `Cider` class, on words split by the rules of its tokeniser without starting Java.
It is our own code because a reward scores single captions with document frequencies that stay the same from batch to
batch.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mllm.errors import FieldmarkError

LONGEST, SIGMA, HIGH = 4, 6.0, 10.0
"""Longest n-gram in words; width of the length penalty in words; score of a caption equal to its reference."""
Gram = tuple[str, ...]
_PARTED = re.compile(
    r"\b(?:can(?=not\b)|(?:gon|wan)(?=na\b)|got(?=ta\b)|(?:lem|gim)(?=me\b)|y'(?=all\b))|(?<!\w)'t(?=(?:is|was)\b)"
    r"|(?<=\w)(?=(?:n't|'(?:s|re|ve|ll|m|d|n))(?!\w))"
)
"""Where one word becomes two: behind these, or before n't, 's and the like."""
_TOKEN = re.compile(
    r"""(?:[^\W\d_]\.)+(?![^\W_])                               # initials and abbreviations keep their full stops
    | \b(?:ave|blvd|capt|co|col|corp|dr|etc|ft|gen|gov|inc|jr|lt|ltd|mr|mrs|ms|mt|prof|rep|rev|sen|sgt|sr|st|vs)\.
    | \d+/\d+[^\W\d]+ | \d+(?:[.,:/-]\d+)+ | '\d\ds(?!\w)
    | n't(?!\w) | 'n' | '(?:s|re|ve|ll|m|d|n|tis|t)(?!\w) | y'(?!\w)
    | (?:[a-z]'|@)?\w+(?:[-&./@]\w+|(?<=[^\W\d])'(?!(?:s|re|ve|ll|m|d|n)(?!\w))\w+)*
    | </?\w+> | [()\[\]{}] | [!?]{2,} | [^\s\w.,;:!?'"`(){}\[\]–—…-]""",
    re.VERBOSE,
)
_SPELLED = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_SPELLED |= {"€": "$", "£": "#", "¢": "cents"}
_QUOTES = str.maketrans("‘’“”", '`\'""')


@dataclass(frozen=True)
class Frequencies:
    """The number of images, out of `images`, whose references contain each n-gram."""

    counts: Counter[Gram]
    images: int

    @classmethod
    def of(cls, references: Iterable[Sequence[str]]) -> Frequencies:
        """Count over the references of each image. Raises FieldmarkError without images."""
        counts: Counter[Gram] = Counter()
        images = 0
        for captions in references:
            images += 1
            counts.update({gram for caption in captions for gram in grams(ptb_words(caption))})
        if not images:
            raise FieldmarkError("CIDEr needs at least one image with references")
        return cls(counts, images)

    def tf_idf(self, found: Counter[Gram]) -> dict[Gram, float]:
        """Return term frequency times inverse document frequency; an unknown n-gram counts as seen once."""
        rarity = {gram: math.log(self.images) - math.log(max(1, self.counts[gram])) for gram in found}
        return {gram: count * rarity[gram] for gram, count in found.items()}


def ptb_words(text: str) -> list[str]:
    """Split a caption as the tokeniser in front of CIDEr (PTB) does: `child 's`, `ca n't`, `8:25`, no punctuation."""
    parted = _PARTED.sub(lambda found: f"{found[0]} ", text.lower().translate(_QUOTES))
    tokens: list[str] = _TOKEN.findall(parted)
    return [_SPELLED.get(token, token) for token in tokens]


def grams(tokens: Sequence[str]) -> Counter[Gram]:
    """Count all n-grams of one to four words."""
    places = ((start, n) for n in range(1, LONGEST + 1) for start in range(len(tokens) - n + 1))
    return Counter(tuple(tokens[start : start + n]) for start, n in places)


def cider_d(caption: str, references: Sequence[str], frequencies: Frequencies) -> float:
    """Return the score of one caption, 0..10: clipped cosine times length penalty, mean over references and n."""
    own_words = ptb_words(caption)
    own = frequencies.tf_idf(grams(own_words))
    total = 0.0
    for reference in references:
        other_words = ptb_words(reference)
        other = frequencies.tf_idf(grams(other_words))
        # The usual code measures length in bigrams, one less than words, and so zero for a single word or none.
        gap = max(len(own_words) - 1, 0) - max(len(other_words) - 1, 0)
        penalty = math.exp(-(gap**2) / (2 * SIGMA**2))
        total += penalty * sum(_cosine(own, other, n) for n in range(1, LONGEST + 1)) / LONGEST
    return HIGH * total / len(references)


def _cosine(own: dict[Gram, float], other: dict[Gram, float], n: int) -> float:
    squares = [sum(v * v for gram, v in one.items() if len(gram) == n) for one in (own, other)]
    agree = sum(min(v, other[gram]) * other[gram] for gram, v in own.items() if len(gram) == n and gram in other)
    size = math.sqrt(squares[0] * squares[1])
    return agree / size if size else 0.0

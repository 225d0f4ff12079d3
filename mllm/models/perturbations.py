"""Captions spoiled on purpose: what a grammar reward learns to tell from captions that people wrote.

The five ways of Cho et al. 2022 (arXiv 2205.13115, section 3.2): an n-gram said again, words left out, put in, replaced
or shuffled. All work on words between spaces; a caption too short for a way comes back as it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

MOST = 3
"""The longest n-gram, and the most words or places, that one corruption touches."""


def repeat(words: Sequence[str], rng: random.Random, vocabulary: Sequence[str]) -> list[str]:
    """Say an n-gram of the caption again at one to three other places."""
    start, length = _n_gram(words, rng)
    again, result = list(words[start : start + length]), list(words)
    for _ in range(rng.randint(1, MOST)):
        place = rng.randint(0, len(result))
        result[place:place] = again
    return result


def remove(words: Sequence[str], rng: random.Random, vocabulary: Sequence[str]) -> list[str]:
    """Leave an n-gram out; at least one word stays."""
    start, length = _n_gram(words, rng)
    return [*words[:start], *words[start + length :]] or list(words[:1])


def insert(words: Sequence[str], rng: random.Random, vocabulary: Sequence[str]) -> list[str]:
    """Put one to three words of the vocabulary anywhere."""
    result = list(words)
    for _ in range(rng.randint(1, MOST)):
        result.insert(rng.randint(0, len(result)), rng.choice(vocabulary))
    return result


def replace(words: Sequence[str], rng: random.Random, vocabulary: Sequence[str]) -> list[str]:
    """Replace one to three words by other words of the vocabulary."""
    result = list(words)
    for place in rng.sample(range(len(words)), min(len(words), rng.randint(1, MOST))):
        result[place] = rng.choice([word for word in vocabulary if word != words[place]] or [words[place]])
    return result


def shuffle(words: Sequence[str], rng: random.Random, vocabulary: Sequence[str]) -> list[str]:
    """Put all words in another order."""
    return rng.sample(list(words), len(words))


WAYS: dict[str, Callable[[Sequence[str], random.Random, Sequence[str]], list[str]]] = {
    "repeat": repeat,
    "remove": remove,
    "insert": insert,
    "replace": replace,
    "shuffle": shuffle,
}


def corrupt(caption: str, rng: random.Random, vocabulary: Sequence[str], way: str | None = None) -> tuple[str, str]:
    """Spoil a caption in one way, drawn at random unless named; returns it and the way.

    A draw that changes nothing is drawn again, ten times at most, each time in a way drawn anew unless one is named.

    Raises:
        ValueError: no way changes this caption: it is empty, or the vocabulary is.
    """
    words = caption.split()
    for _ in range(10 if words and vocabulary else 0):
        chosen = way or rng.choice(tuple(WAYS))
        spoiled = " ".join(WAYS[chosen](words, rng, vocabulary))
        if spoiled != " ".join(words):
            return spoiled, chosen
    raise ValueError(f"nothing of {caption!r} can be spoiled{f' by {way}' if way else ''}")


def vocabulary_of(captions: Sequence[str]) -> list[str]:
    """The words of some captions, each once, sorted."""
    return sorted({word for caption in captions for word in caption.split()})


def _n_gram(words: Sequence[str], rng: random.Random) -> tuple[int, int]:
    """Start and length of an n-gram of a caption, n up to three."""
    length = rng.randint(1, min(MOST, len(words)))
    return rng.randint(0, len(words) - length), length

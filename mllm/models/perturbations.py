"""Corrupted captions, from which a grammar reward learns to separate human ones.

The five corruptions of Cho et al. 2022 (arXiv 2205.13115, section 3.2). A caption too short for one stays unchanged.
"""

import random
from collections.abc import Sequence

MOST = 3
"""Longest n-gram, and most words or places, that one corruption changes."""


def repeat(words: Sequence[str], rng: random.Random, vocabulary: Sequence[str]) -> list[str]:
    """Repeat an n-gram of the caption at one to three other places."""
    start, length = _n_gram(words, rng)
    again, result = list(words[start : start + length]), list(words)
    for _ in range(rng.randint(1, MOST)):
        place = rng.randint(0, len(result))
        result[place:place] = again
    return result


def remove(words: Sequence[str], rng: random.Random, vocabulary: Sequence[str]) -> list[str]:
    """Remove an n-gram; at least one word stays."""
    start, length = _n_gram(words, rng)
    return [*words[:start], *words[start + length :]] or list(words[:1])


def insert(words: Sequence[str], rng: random.Random, vocabulary: Sequence[str]) -> list[str]:
    """Insert one to three words of the vocabulary at random places."""
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
    """Shuffle all words."""
    return rng.sample(list(words), len(words))


WAYS = {way.__name__: way for way in (repeat, remove, insert, replace, shuffle)}


def corrupt(caption: str, rng: random.Random, vocabulary: Sequence[str], way: str | None = None) -> tuple[str, str]:
    """Corrupt a caption; return it and the name of the corruption, which is drawn at random unless `way` gives it.

    If nothing changes, the draw (of the corruption too) is repeated, at most ten times in all. Raises ValueError: the
    caption cannot be changed: it or the vocabulary is empty.
    """
    words = caption.split()
    for _ in range(10 if words and vocabulary else 0):
        chosen = way or rng.choice(tuple(WAYS))
        corrupted = " ".join(WAYS[chosen](words, rng, vocabulary))
        if corrupted != " ".join(words):
            return corrupted, chosen
    raise ValueError(f"{caption!r} cannot be corrupted{f' by {way}' if way else ''}")


def vocabulary_of(captions: Sequence[str]) -> list[str]:
    """Return the distinct words of captions, sorted."""
    return sorted({word for caption in captions for word in caption.split()})


def _n_gram(words: Sequence[str], rng: random.Random) -> tuple[int, int]:
    length = rng.randint(1, min(MOST, len(words)))
    return rng.randint(0, len(words) - length), length

"""Captions as text: which part of a completion is the caption, its words, and how varied a set of captions is."""

import re
from collections.abc import Sequence

from mllm.records import Completion

QUESTION = "Describe this picture so that nobody could take it for another one."
"""What is asked where a caption is wanted and no other question is given."""
WORD = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*")
"""A word, inner hyphens and apostrophes included."""
_CLAUSE = re.compile(r"[.,;:!?\n]+|\band\b|\bwith\b")
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n+")
_ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL)


def caption_of(completion: Completion | str) -> str:
    """The caption in a completion: what stands in the last `<answer>`, else all behind `</think>`, else all."""
    text = completion if isinstance(completion, str) else completion.text
    text = text.rpartition("</think>")[2]
    if answers := _ANSWER.findall(text):
        text = answers[-1]
    return " ".join(text.replace("<think>", " ").split())


def words(text: str) -> list[str]:
    """Lower-case words without punctuation; inner hyphens and apostrophes stay."""
    return WORD.findall(text.lower())


def clauses(caption: str) -> tuple[str, ...]:
    """Cut a caption where it claims one thing after another: at punctuation, `and` and `with`; each clause once."""
    found = (piece.strip() for piece in _CLAUSE.split(caption))
    return tuple(dict.fromkeys(piece for piece in found if piece))


def sentences(text: str) -> list[str]:
    """Split a text behind `.`, `!`, `?` and `;`, and at line ends; at least one piece, perhaps empty."""
    return [piece.strip() for piece in _SENTENCE_END.split(text) if piece.strip()] or [text.strip()]


def with_article(words: str, *, capital: bool = False) -> str:
    """Put `a` or `an` before a phrase."""
    article = "an" if re.match(r"(?!uni|use|eu|one\b|u-)[aeiou]", words, re.IGNORECASE) else "a"
    return f"{article.capitalize() if capital else article} {words}"


def distinct(captions: Sequence[str], n: int) -> float:
    """Distinct n-grams over all n-grams of a set of captions (Li et al. 2016, arXiv 1510.03055), 0..1; 0 for none."""
    grams = [gram for caption in captions for gram in zip(*(words(caption)[k:] for k in range(n)), strict=False)]
    return len(set(grams)) / len(grams) if grams else 0.0

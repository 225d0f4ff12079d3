"""Which part of a completion is the caption, and its words."""

from __future__ import annotations

import pytest

from mllm.captions import caption_of, distinct, words


@pytest.mark.parametrize(
    "text,caption",
    [
        ("A red bird.", "A red bird."),
        ("<think>hm</think>\nA red  bird.", "A red bird."),
        ("<answer>first</answer><answer>A red bird.</answer>", "A red bird."),
        ("<answer>cut off", "cut off"),
        ("<think>never closed", "never closed"),
        ("", ""),
    ],
)
def test_the_caption_is_what_stands_in_the_answer(text: str, caption: str) -> None:
    assert caption_of(text) == caption


def test_words_are_lower_case_without_punctuation() -> None:
    assert words("A man's close-up, 2 (two) DOGS... Édouard!") == [
        "a",
        "man's",
        "close-up",
        "2",
        "two",
        "dogs",
        "édouard",
    ]


def test_distinct_counts_ngrams_over_the_whole_set() -> None:
    assert distinct(["a red bird", "a red car"], 1) == 4 / 6
    assert distinct(["a red bird", "a red car"], 2) == 3 / 4
    assert distinct([], 2) == distinct(["bird"], 2) == 0

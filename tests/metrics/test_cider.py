"""CIDEr-D against published and independently computed numbers, and against a case worked by hand."""

from __future__ import annotations

import csv
import json
import math
import time
from pathlib import Path

import pytest

from mllm.errors import FieldmarkError
from mllm.metrics.cider import Frequencies, cider_d, ptb_words

AAC = (
    ["a man is speaking", "rain falls"],
    [
        ["a man speaks.", "someone speaks.", "a man is speaking while a bird is chirping in the background"],
        ["rain is falling hard on a surface"],
    ],
)


def corpus(candidates: list[str], references: list[list[str]]) -> list[float]:
    frequencies = Frequencies.of(references)
    return [cider_d(one, refs, frequencies) for one, refs in zip(candidates, references, strict=True)]


def test_a_case_by_hand() -> None:
    """Two images, captions of two words: unigrams and bigrams agree wholly, tri- and fourgrams do not exist."""
    frequencies = Frequencies.of([["red bird"], ["blue car"]])
    assert cider_d("red bird", ["red bird"], frequencies) == pytest.approx(10 * (1 + 1 + 0 + 0) / 4)
    half = 1 / math.sqrt(2)  # one of two equally rare words; no bigram
    assert cider_d("red", ["red bird"], frequencies) == pytest.approx(10 * half / 4 * math.exp(-1 / 72))
    assert cider_d("", ["red bird"], frequencies) == 0


def test_repeating_a_word_does_not_pay() -> None:
    frequencies = Frequencies.of([["a red bird"], ["a blue car"], ["a green dog"]])
    honest = cider_d("a red bird", ["a red bird"], frequencies)
    assert cider_d("a red red red red bird", ["a red bird"], frequencies) < honest


def test_a_word_counts_at_most_as_often_as_in_the_reference() -> None:
    """By hand, unigrams alone: both words have the same rarity, so the vectors are counts: (3, 1) against (1, 2)."""
    frequencies = Frequencies.of([["red bird bird"], ["blue car car"]])
    clipped = (min(3, 1) * 1 + min(1, 2) * 2) / math.sqrt((3**2 + 1) * (1 + 2**2))
    bigrams = 1 / math.sqrt((2**2 + 1) * (1 + 1))  # red red twice and red bird, against red bird and bird bird
    expected = 10 * (clipped + bigrams) / 4 * math.exp(-1 / 72)
    assert cider_d("red red red bird", ["red bird bird"], frequencies) == pytest.approx(expected)


def test_published_numbers_of_aac_metrics() -> None:
    found = corpus(*AAC)
    assert found == pytest.approx([1.3641, 0.5587], abs=1e-3)
    assert sum(found) / 2 == pytest.approx(0.9614, abs=1e-3)


@pytest.mark.parametrize("kind,published", [("good", 0.5637), ("bad", 0.2790)])
def test_published_numbers_of_clipscore(shared_data: Path, kind: str, published: float) -> None:
    folder = shared_data / "clipscore_example"
    references = json.loads((folder / "refs.json").read_text())
    candidates = json.loads((folder / f"{kind}_captions.json").read_text())
    found = corpus([candidates[key] for key in references], list(references.values()))
    assert sum(found) / len(found) == pytest.approx(published, abs=1e-3)


def test_published_numbers_of_nlg_eval(shared_data: Path) -> None:
    folder = shared_data / "caption_metric_fixtures" / "nlg_eval"
    lines = [(folder / f"{name}.txt").read_text().splitlines() for name in ("hyp", "ref1", "ref2")]
    found = corpus(lines[0], [list(pair) for pair in zip(*lines[1:], strict=True)])
    assert sum(found) / len(found) == pytest.approx(1.242192, abs=1e-3)


def test_numbers_of_the_usual_code_on_464_captions(shared_data: Path) -> None:
    folder = shared_data / "caption_metric_fixtures"
    expected = json.loads((folder / "expected.json").read_text())["aac_csv"]["example_1"]
    with (folder / "aac_metrics" / "example_1.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = corpus(
        [row["caption_predicted"] for row in rows], [[row[f"caption_{k}"] for k in range(1, 6)] for row in rows]
    )
    assert len(found) == expected["n"]
    assert sum(found) / len(found) == pytest.approx(expected["CIDEr_D"], abs=1e-3)
    assert found[:5] == pytest.approx(expected["CIDEr_D_first5_rows"], abs=1e-3)


def test_no_references_are_an_error() -> None:
    with pytest.raises(FieldmarkError, match="references"):
        Frequencies.of([])


def test_words_are_those_of_the_usual_tokeniser() -> None:
    """On 1,000 captions full of odd words (bench/published_words.py): all but web addresses, `10a.m.` and `No.,`."""
    rows = json.loads((Path(__file__).parents[1] / "support/ptb_words.json").read_text(encoding="utf-8"))
    other = [text for text, words in rows if " ".join(ptb_words(text)) != words]
    assert len(rows) == 1000 and all(
        any(odd in text for odd in ("http", "10a.m.", "No.,", "me@x.org,")) for text in other
    )
    assert len(other) < 25


def test_splitting_stays_quick_on_hostile_text() -> None:
    started = time.process_time()
    for piece in ("(", "a.", "'", "a-", "1.", "n't", "a'", "1/", "can", "<a", "a@"):
        ptb_words(piece * 50_000)
    assert time.process_time() - started < 10

"""Rows with their own settings: sampling follows its distribution, texts end where they should."""

from __future__ import annotations

import pytest
import torch

from mllm.inference.batched import Job, _final_part, _Sampler, cut_at_stop
from mllm.inference.sampling import Sampling


def drawn(scores: list[float], temperature: float, top_p: float = 1.0, rows: int = 1500) -> torch.Tensor:
    """Shares of each token among the draws of many rows, each with its own seed."""
    jobs = [Job({}, Sampling(1, temperature, top_p, seed)) for seed in range(rows)]
    noisy_BV = _Sampler(jobs, torch.device("cpu"))(
        torch.zeros(rows, 1, dtype=torch.long), torch.tensor([scores] * rows)
    )
    return torch.bincount(noisy_BV.argmax(-1), minlength=len(scores)) / rows


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampling_follows_the_softmax(temperature: float) -> None:
    scores = [2.0, 1.0, 0.0, -1.0, float("-inf")]
    wanted = torch.softmax(torch.tensor(scores) / temperature, -1)
    error = (wanted * (1 - wanted) / 1500).sqrt()
    assert ((drawn(scores, temperature) - wanted).abs() <= 4.5 * error).all()


def test_top_p_leaves_the_tail_out() -> None:
    scores = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05])).tolist()
    shares = drawn(scores, 1.0, top_p=0.75)
    assert shares[2:].tolist() == [0, 0] and abs(float(shares[0]) - 0.625) < 0.055


def test_greedy_rows_are_left_alone() -> None:
    scores = torch.tensor([[1.0, 2.0], [1.0, 2.0]])
    sampler = _Sampler([Job({}, Sampling(1)), Job({}, Sampling(1, 1.0))], torch.device("cpu"))
    out = sampler(torch.zeros(2, 1, dtype=torch.long), scores)
    assert out[0].tolist() == [1.0, 2.0] != out[1].tolist() and scores[1].tolist() == [1.0, 2.0]


def test_texts_are_cut_before_the_first_stop() -> None:
    assert cut_at_stop("one two three", ("three", "two")) == ("one ", True)
    assert cut_at_stop("one", ("two",)) == ("one", False) and cut_at_stop("one", ()) == ("one", False)


def test_the_beginning_of_a_stop_text_is_held_back() -> None:
    assert _final_part("one tw", ("two",)) == "one " and _final_part("one t", ("two", "tree")) == "one "
    assert _final_part("one", ("two",)) == "one" and _final_part("a\N{REPLACEMENT CHARACTER}", ()) == "a"

"""The grammar head: what was committed tells captions from spoiled ones, and what is trained is what is loaded."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from mllm.boxes import Frame
from mllm.errors import FieldmarkError
from mllm.models import grammar, perturbations
from mllm.pocket.captions import varied_corpus
from mllm.records import Answer, Completion, Sample
from mllm.rewards import load
from recipes import pretrain_grammar


@pytest.fixture(scope="module")
def pocket() -> grammar.Grammar:
    return grammar.load("pocket", "cpu")


@pytest.fixture(scope="module")
def held_out() -> list[str]:
    """Captions beyond those that the head has learned from."""
    return varied_corpus(20_200)[20_000:]


@pytest.mark.ci
def test_the_committed_head_tells_captions_from_spoiled_ones(pocket: grammar.Grammar, held_out: list[str]) -> None:
    vocabulary = perturbations.vocabulary_of(held_out)
    right = {
        way: grammar.accuracy(pocket, held_out, random.Random(1), vocabulary, way)
        for way in (None, *perturbations.WAYS)
    }
    assert right[None] > 0.9 and right["shuffle"] > 0.9
    assert right["repeat"] > 0.75 and min(right.values()) > 0.4, right


def test_what_self_retrieval_and_clip_rewards_end_in_scores_low(pocket: grammar.Grammar) -> None:
    good, again, soup, empty = pocket.probabilities(
        [
            "A round red striped bird with blue cap. A tall yellow plain bird with red cap.",
            "A round red red striped bird bird with blue cap blue cap cap.",
            "bird striped blue with red A cap round.",
            " ",
        ]
    )
    assert good > 0.8 and again < 0.3 and soup < 0.1 and empty == 0.0


def test_a_head_is_trained_written_and_read_back(tmp_path: Path) -> None:
    texts = tmp_path / "captions.txt"
    texts.write_text("\n".join(varied_corpus(150)))
    out = tmp_path / "head"
    words = ["--captions", str(texts), "--out", str(out), "--steps", "3", "--batch-size", "8"]
    pretrain_grammar.main([*words, "--held", "20"])
    loaded = grammar.load(str(out), "cpu")
    assert loaded is not grammar.load("pocket", "cpu")
    assert 0 < loaded.probabilities(["A red bird."])[0] < 1
    record = json.loads((out / "scores.json").read_text())
    assert record["captions"] == 150 and set(record["scores"]) == {
        "as people wrote them",
        *(f"spoiled by {way}" for way in perturbations.WAYS),
    }
    assert "held out" in (out / "README.md").read_text()
    with pytest.raises(FieldmarkError, match="150 captions are too few to hold 100 out"):
        pretrain_grammar.main([*words, "--held", "100"])


def test_the_loss_is_the_mean_cross_entropy_of_both_kinds(pocket: grammar.Grammar) -> None:
    captions, vocabulary = ["A red bird.", "A tall blue tower and a wide tower."], ["red", "tower"]
    rng = random.Random(3)
    spoiled = [perturbations.corrupt(caption, rng, vocabulary)[0] for caption in captions]
    human, other = (torch.tensor(pocket.probabilities(texts)) for texts in (captions, spoiled))
    expected = -(human.log().sum() + (1 - other).log().sum()) / 4
    with torch.no_grad():
        assert torch.allclose(grammar.loss(pocket, captions, random.Random(3), vocabulary), expected, atol=1e-5)


def test_training_a_head_leaves_the_scorer_as_it_was() -> None:
    from mllm.models import encoders

    scorer = encoders.load("pocket", device="cpu").model.text_model
    before = {name: value.clone() for name, value in scorer.state_dict().items()}
    head = grammar.from_encoder("pocket")
    with torch.no_grad():
        for parameter in head.model.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(before[name], value) for name, value in scorer.state_dict().items())


def test_a_folder_without_a_head_is_named_before_training(tmp_path: Path) -> None:
    with pytest.raises(FieldmarkError, match=r"no .*model.safetensors; `python recipes/pretrain_grammar.py`"):
        load("grammar", head=str(tmp_path)).check([])


def test_samples_of_another_task_get_none(pocket: grammar.Grammar) -> None:
    samples = [Sample(task, task, "a.png", Frame(8, 8), "bird", "bird", "?", ()) for task in ("caption", "ground")]
    nothing = Answer(None, None, (), (), None)
    texts = ("<answer>A red bird.</answer>", "A red bird.")
    completions = [Completion(one.id, text, nothing) for one, text in zip(samples, texts, strict=True)]
    first, second = load("grammar")(samples, completions)
    assert first.value == pytest.approx(pocket.probabilities(["A red bird."])[0]) and second.value is None

"""The committed scorer and judge read a caption to its end, and find more by it than chance would."""

from __future__ import annotations

import json

import pytest
import torch

from mllm.models import encoders
from mllm.models.builtin import weights_folder


@pytest.mark.parametrize("name", ["pocket", "pocket-judge"])
def test_a_caption_is_pooled_at_its_end(name: str) -> None:
    """Not at the token of the highest number, as transformers does where `eos_token_id` is 2."""
    encoder = encoders.load(name, device="cpu")
    words = encoder.tokenizer(["A red bird.", "A tall blue bird with red cap."], padding=True, return_tensors="pt")
    with torch.no_grad():
        info = encoder.model.text_model(words["input_ids"], words["attention_mask"])
    last = words["attention_mask"].sum(-1) - 1
    assert torch.equal(info.pooler_output, info.last_hidden_state[torch.arange(2), last])
    assert encoder.tokenizer("A red bird.")["input_ids"][-1] == encoder.tokenizer.eos_token_id


@pytest.mark.parametrize("name", ["pocket", "pocket-judge"])
def test_the_last_mark_of_a_caption_counts(name: str) -> None:
    encoder = encoders.load(name, device="cpu")
    red, blue = encoder.texts(["A tall plain bird with red cap.", "A tall plain bird with blue cap."]).vectors_SLD[:, 0]
    assert float(red @ blue) < 0.999


@pytest.mark.parametrize("which", ["scorer", "judge"])
def test_scores_beside_the_weights(which: str) -> None:
    scores = json.loads((weights_folder(which) / "scores.json").read_text())["scores"]
    for size in (3, 5, 7):
        easy, medium, hard = (
            scores[f"rich captions, {level} bags of {size}, pooled"] for level in ("easy", "medium", "hard")
        )
        assert easy > medium > hard > 1.5 / size

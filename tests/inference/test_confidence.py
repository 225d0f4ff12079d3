"""The confidence of an answer is the mean probability of its tokens, as generation itself sees them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image

from mllm.boxes import Frame
from mllm.inference import confidence
from mllm.inference.generate import encode
from mllm.models.checkpoint import load
from mllm.prompting.conversations import conversation
from mllm.prompting.tasks import CompletionReader
from mllm.records import Sample

SAMPLE = Sample("s", "name", "a.png", Frame(96, 96), "bird", "Trebrum pelda", "What species of bird is this?", ())
PICTURE = Image.new("RGB", (96, 96), "teal")


@pytest.fixture(scope="module")
def loaded(pocket_folder):
    return load(pocket_folder)


def test_it_is_the_mean_probability_of_the_answer_s_tokens(loaded) -> None:
    reader = CompletionReader(loaded.family, loaded.convention.budget)
    done = reader.read(SAMPLE, "<think>red, round.</think><answer> Trebrum pelda</answer>")
    found = confidence.of_answer(loaded, SAMPLE, PICTURE, done, "think")
    # By hand: token after token, each from a prompt of its own.
    tokenizer = loaded.processor.tokenizer
    before = tokenizer("<think>red, round.</think><answer> ", add_special_tokens=False)["input_ids"]
    answer = tokenizer("Trebrum pelda", add_special_tokens=False)["input_ids"]
    inputs = encode(loaded, [conversation(SAMPLE, loaded.convention, "think")], [PICTURE])
    logps = []
    for k, token in enumerate(answer):
        more = torch.tensor([[*before, *answer[:k]]])
        grown = dict(inputs)
        for name in [name for name, value in inputs.items() if value.shape == inputs["input_ids"].shape]:
            new = more if name == "input_ids" else torch.full_like(more, int(name == "attention_mask"))
            grown[name] = torch.cat([inputs[name], new], dim=1)
        with torch.no_grad():
            logps.append(loaded.model(**grown).logits[0, -1].float().log_softmax(-1)[token])
    assert len(answer) == 2 and found == pytest.approx(float(torch.stack(logps).mean().exp()), rel=1e-4)
    assert found is not None and 0 < found < 1
    longer = reader.read(SAMPLE, "<think>red, round.</think><answer> Trebrum ister</answer>")
    assert confidence.of_answer(loaded, SAMPLE, PICTURE, longer, "think") != found
    unread = reader.read(SAMPLE, "<answer></answer>")
    assert confidence.of_answer(loaded, SAMPLE, PICTURE, unread) is None
    assert confidence.of_answer(loaded, SAMPLE, PICTURE, replace(done, answer=replace(done.answer, answer=" "))) is None

"""Generation on a pocket model with random weights: batches change nothing, a stop loses nothing, no image tokens."""

from __future__ import annotations

import random
from copy import copy

import pytest
import torch
from PIL import Image

from mllm.boxes import Box, Frame
from mllm.errors import FieldmarkError
from mllm.inference import batched
from mllm.inference.backends import Prompt
from mllm.inference.generate import encode, generate, generation_config, length_sorted_batches, suppressed_tokens
from mllm.inference.sampling import Sampling
from mllm.io.images import open_image
from mllm.models.checkpoint import load
from mllm.prompting import prompts
from mllm.records import Sample

SIZES = [(96, 96), (192, 96), (192, 192), (130, 250), (400, 120), (96, 96)]


@pytest.fixture(scope="module")
def loaded(pocket_folder):
    return load(pocket_folder)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder, rng, samples = tmp_path_factory.mktemp("images"), random.Random(0), []
    for k, (width, height) in enumerate(SIZES):
        Image.frombytes("RGB", (width, height), rng.randbytes(3 * width * height)).save(folder / f"{k}.png")
        question = "Find the bird " + " ".join(["Talo"] * (k % 3 + 1)) + "."
        samples.append(
            Sample(
                id=f"s{k}", task="ground", image=f"{k}.png", size=Frame(width, height), domain="bird", entity="Talo",
                question=question, boxes=(Box(0, 0, 1, 1),), split="test",
            )
        )  # fmt: skip
    return samples, folder


def texts(loaded, asked, max_new_tokens=12, temperature=0.0, seed=0, **options):
    sampling = Sampling(max_new_tokens, temperature, seed=seed)
    return {c.sample_id: c for c in generate(loaded, *asked, sampling=sampling, style="think", **options)}


def test_batched_equals_one_by_one(loaded, asked):
    together, alone = texts(loaded, asked, batch_size=6), texts(loaded, asked, batch_size=1)
    assert together == alone and len(together) == len(SIZES)
    assert len({c.text for c in alone.values()}) > 1, "images and questions make a difference"


def test_prompts_say_what_the_convention_says(loaded, asked):
    conversations = [prompts.messages(sample, "direct") for sample in asked[0][:2]]
    inputs = encode(loaded, conversations, [open_image(asked[1] / sample.image) for sample in asked[0][:2]])
    text = loaded.processor.tokenizer.decode(inputs["input_ids"][0])
    assert "Find the bird Talo. Answer in <answer></answer>." in text
    budget, family = loaded.convention.budget, loaded.family
    tokens = (inputs["input_ids"] == loaded.processor.image_token_id).sum(1).tolist()
    assert tokens == [family.visual_tokens(sample.size, budget) for sample in asked[0][:2]]
    assert inputs["attention_mask"][:, -1].tolist() == [1, 1], "padded on the left"


def test_long_batches_come_first(loaded, asked):
    batches = length_sorted_batches(loaded, asked[0], 2)
    cost = [loaded.family.visual_tokens(s.size, loaded.convention.budget) for batch in batches for s in batch]
    assert cost == sorted(cost, reverse=True) and sum(len(b) for b in batches) == len(SIZES)


def test_tokens_and_truncation(loaded, asked):
    short = texts(loaded, asked, max_new_tokens=3)
    assert all(c.tokens is not None and c.tokens <= 3 and (c.truncated or c.tokens < 3) for c in short.values())
    assert all(c.answer.problem for c in short.values()), "a random model writes no answer"


def test_an_end_is_no_truncation(loaded, asked, monkeypatch):
    every = list(range(loaded.model.config.text_config.vocab_size))
    monkeypatch.setattr(loaded.model.generation_config, "eos_token_id", every)
    cut = texts(loaded, asked)["s0"]
    assert cut.tokens == 1 and not cut.truncated


def test_image_tokens_are_never_written(loaded, asked):
    ids = suppressed_tokens(loaded.processor)
    assert loaded.processor.image_token_id in ids and len(ids) == 4
    head = loaded.model.get_output_embeddings()
    bias = torch.zeros(head.out_features)
    bias[ids] = 1e4  # a model that wants nothing but image tokens
    head.register_parameter("bias", torch.nn.Parameter(bias))
    try:
        written = texts(loaded, asked, max_new_tokens=4)
    finally:
        head.register_parameter("bias", None)
    assert all("<|" not in c.text for c in written.values()) and all(c.text for c in written.values())


@pytest.mark.ci
def test_a_stopped_run_goes_on(loaded, asked):
    for options in ({}, {"temperature": 1.0, "seed": 3}):
        whole = texts(loaded, asked, batch_size=2, **options)
        run = generate(loaded, *asked, sampling=Sampling(12, **options), style="think", batch_size=2)
        first = {c.sample_id: c for c, _ in zip(run, range(3), strict=False)}  # stops inside the second batch
        rest = texts(loaded, asked, batch_size=2, skip=first.keys(), **options)
        assert not first.keys() & rest.keys() and first | rest == whole


def test_sampling_is_seeded_and_leaves_the_callers_randomness(loaded, asked):
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    one = texts(loaded, asked, temperature=1.0, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert texts(loaded, asked, temperature=1.0, seed=1) == one
    assert texts(loaded, asked, temperature=1.0, seed=2) != one


def test_training_mode_is_put_back(loaded, asked):
    loaded.model.train()
    try:
        texts(loaded, asked, max_new_tokens=1)
        assert loaded.model.training
    finally:
        loaded.model.eval()


def test_progress_counts_skipped_samples(loaded, asked):
    counts = []
    texts(loaded, asked, max_new_tokens=1, batch_size=2, skip={"s0"}, progress=lambda *n: counts.append(n))
    assert counts[-1] == (6, 6) and len(counts) == 3


@pytest.mark.parametrize("wrong", [{"max_new_tokens": 0}, {"temperature": -1}, {"top_p": 0}])
def test_sampling_options_out_of_range(wrong):
    with pytest.raises(FieldmarkError, match=f"{next(iter(wrong))} .*got"):
        Sampling(**wrong)


def test_a_batch_size_of_zero(loaded, asked):
    with pytest.raises(FieldmarkError, match="batch_size must be at least 1"):
        texts(loaded, asked, batch_size=0)


@pytest.mark.parametrize("temperature", [1e-40, 1e-300, 5e-324, 9e-7])
def test_temperatures_next_to_zero_are_greedy(temperature: float) -> None:
    assert Sampling(8, temperature) == Sampling(8) and Sampling(8, 1e-6).temperature == 1e-6


THEIRS = {
    "min_new_tokens": 8, "begin_suppress_tokens": list(range(40, 400)), "max_length": 900, "no_repeat_ngram_size": 1,
    "encoder_no_repeat_ngram_size": 1, "repetition_penalty": 3.0, "guidance_scale": 2.0, "forced_eos_token_id": 50,
    "bad_words_ids": [[k] for k in range(40, 400)], "suppress_tokens": list(range(40, 400)), "num_beams": 3,
    "sequence_bias": [[[60], 50.0]], "stop_strings": "a", "temperature": 9.0, "top_k": 1, "top_p": 0.1, "min_p": 0.9,
    "typical_p": 0.1, "eta_cutoff": 0.5, "exponential_decay_length_penalty": [1, 9.0], "max_time": 0.0, "top_h": 0.1,
}  # fmt: skip


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_checkpoints_own_generation_settings_do_not_act(temperature, loaded, asked, monkeypatch) -> None:
    """Neither in batches of samples nor in batches of several callers; Qwen2.5-VL's say repetition_penalty 1.05."""
    samples, folder = asked[0][:1], asked[1]
    prompt = Prompt(prompts.messages(samples[0], "think"), [open_image(folder / samples[0].image)])
    job = batched.prepare(loaded, prompt, Sampling(8, temperature))

    def answers():
        return texts(loaded, (samples, folder), 8, temperature), batched.generate(loaded, [job])

    before, changed = answers(), copy(loaded.model.generation_config)
    vars(changed).update(THEIRS, own_entry=1)
    monkeypatch.setattr(loaded.model, "generation_config", changed)
    assert answers() == before
    used, _ = loaded.model._prepare_generation_config(generation_config(loaded, Sampling(8, temperature)))
    assert used.do_sample == (temperature > 0) and not hasattr(used, "own_entry")
    assert [name for name, value in THEIRS.items() if getattr(used, name) == value] == []

"""Dual encoders against transformers' own numbers and against slow loops: CLIP, SigLIP, FILIP, long captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SiglipConfig, SiglipModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from mllm.errors import ConfigError, FieldmarkError
from mllm.models import encoders
from mllm.models.encoders import DualEncoder, sentences
from mllm.models.similarity import EmbeddedTexts, similarity
from mllm.pocket import clip

CAPTIONS = ["A round red bird.", "A wide blue car with white roof. A car.", "bird"]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip.save(*clip.build("judge", 5), tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, tokenizer = tmp_path_factory.mktemp("siglip"), clip.build_clip_tokenizer()
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = small | {"vocab_size": len(tokenizer) + 32, "max_position_embeddings": 24, "pad_token_id": 0}
    vision = small | {"image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    with torch.no_grad():
        model.logit_scale.fill_(2.0)
        model.logit_bias.fill_(-3.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(3)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(path)
    return paths


def stock_logits(encoder: DualEncoder, files: list[Path], words: dict[str, Any]) -> np.ndarray:
    pixels = encoder.image_processor([Image.open(file) for file in files], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return encoder.model(pixel_values=pixels, **words).logits_per_text.numpy()


def test_clip_gives_transformers_logits_with_its_own_scale(clip_folder: Path, files: list[Path]) -> None:
    encoder = encoders.load(str(clip_folder), device="cpu")
    words = encoder.tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    stock = stock_logits(encoder, files, dict(input_ids=words.input_ids, attention_mask=words.attention_mask))
    assert encoder.scale == pytest.approx(np.exp(2.6592), rel=1e-4) and encoder.bias == 0
    assert encoder.scale * encoder.similarity(CAPTIONS, files) == pytest.approx(stock, abs=1e-4)


def test_siglip_gives_transformers_logits_with_its_bias(siglip_folder: Path, files: list[Path]) -> None:
    encoder = encoders.load(str(siglip_folder), device="cpu")
    words = encoder.tokenizer(CAPTIONS, padding="max_length", max_length=24, return_tensors="pt")
    stock = stock_logits(encoder, files, {"input_ids": words.input_ids})
    assert encoder.bias == -3
    ours = encoder.scale * encoder.similarity(CAPTIONS, files) + encoder.bias
    assert ours == pytest.approx(stock, abs=1e-4)
    with pytest.raises(FieldmarkError, match="late"):
        encoders.load(str(siglip_folder), late=True, device="cpu")


def test_late_interaction_is_the_mean_over_tokens_of_the_best_patch(clip_folder: Path, files: list[Path]) -> None:
    encoder = encoders.load(str(clip_folder), late=True, device="cpu")
    fast = encoder.similarity(CAPTIONS, files)
    texts, seen = encoder.texts(CAPTIONS), encoder.images(files)
    assert seen.shape == (3, 64, 48)
    for row in range(len(CAPTIONS)):
        tokens = texts.vectors_SLD[row][texts.valid_SL[row]]
        assert len(tokens) == len(encoder.tokenizer(CAPTIONS[row]).input_ids)
        for column in range(3):
            slow = sum(max(float(token @ patch) for patch in seen[column]) for token in tokens) / len(tokens)
            assert fast[row, column] == pytest.approx(slow, abs=1e-5)


@pytest.mark.parametrize("pool,combine", [("mean", np.mean), ("max", np.max)])
def test_long_captions_are_read_sentence_by_sentence(
    clip_folder: Path, files: list[Path], pool: str, combine: Any
) -> None:
    encoder = encoders.load(str(clip_folder), pool=pool, device="cpu")
    long = [f"A round red striped bird with {colour} cap." for colour in "blue white green black".split()] * 3
    found = encoder.similarity([" ".join(long), "bird"], files)
    assert found[0] == pytest.approx(combine(encoder.similarity(long, files), axis=0), abs=1e-5)
    assert found[1] == pytest.approx(encoder.similarity(["bird"], files)[0], abs=1e-6)
    assert encoder.counts["split"] == 1 and encoder.counts["cut"] == 0


def test_a_sentence_without_an_end_is_halved_and_nothing_lost(clip_folder: Path) -> None:
    encoder = encoders.load(str(clip_folder), device="cpu")
    endless = " ".join(["red bird"] * 100)
    pieces = encoder._pieces(endless)
    assert " ".join(pieces) == endless and all(encoder._fits(piece) for piece in pieces)
    assert not encoder.texts([endless]).cut.any()


def test_what_is_cut_is_counted_and_told(clip_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = encoders.load(str(clip_folder), pool="truncate", device="cpu")
    long = "A round red bird. " * 40
    assert encoder.texts([long, "bird", long]).cut.tolist() == [True, False, True]
    encoder.texts([long])
    assert encoder.counts["cut"] == 3 and encoder.counts["captions"] == 4
    assert caplog.text.count("were truncated") == 1


def test_no_caption_and_empty_captions_are_fine(clip_folder: Path, files: list[Path]) -> None:
    encoder = encoders.load(str(clip_folder), device="cpu")
    assert encoder.similarity([], files).shape == (0, 3)
    assert np.isfinite(encoder.similarity(["", "\n"], files)).all()


def test_sentences_end_where_they_end() -> None:
    assert sentences("One. Two! Three? Four; five\nsix 1.5 m") == [
        "One.",
        "Two!",
        "Three?",
        "Four;",
        "five",
        "six 1.5 m",
    ]
    assert sentences(" ") == [""]


def test_pieces_pool_by_hand() -> None:
    texts = EmbeddedTexts(
        np.array([[[1.0, 0]], [[0, 1.0]]]), np.ones((2, 1), bool), np.array([0, 0]), np.array([False])
    )
    seen = np.array([[[0.6, 0.8]]])
    assert similarity(texts, seen, "mean") == pytest.approx(0.7)
    assert similarity(texts, seen, "max") == pytest.approx(0.8)


def test_the_key_names_weights_and_preprocessing(clip_folder: Path) -> None:
    model, tokenizer, images = clip.build("judge", 5)
    same = DualEncoder(model, tokenizer, images).key
    assert same == encoders.load(str(clip_folder), device="cpu").key
    assert DualEncoder(model, tokenizer, images, late=True).key != same
    images.image_mean = [0.4, 0.5, 0.5]
    assert DualEncoder(model, tokenizer, images).key != same
    assert DualEncoder(*clip.build("judge", 6)).key != same


def test_vectors_on_disk_are_the_vectors(clip_folder: Path, files: list[Path], tmp_path: Path) -> None:
    plain = encoders.load(str(clip_folder), device="cpu").images(files)
    kept = encoders.load(str(clip_folder), cache=str(tmp_path), device="cpu")
    assert (kept.images(files) == plain).all()
    again = DualEncoder(*clip.build("judge", 5), cache=tmp_path)
    again._embed = None  # pyright: ignore  (nothing is left to embed)
    assert (again.images(files[::-1]) == plain[::-1]).all()


def test_a_scorer_is_whole_under_a_live_zero3_configuration(clip_folder: Path, files: list[Path]) -> None:
    from transformers.integrations import is_deepspeed_zero3_enabled
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    pytest.importorskip("deepspeed")
    live = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}, "train_batch_size": 1})
    try:
        assert live is not None and is_deepspeed_zero3_enabled()
        encoder = encoders._load.__wrapped__(str(clip_folder), False, "mean", None, "cpu")
        assert all(weight.numel() > 0 and not hasattr(weight, "ds_id") for weight in encoder.model.parameters())
        assert is_deepspeed_zero3_enabled(), "the trainer's own configuration is left alone"
    finally:
        unset_hf_deepspeed_config()
    assert encoder.similarity(["bird"], files).shape == (1, 3)


def test_it_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FieldmarkError, match="no such folder"):
        encoders.load("/nowhere/at/all")
    with pytest.raises(ConfigError, match="mean, max, truncate"):
        encoders.load("pocket", pool="average")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(FieldmarkError, match="'bert'.*clip, siglip"):
        encoders.load(str(tmp_path))

"""Checkpoints, adapters and encoders that are broken: each is refused in one sentence, before anything is made up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mllm.config import Lora
from mllm.errors import FieldmarkError
from mllm.models import encoders
from mllm.models.checkpoint import load, open_checkpoint
from mllm.pocket import clip
from tests.conftest import MadeOnce

Break = Callable[[Path], object]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 135\n"
NORM, HEAD = "model.language_model.norm.weight", "lm_head.weight"
WEIGHTS, ADAPTER = "model.safetensors", "adapter_model.safetensors"


def weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], file: str = WEIGHTS) -> Break:
    return lambda folder: save_file(change(load_file(folder / file)), folder / file, {"format": "pt"})


def without(*parts: str, file: str = WEIGHTS) -> Break:
    return weights(lambda held: {k: v for k, v in held.items() if not any(part in k for part in parts)}, file)


def renamed(old: str, new: str, file: str = WEIGHTS) -> Break:
    return weights(lambda held: {k.replace(old, new): v for k, v in held.items()}, file)


def reshaped(part: str, file: str = WEIGHTS) -> Break:
    return weights(lambda held: {k: v[:-1].contiguous() if part in k else v for k, v in held.items()}, file)


def text(file: str, content: str | bytes) -> Break:
    return lambda folder: (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())


def cut(file: str, keep: float) -> Break:
    def apply(folder: Path) -> None:
        data = (folder / file).read_bytes()
        (folder / file).write_bytes(data[: int(len(data) * keep)])

    return apply


def gone(*files: str) -> Break:
    return lambda folder: [(folder / file).unlink() for file in files]


def config(file: str = "config.json", **changes: object) -> Break:
    def apply(folder: Path) -> None:
        held = json.loads((folder / file).read_text())
        for key, value in changes.items():
            where = held
            *outer, last = key.split("__")
            for name in outer:
                where = where[name]
            where[last] = value
        (folder / file).write_text(json.dumps(held))

    return apply


def sharded(folder: Path) -> None:
    """An index that names a shard that is not there."""
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    named = {NORM: "model-00001-of-00002.safetensors", HEAD: "model-00002-of-00002.safetensors"}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": named}))


CHECKPOINTS: dict[str, tuple[Break, str]] = {
    "one tensor gone": (without(NORM), rf"1 weights that config.json asks for .*first: {NORM}"),
    "vision gone": (without("visual"), r"\d+ weights that config.json asks for .*first: model.visual"),
    "keys of another version": (renamed("model.language_model.", "model."), r"58 weights .* 57 others are not of this"),
    "untied without head": (
        config(tie_word_embeddings=False, text_config__tie_word_embeddings=False), f"1 weights .*first: {HEAD}"),
    "one shape": (reshaped(NORM), rf"1 weights have another shape .*first: {NORM}, \[191\] for \[192\]"),
    "another width": (config(text_config__intermediate_size=512), "15 weights have another shape"),
    "one more layer": (config(text_config__num_hidden_layers=6), r"weights that config.json asks for .*layers.5"),
    "no weights": (gone(WEIGHTS), "no model.safetensors found; pickled"),
    "pickled weights": (lambda f: (f / WEIGHTS).rename(f / "pytorch_model.bin"), "no model.safetensors found; pickled"),
    "a pointer": (text(WEIGHTS, POINTER), "looks like a Git LFS pointer.*git lfs pull"),
    "half the weights": (cut(WEIGHTS, 0.5), r"truncated: \d+ bytes of \d+"),
    "weights of no bytes": (cut(WEIGHTS, 0), "truncated, or not a file of safetensors"),
    "weights cut in the header": (cut(WEIGHTS, 0.0005), "truncated, or not a file of safetensors"),
    "a page of HTML": (text(WEIGHTS, "<html>404</html>" * 9), "truncated, or not a file of safetensors"),
    "a shard gone": (sharded, "model-00002-of-00002.safetensors: no such file, but .*index.json names it"),
    "an empty index": (
        lambda f: [gone(WEIGHTS)(f), text(f"{WEIGHTS}.index.json", "{}")(f)], "field weight_map: is missing"),
    "config a pointer": (text("config.json", POINTER), "config.json: looks like a Git LFS pointer"),
    "config cut": (cut("config.json", 0.5), r"config.json:\d+: broken JSON"),
    "config a list": (text("config.json", "[1]"), "not a readable checkpoint of a known architecture"),
    "unknown type": (config(model_type="florence"), "known architecture.*name a checkpoint of .*qwen3_vl"),
    "type of no vision": (config(model_type="bert"), "is for model type qwen3_vl"),
    "no tokenizer": (gone("tokenizer.json"), "no tokenizer .*copy the tokenizer"),
    "no tokenizer files": (gone("tokenizer.json", "tokenizer_config.json"), "no tokenizer .*copy the tokenizer"),
    "tokenizer cut": (cut("tokenizer.json", 0.7), r"tokenizer.json:\d+: broken JSON"),
    "tokenizer a pointer": (text("tokenizer.json", POINTER), "tokenizer.json: looks like a Git LFS pointer"),
    "tokenizer of nothing": (text("tokenizer.json", "{}"), "the tokenizer cannot be read"),
    "another tokenizer": (config(image_token_id=7), "the tokenizer is not the model's: .*token 5, but .*says 7"),
    "no template": (gone("chat_template.jinja"), "no chat template"),
    "a template of words": (text("chat_template.jinja", "{{ messages[0].role }}"), "writes no place for an image"),
    "a broken template": (text("chat_template.jinja", "{% for %}"), "the chat template cannot be used"),
    "code of its own": (
        text("config.json", '{"model_type": "internvl_chat", "auto_map": {"AutoConfig": "code.InternVLChatConfig"}}'),
        "it needs code of its own, which Fieldmark does not run; name a checkpoint of .*qwen3_vl"),
    "no preprocessor": (gone("processor_config.json"), "the image preprocessor cannot be read"),
    "preprocessor cut": (cut("processor_config.json", 0.5), r"processor_config.json:\d+: broken JSON"),
    "preprocessor of another kind": (
        config("processor_config.json", image_processor__image_processor_type="Nothing"), "image preprocessor cannot"),
    "convention cut": (cut("fieldmark.json", 0.5), "fieldmark.json"),
    "not UTF-8": (text("tokenizer_config.json", b"\xff\xfe{}"), "tokenizer_config.json:1: broken JSON: not UTF-8"),
}  # fmt: skip
ADAPTERS: dict[str, tuple[Break, str]] = {
    "half of its keys": (without("layers.0", "layers.1", file=ADAPTER), r"\d+ weights that adapter_config.json asks"),
    "other keys": (renamed("q_proj", "wq", file=ADAPTER), r"\d+ weights that adapter_config.json asks for"),
    "another rank": (config("adapter_config.json", r=4), "cannot be put on its base.*size mismatch"),
    "fewer modules": (config("adapter_config.json", target_modules=["q_proj"]), "weights have no place in its base"),
    "no weights": (gone(ADAPTER), "no adapter_model.safetensors found; pickled"),
    "cut": (cut(ADAPTER, 0.6), r"adapter_model.safetensors: truncated"),
    "a pointer": (text(ADAPTER, POINTER), "looks like a Git LFS pointer"),
    "its config a pointer": (text("adapter_config.json", POINTER), "adapter_config.json: looks like a Git LFS pointer"),
    "its base moved": (
        config("adapter_config.json", base_model_name_or_path="/moved/base"),
        "adapter_config.json: base_model_name_or_path: /moved/base: no such checkpoint folder"),
    "of no known kind": (config("adapter_config.json", peft_type="NOTHING"), "cannot be put on its base"),
}  # fmt: skip
ENCODERS: dict[str, tuple[Break, str]] = {
    "a projection gone": (without("text_projection"), "1 weights .*first: text_projection.weight"),
    "a tower gone": (without("vision_model"), r"\d+ weights .*first: vision_model"),
    "a shape": (reshaped("visual_projection"), "1 weights have another shape .*first: visual_projection.weight"),
    "no weights": (gone(WEIGHTS), "no model.safetensors found"),
    "cut": (cut(WEIGHTS, 0.9), "truncated"),
    "a pointer": (text(WEIGHTS, POINTER), "looks like a Git LFS pointer"),
    "config cut": (cut("config.json", 0.5), "broken JSON"),
    "no tokenizer": (gone("tokenizer.json", "tokenizer_config.json"), "no tokenizer"),
    "code of its own": (
        text("config.json", '{"model_type": "internvl_chat", "auto_map": {"AutoConfig": "code.InternVLChatConfig"}}'),
        "it needs code of its own, which Fieldmark does not run",
    ),
    "no preprocessor": (gone("preprocessor_config.json"), "not a readable encoder"),
}


def refused(break_it: Break, said: str, source: Path, folder: Path, use: Callable[[Path], object]) -> None:
    shutil.copytree(source, folder)
    break_it(folder)
    with pytest.raises(FieldmarkError, match=said) as caught:
        use(folder)
    message = str(caught.value)
    assert "\n" not in message and "Traceback" not in message and len(message) < 900


@pytest.mark.parametrize(("break_it", "said"), CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_a_broken_checkpoint_is_refused(break_it: Break, said: str, pocket_folder: Path, tmp_path: Path) -> None:
    refused(break_it, said, pocket_folder, tmp_path / "broken", load)


@pytest.fixture(scope="module")
def adapter_folder(pocket_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter") / "sound"
    load(open_checkpoint(pocket_folder), lora=Lora(r=2)).model.save_pretrained(folder)
    load(folder)
    return folder


@pytest.mark.parametrize(("break_it", "said"), ADAPTERS.values(), ids=ADAPTERS)
def test_a_broken_adapter_is_refused(break_it: Break, said: str, adapter_folder: Path, tmp_path: Path) -> None:
    refused(break_it, said, adapter_folder, tmp_path / "broken", load)


@pytest.mark.parametrize(("break_it", "said"), ENCODERS.values(), ids=ENCODERS)
def test_a_broken_encoder_is_refused(break_it: Break, said: str, made_once: MadeOnce, tmp_path: Path) -> None:
    sound = made_once("pocket-clip", lambda folder: clip.save(*clip.build("judge", 5), folder))
    refused(break_it, said, sound, tmp_path / "pocket-clip", lambda folder: encoders.load(str(folder), device="cpu"))


def test_all_kinds_are_there() -> None:
    assert len(CHECKPOINTS) + len(ADAPTERS) + len(ENCODERS) >= 40

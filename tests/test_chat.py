"""Asking a model, in a notebook and in the terminal; the pocket model here has random weights."""

from __future__ import annotations

import sys

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import mllm
from mllm import chat, cli
from mllm.boxes import Box
from mllm.errors import FieldmarkError
from mllm.pocket.species import species


@pytest.fixture(scope="module")
def assistant(pocket_folder):
    return chat.load(pocket_folder, device="cpu")


@pytest.fixture
def photo(tmp_path):
    Image.effect_noise((192, 96), 60).save(tmp_path / "field.png")
    return tmp_path / "field.png"


@pytest.fixture
def certain(assistant):
    """The same model with a head that spells a box, so that the way from tokens to picture is seen whole."""
    tokenizer, model = assistant.loaded.processor.tokenizer, assistant.loaded.model
    words = "<think>a thing</think><answer>(25,50),(75,100)</answer><|im_end|>"
    ids = tokenizer(words, add_special_tokens=False)["input_ids"]
    step = iter(ids)

    def spell(_module, _arguments, out):
        out.logits[:] = -1e4
        out.logits[:, -1, next(step)] = 1e4

    hook = model.register_forward_hook(spell)
    yield assistant
    hook.remove()


def test_ground_reads_the_box(certain, photo):
    told = []
    found = certain.ground(photo, "Talo ruvi", tell=told.append)
    assert found.box == Box(0.25, 0.5, 0.75, 1.0) and found.pixels == (48, 48, 144, 96)
    assert found.thought == "a thing" and found.problem is None and not found.clipped
    assert "".join(told).strip() == found.text, "told as it was written"
    assert found.picture().size == (640, 320)


def test_nothing_found_is_said(assistant, photo):
    found = assistant.ground(Image.open(photo).convert("L"), "Talo ruvi", max_new_tokens=4)
    assert found.box is None and found.pixels is None and found.problem and found.clipped
    assert found.picture().size == (640, 320)


def test_caption(assistant, photo):
    one = assistant.caption(photo, max_new_tokens=4)
    assert isinstance(one, str) and assistant.caption(photo, "What is it?", max_new_tokens=4) is not None


def test_questions():
    bird = next(one for one in species("bird"))
    assert chat.question_for(bird.name) == f"Find the bird {bird.name}."
    assert chat.question_for("black  redstart", "bird") == "Find the bird black redstart."
    assert chat.question_for("black redstart") == "Point out the black redstart with one box."
    assert chat.question_for("Where is it?") == "Where is it?"
    for wrong in ("", "  "):
        with pytest.raises(FieldmarkError, match="name the thing"):
            chat.question_for(wrong)
    with pytest.raises(FieldmarkError, match="unknown domain"):
        chat.question_for("x", "birb")


def test_lazy_names(pocket_folder, photo):
    assert mllm.load is chat.load and mllm.ground is chat.ground and mllm.caption is chat.caption
    found = mllm.ground(photo, "Talo", model=pocket_folder, max_new_tokens=2)
    assert found.name == "Talo" and mllm.caption(photo, model=pocket_folder, max_new_tokens=2) is not None
    chat._kept.cache_clear()


def test_chat_in_the_terminal(certain, photo, monkeypatch):
    monkeypatch.setattr(chat, "load", lambda *_, **__: certain)  # weights are loaded once in this file
    done = CliRunner().invoke(cli.app, ["chat", "x", str(photo)], input="Talo ruvi\n\n")
    assert done.exit_code == 0 and "a thing" in done.output and "box in pixels: 48, 48, 144, 96" in done.output
    path = photo.parent / "field.talo-ruvi.png"
    assert str(path) in done.output and Image.open(path).size == (640, 320)


def test_chat_once(assistant, photo, monkeypatch):
    monkeypatch.setattr(chat, "load", lambda *_, **__: assistant)
    command = ["chat", "x", str(photo), "--once", "Talo", "--max-new-tokens", "3"]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 3 and "no box for 'Talo'" in done.output and "raise --max-new-tokens" in done.output


def test_wrong_picture_or_checkpoint_is_one_line(tmp_path, photo, monkeypatch):
    for arguments, says in (
        (["pocket", str(tmp_path / "absent.jpg")], "absent.jpg"),
        ([str(tmp_path), str(photo)], "no checkpoint"),
    ):
        monkeypatch.setattr(sys, "argv", ["fieldmark", "chat", *arguments])
        with pytest.raises(SystemExit, match=f"(?s)^fieldmark: .*{says}"):
            cli.main()


def test_torch_is_left_as_it_was(assistant, photo):
    assert torch.is_grad_enabled()
    assistant.caption(photo, max_new_tokens=1)
    assert torch.is_grad_enabled()

"""Asking a model, in a notebook and in the terminal; the pocket model here has random weights."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image

import mllm
from mllm.boxes import Box
from mllm.errors import FieldmarkError
from mllm.inference import assistant as assistants
from mllm.inference import grounding
from mllm.inference.backends import Generation
from mllm.inference.sampling import Sampling
from mllm.pocket.species import species
from mllm.prompting import answers
from tests.support.command_line import fieldmark


@pytest.fixture(scope="module")
def assistant(pocket_folder):
    return assistants.load(pocket_folder, device="cpu")


@pytest.fixture
def photo(tmp_path):
    Image.effect_noise((192, 96), 60).save(tmp_path / "field.png")
    return tmp_path / "field.png"


@contextmanager
def spelling(assistant, words):
    """The same model with a head that spells `words`, so that the way from tokens to image is seen whole."""
    tokenizer, model = assistant.loaded.processor.tokenizer, assistant.loaded.model
    step = iter(tokenizer(f"{words}<|im_end|>", add_special_tokens=False)["input_ids"])

    def spell(_module, _arguments, out):
        out.logits[:] = -1e4
        out.logits[:, -1, next(step)] = 1e4

    hook = model.register_forward_hook(spell)
    yield assistant
    hook.remove()


@pytest.fixture
def certain(assistant):
    with spelling(assistant, "<think>a thing</think><answer>(25,50),(75,100)</answer>"):
        yield assistant


def test_a_thought_that_the_template_opens_is_shown_as_one(assistant, photo, monkeypatch):
    processor = assistant.loaded.processor
    opening = "{% if add_generation_prompt %}<think>\n{% endif %}"
    monkeypatch.setattr(processor, "chat_template", processor.chat_template + opening)
    pieces = []
    with spelling(assistant, "a thing</think><answer>(25,50),(75,100)</answer>"):
        found = assistant.ask(photo, "Find it.", style="think", on_text=pieces.append)
    assert found.thought == "a thing" and found.boxes == (Box(0.25, 0.5, 0.75, 1.0),)
    assert pieces[0] == "<think>" and "".join(pieces) == found.text


def test_a_question_about_a_box(assistant, photo, monkeypatch):
    """`#1` goes out as the model writes boxes, with no prompt style behind it, and earlier turns only if wanted."""
    sent = []

    def generate(prompt, *_):
        sent.append((prompt.messages, len(prompt.images)))
        return Generation("round, red (0,0),(50,50) (90,10),(10,20)", 3, False)

    monkeypatch.setattr(assistant.backend, "generate", generate)
    box = Box(0.25, 0.5, 0.75, 1.0)
    first = assistant.ask(photo, "What is at #1?", about=[box])
    assert first.prompt == "What is at (25,50),(75,100)?" and first.style == "plain"
    assert first.answer == first.text and first.thought is None
    assert (first.boxes, first.problem) == ((), answers.INVERTED), "the last box decides, as everywhere"
    assistant.ask(photo, "And #1?", about=[box], history=[first.turn])
    turns, pictures = sent[1]
    assert pictures == 1 and [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert [part["type"] for turn in turns for part in turn["content"]] == ["image", "text", "text", "text"]
    with pytest.raises(FieldmarkError, match="there is no box #2: the boxes of this image are #1 to #1"):
        assistant.ask(photo, "What is at #2?", about=[box])
    with pytest.raises(FieldmarkError, match="no box has been found yet"):
        assistant.ask(photo, "What is at #1?")


def test_candidates_and_json(assistant, photo, monkeypatch):
    text = "<think>1 (0,0),(50,50): red. 2 (25,50),(75,100): blue, fits. 3 (9,9),(9,9)</think>"
    text += "<answer>(25,50),(75,100)</answer>"
    monkeypatch.setattr(assistant.backend, "generate", lambda *_, **__: Generation(text, 9, False))
    found = assistant.ground(photo, "Talo ruvi")
    assert found.candidates == (Box(0, 0, 0.5, 0.5),), "valid boxes of the thought, without the answer's"
    row = json.loads(json.dumps(found.as_dict()))
    assert row["boxes"] == [{"name": "Talo ruvi", "pixels": [48, 48, 144, 96], "unit": [0.25, 0.5, 0.75, 1.0]}]
    assert row["candidates"][0]["pixels"] == [0, 0, 96, 48] and row["tokens"] == 9 and row["size"] == [192, 96]
    assert [(one.label, one.in_answer) for one in grounding.number_spots([found])[0]] == [
        ("#1 Talo ruvi", True),
        ("#2", False),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<answer>none</answer>", "the model says that it is not in the image"),
        ("<answer>it is red</answer>", "no box in the answer"),
        ("<think>well", "no answer tag"),
    ],
)
def test_nothing_found_says_why(assistant, photo, monkeypatch, text, says):
    monkeypatch.setattr(assistant.backend, "generate", lambda *_, **__: Generation(text, 1, False))
    found = assistant.ground(photo, "Talo ruvi")
    assert found.summary.startswith("no box for 'Talo ruvi'") and says in found.summary and not found.boxes


def test_split_thought():
    whole = "<think>first (1,2)</think><answer>then</answer>"
    seen = [grounding.split_thought(whole[:k]) for k in range(len(whole) + 1)]
    assert seen[-1] == ("first (1,2)", "then")
    for (thought, rest), (next_thought, next_rest) in pairwise(seen):
        assert next_thought.startswith(thought) and next_rest.startswith(rest), "text only grows, no tag flashes up"
    assert grounding.split_thought("plain words") == ("", "plain words")


def test_ground_reads_the_box(certain, photo):
    pieces = []
    found = certain.ground(photo, "Talo ruvi", on_text=pieces.append)
    assert found.box == Box(0.25, 0.5, 0.75, 1.0) and found.pixels == (48, 48, 144, 96)
    assert found.thought == "a thing" and found.problem is None and not found.generation.truncated
    assert "".join(pieces).strip() == found.text, "passed on while it was generated"
    assert found.draw().size == (640, 320)


def test_nothing_found(assistant, photo):
    found = assistant.ground(Image.open(photo).convert("L"), "Talo ruvi", max_new_tokens=4)
    assert found.box is None and found.pixels is None and found.problem and found.generation.truncated
    assert found.draw().size == (640, 320)


def test_caption(assistant, photo):
    one = assistant.caption(photo, max_new_tokens=4)
    assert isinstance(one, str) and assistant.caption(photo, "What is it?", max_new_tokens=4) is not None


def test_sampling_options_are_keywords(assistant, photo, monkeypatch):
    asked = []

    def generate(self, prompt, sampling, *rest):
        asked.append(sampling)
        return Generation("<answer>(0,0),(50,50)</answer>", 9, False)

    monkeypatch.setattr(type(assistant.backend), "generate", generate)
    assistant.ground(photo, "Talo", max_new_tokens=64, temperature=0)
    assistant.ask(photo, "Where is it?", max_new_tokens=32, temperature=0.7, top_p=0.9, seed=3)
    assistant.caption(photo, max_new_tokens=32)
    assistant.caption(photo)
    assistant.ask(photo, "Where is it?")
    assert asked == [Sampling(64), Sampling(32, 0.7, 0.9, 3), Sampling(32), Sampling(256), Sampling()]
    known = "unknown option 'max_tokens'.*Known: max_new_tokens, seed, temperature, top_p"
    for ask in (assistant.ask, assistant.ground, assistant.caption):
        with pytest.raises(FieldmarkError, match=known):
            ask(photo, "Talo", max_tokens=3)


def test_questions():
    bird = next(one for one in species("bird"))
    assert assistants.question_for(bird.name) == f"Find the bird {bird.name}."
    assert assistants.question_for("black  redstart", "bird") == "Find the bird black redstart."
    assert assistants.question_for("black redstart") == "Point out the black redstart with one box."
    assert assistants.question_for("Where is it?") == "Where is it?"
    assert assistants.entity_of("Find the bird black redstart.") == "black redstart"
    assert assistants.entity_of("Among these birds there is one Talo: box it.") == "Talo"
    assert assistants.entity_of("What is at #1?") == "What is at #1?"
    for wrong in ("", "  "):
        with pytest.raises(FieldmarkError, match="name of the thing to look for is empty"):
            assistants.question_for(wrong)
    with pytest.raises(FieldmarkError, match="unknown domain"):
        assistants.question_for("x", "birds")
    assert assistants.question_for("fly agaric", "fungus/fungi") == "Find the fungus fly agaric."


def test_lazy_names(pocket_folder, photo):
    assert mllm.load is assistants.load and mllm.ground is assistants.ground and mllm.caption is assistants.caption
    found = mllm.ground(photo, "Talo", model=pocket_folder, max_new_tokens=2)
    assert found.name == "Talo" and mllm.caption(photo, model=pocket_folder, max_new_tokens=2) is not None
    assistants._cached.cache_clear()


def test_chat_in_the_terminal(certain, photo, monkeypatch):
    monkeypatch.setattr(assistants, "load", lambda *_, **__: certain)  # weights are loaded once in this file
    done = fieldmark(["chat", "x", str(photo)], typed="\n  \nTalo ruvi\n\n Quit \nkite\n")
    assert done.exit_code == 0 and "a thing" in done.output and "box in pixels: 48, 48, 144, 96" in done.output
    path = photo.parent / "field.talo-ruvi.png"
    assert str(path) in done.output and Image.open(path).size == (640, 320)
    assert done.output.count("box in pixels") == 1, "an empty line asks nothing, and quit ends"


def test_chat_once(assistant, photo, monkeypatch):
    monkeypatch.setattr(assistants, "load", lambda *_, **__: assistant)
    command = ["chat", "x", str(photo), "--once", "Talo", "--max-new-tokens", "3"]
    done = fieldmark(command)
    assert done.exit_code == 1 and "no box for 'Talo'" in done.output and "raise max_new_tokens" in done.output


def test_wrong_image_or_checkpoint_is_one_line(tmp_path, photo):
    for arguments, says in (
        (["pocket", str(tmp_path / "absent.jpg")], "absent.jpg"),
        ([str(tmp_path), str(photo)], "not a checkpoint"),
    ):
        done = fieldmark(["chat", *arguments])
        assert done.exit_code == 2 and re.match(f"(?s)error: .*{says}", done.output)


def test_torch_is_left_as_it_was(assistant, photo):
    assert torch.is_grad_enabled()
    assistant.caption(photo, max_new_tokens=1)
    assert torch.is_grad_enabled()


def test_two_models_several_images_as_json(assistant, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(assistants, "load", lambda *_, **__: assistant)
    monkeypatch.setattr(
        assistant.backend, "generate", lambda *_, **__: Generation("<answer>(0,0),(50,50)</answer>", 9, False)
    )
    Image.new("RGB", (50, 50)).save(tmp_path / "other.png")
    command = ["chat", "base", str(photo), str(tmp_path / "other.png"), "--versus", "tuned", "--once", "Talo", "--json"]
    done = fieldmark(command)
    rows = [json.loads(line) for line in done.output.splitlines()]
    assert done.exit_code == 0 and [Path(row["image"]).name for row in rows] == ["field.png"] * 2 + ["other.png"] * 2
    assert [Path(row["drawn"]).name for row in rows[:2]] == ["field.talo.base.png", "field.talo.tuned.png"]


def test_a_talk_goes_from_box_to_image(certain, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(assistants, "load", lambda *_, **__: certain)
    Image.new("RGB", (50, 50)).save(tmp_path / "other.png")
    lines = "Talo ruvi\n:2\nWhat is at #1?\n:9\n\n"
    done = fieldmark(["chat", "x", str(photo), str(tmp_path / "other.png")], typed=lines)
    assert done.exit_code == 0 and f"> :2 {tmp_path / 'other.png'}" in done.output
    assert "no box has been found yet" in done.output and "there is no image :9" in done.output


def test_a_base_in_four_bits_is_asked(photo):
    from bitsandbytes.nn import Linear4bit

    four = assistants.load("pocket", device="cpu", quantize="4bit")
    assert any(isinstance(module, Linear4bit) for module in four.loaded.model.modules())
    assert four.ground(photo, "Talo ruvi", max_new_tokens=4).summary
    with pytest.raises(FieldmarkError, match="quantize must be 4bit or left out, got '8bit'"):
        assistants.load("pocket", quantize="8bit")


def test_the_thought_of_a_thinking_template_is_no_answer_to_a_plain_question(assistant, photo, monkeypatch):
    processor = assistant.loaded.processor
    opening = "{% if add_generation_prompt %}<think>\n{% endif %}"
    monkeypatch.setattr(processor, "chat_template", processor.chat_template + opening)
    with spelling(assistant, "(0,0),(5,5) a thing</think>(25,50),(75,100)"):
        found = assistant.ask(photo, "Find it.", style="plain")
    assert found.boxes == (Box(0.25, 0.5, 0.75, 1.0),) and found.thought == "(0,0),(5,5) a thing"
    with spelling(assistant, "a thing</think>red"):
        assert assistant.caption(photo) == "red"


def test_what_a_thing_is(assistant, photo, capsys):
    """`?` asks for a name, of the image or of a box, in the style that was trained, and the answer is a name."""
    with spelling(assistant, "<think>red</think><answer>Talo ruvi</answer>"):
        found = assistant.name(photo, domain="bird", box=Box(0.25, 0.5, 0.75, 1.0), style="think")
    assert found.prompt.startswith("What species of bird is at (25,50),(75,100)? Reason in <think>")
    assert found.named == "Talo ruvi" == found.as_dict()["name"] and found.summary == "name: Talo ruvi"
    assert found.problem is None and not found.boxes
    style = assistant.backend.convention.prompt
    with spelling(assistant, "<answer></answer>"):
        found = assistant.ground(photo, "? #1", domain="bird", about=[Box(0, 0, 0.5, 0.5)])
    assert found.style == style and found.named is None and found.summary.startswith("no name: empty answer")
    with spelling(assistant, "<answer>B</answer>"):
        found = assistant.name(photo, names=("wren", "kite"))
    assert found.question == "Which thing is this? A. wren. B. kite. Answer with the letter." and found.named == "B"
    with pytest.raises(FieldmarkError, match="27 names are too many"):
        assistant.name(photo, names=["wren"] * 27)
    assert assistants.question_for("?", "bird") == "What species of bird is this?"
    with spelling(assistant, "(25,50),(75,100)"):
        assert assistant.ask(photo, "What is at #1?", about=[Box(0, 0, 0.5, 0.5)]).named is None

"""A visitor's desk, with models whose words are given; and what the page says of them."""

from __future__ import annotations

import asyncio
import copy

import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the web extra is not installed")

from mllm.boxes import Box
from mllm.errors import FieldmarkError
from mllm.inference import assistant
from mllm.inference.batched import Written
from mllm.inference.web.session import Desk, Limits, Turn
from mllm.models import families


class Said:
    """A writer whose answers are given."""

    family = families.load("pocket")
    convention = families.Convention("pocket", "think", family.budget)

    def __init__(self, name: str, *texts: str) -> None:
        self.name, self.texts = name, list(texts)

    def write(self, messages, images, *, tell, **_):
        self.asked = messages[-1]["content"][-1]["text"]
        text = self.texts.pop(0)
        if text == "broken":
            raise FieldmarkError("server answered 500")
        tell(text)
        return Written(text, 7, False)


def asked(desk: Desk, models: list[Said], question: str) -> None:
    async def listen():
        async for _ in desk.ask([assistant.Assistant(one) for one in models], desk.at, question, 0):
            pass

    asyncio.run(listen())


@pytest.fixture
def desk():
    made = copy.deepcopy(Desk(2))  # as gradio does for every visitor
    made.add("field.png", Image.new("RGB", (192, 96)), Limits())
    return made


THOUGHT = "<think>1 (0,0),(50,50): red. 2 (25,50),(75,100): blue.</think><answer>(25,50),(75,100)</answer>"


def test_two_models_and_a_question_about_a_box(desk):
    models = [Said("base", THOUGHT, "red."), Said("tuned", "<answer>none</answer>", "broken")]
    asked(desk, models, "Talo ruvi")
    image = desk.images[0]
    assert [[spot.label for spot in marked] for marked in image.marked] == [["#1 Talo ruvi", "#2"], []]
    question, thought, outcome = desk.messages(0)
    assert question["content"] == "Talo ruvi" and thought["metadata"]["status"] == "done"
    assert "→ #1 Talo ruvi; it looked at #2" in outcome["content"]
    assert "says that it is not in the image" in desk.messages(1)[-1]["content"]
    assert desk.shown(0, candidates=True).size == (640, 320)
    assert desk.spot_at(0, 0.3 * 640, 0.7 * 320).number == 1 and desk.spot_at(0, 630, 10) is None
    asked(desk, models, "What is at #2?")
    assert models[0].asked == "What is at (0,0),(50,50)?", "no style behind it, the box in the model's words"
    assert desk.messages(0)[-1]["content"].startswith("red.\n→ Answered in words")
    assert desk.messages(1)[-1]["content"] == "server answered 500"
    assert image.places[0].box == Box(0.25, 0.5, 0.75, 1.0), "an answer in words leaves the places as they were"
    assert desk.turns[0][0].answer["boxes"][0]["pixels"] == [48, 48, 144, 96]


def test_a_number_without_a_box_is_said(desk):
    asked(desk, [Said("a", THOUGHT), Said("b", THOUGHT)], "What is at #3?")
    assert "#3 is none of this image's boxes" in desk.messages(0)[-1]["content"]


def test_what_is_refused(desk, tmp_path):
    (tmp_path / "page.jpg").write_text("<html>")
    Image.new("RGB", (40, 30)).save(tmp_path / "large.png")
    with pytest.raises(FieldmarkError, match="^page.jpg: not an image"):
        desk.add("page.jpg", tmp_path / "page.jpg", Limits())
    with pytest.raises(FieldmarkError, match="^large.png: 40 x 30 pixels; the limit is 1000"):
        desk.add("large.png", tmp_path / "large.png", Limits(pixels=1000))
    with pytest.raises(FieldmarkError, match="holds 1 images"):
        desk.add("large.png", tmp_path / "large.png", Limits(images=1))
    assert len(desk.images) == 1


def test_stopped_and_cleared(desk):
    desk.turns[0].append(Turn("field.png", "Talo?", text="<think>well"))
    assert desk.messages(0)[1]["metadata"]["status"] == "pending" and len(desk.messages(0)) == 2
    desk.stop()
    assert desk.messages(0)[-1]["content"] == "stopped."
    desk.clear()
    assert desk.images == [] and desk.messages(0) == [] and desk.shown(0, candidates=True) is None

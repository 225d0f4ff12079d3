"""A visitor's session, with scripted models, and the transcript that the page shows."""

from __future__ import annotations

import asyncio
import copy

import pytest
from PIL import Image

from mllm.boxes import Box
from mllm.errors import FieldmarkError
from mllm.inference import assistant
from mllm.inference.backends import Generation
from mllm.inference.web.session import Session, Turn, WebLimits
from mllm.models import families


class Scripted:
    """A backend whose answers are given."""

    family = families.load("pocket")
    convention = families.Convention("pocket", "think", family.budget)

    def __init__(self, name: str, *texts: str) -> None:
        self.name, self.texts = name, list(texts)

    def generate(self, prompt, sampling, on_text, cancelled):
        self.question = prompt.messages[-1]["content"][-1]["text"]
        text = self.texts.pop(0)
        if text == "broken":
            raise FieldmarkError("server answered 500")
        on_text(text)
        return Generation(text, 7, False)


def ask(session: Session, models: list[Scripted], question: str) -> None:
    async def listen():
        async for _ in session.ask([assistant.Assistant(one) for one in models], session.current, question, 0):
            pass

    asyncio.run(listen())


@pytest.fixture
def session():
    made = copy.deepcopy(Session(2))  # as gradio does for every visitor
    made.add("field.png", Image.new("RGB", (192, 96)), WebLimits())
    return made


THOUGHT = "<think>1 (0,0),(50,50): red. 2 (25,50),(75,100): blue.</think><answer>(25,50),(75,100)</answer>"


def test_two_models_and_a_question_about_a_box(session):
    models = [Scripted("base", THOUGHT, "red."), Scripted("tuned", "<answer>none</answer>", "broken")]
    ask(session, models, "Talo ruvi")
    image = session.images[0]
    assert [[spot.label for spot in spots] for spots in image.spots] == [["#1 Talo ruvi", "#2"], []]
    question, thought, outcome = session.messages(0)
    assert question["content"] == "Talo ruvi" and thought["metadata"]["status"] == "done"
    assert "→ #1 Talo ruvi; it considered #2" in outcome["content"]
    assert "says that it is not in the image" in session.messages(1)[-1]["content"]
    assert session.drawn(0, candidates=True).size == (640, 320)
    assert session.spot_at(0, 0.3 * 640, 0.7 * 320).number == 1 and session.spot_at(0, 630, 10) is None
    ask(session, models, "What is at #2?")
    assert models[0].question == "What is at (0,0),(50,50)?", "no style after it, the box as the model writes it"
    assert session.messages(0)[-1]["content"].startswith("red.\n→ Answered in words")
    assert session.messages(1)[-1]["content"] == "server answered 500"
    assert image.spots[0][0].box == Box(0.25, 0.5, 0.75, 1.0), "an answer in words leaves the boxes as they were"
    assert session.turns[0][0].answer["boxes"][0]["pixels"] == [48, 48, 144, 96]


def test_a_number_without_a_box(session):
    ask(session, [Scripted("a", THOUGHT), Scripted("b", THOUGHT)], "What is at #3?")
    assert "there is no box #3" in session.messages(0)[-1]["content"]


def test_what_is_refused(session, tmp_path):
    (tmp_path / "page.jpg").write_text("<html>")
    Image.new("RGB", (40, 30)).save(tmp_path / "large.png")
    with pytest.raises(FieldmarkError, match="^page.jpg: not an image"):
        session.add("page.jpg", tmp_path / "page.jpg", WebLimits())
    with pytest.raises(FieldmarkError, match="^large.png: 40 x 30 pixels; the limit is 1000"):
        session.add("large.png", tmp_path / "large.png", WebLimits(pixels=1000))
    with pytest.raises(FieldmarkError, match="holds 1 images"):
        session.add("large.png", tmp_path / "large.png", WebLimits(images=1))
    assert len(session.images) == 1


def test_uploads_that_are_deleted_meanwhile_are_forgotten(session, tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (40, 30)).save(tmp_path / name)
        session.add(name, tmp_path / name, WebLimits())
    session.current = 3
    assert session.forget_expired() == []
    (tmp_path / "a.png").unlink()
    assert session.forget_expired() == ["a.png"] and session.images[session.current].name == "c.png"
    (tmp_path / "c.png").unlink()
    assert session.forget_expired() == ["c.png"] and session.images[session.current].name == "b.png"
    (tmp_path / "b.png").unlink()
    assert session.forget_expired() == ["b.png"] and [one.name for one in session.images] == ["field.png"]
    assert session.drawn(0, candidates=True) is not None
    session.images.clear()
    assert session.forget_expired() == []


def test_stopped_and_cleared(session):
    session.turns[0].append(Turn("field.png", "Talo?", text="<think>well"))
    assert session.messages(0)[1]["metadata"]["status"] == "pending" and len(session.messages(0)) == 2
    session.stop()
    assert session.messages(0)[-1]["content"] == "stopped."
    session.clear()
    assert session.images == [] and session.messages(0) == [] and session.drawn(0, candidates=True) is None

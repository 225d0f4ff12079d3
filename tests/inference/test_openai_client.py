"""A model behind a server answers like a local one; the server is `fieldmark serve` over real HTTP."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from openai.types.chat import ChatCompletionChunk
from PIL import Image

from mllm.boxes import Frame
from mllm.errors import FieldmarkError
from mllm.inference import assistant, openai_client
from mllm.inference.backends import Generation
from mllm.inference.server import Service
from mllm.models.families import Budget
from tests.support.served import served


@pytest.fixture(scope="module")
def local():
    return assistant.load("pocket", device="cpu")


@pytest.fixture(scope="module")
def address(local):
    with served(Service(local.loaded, "tuned")) as url:
        yield url


def test_it_writes_what_the_checkpoint_writes(local, address):
    """Same words as in this process: the server states its convention, and small images travel without loss."""
    img, text = Image.effect_noise((192, 96), 60).convert("RGB"), []
    far = assistant.load(address)
    assert far.backend.convention == local.backend.convention and far.backend.name == f"tuned at {address}"
    here, there = (one.ground(img, "Talo", max_new_tokens=8) for one in (local, far))
    assert there.generation == here.generation == Generation(here.text, 8, True)
    again = far.ground(img, "Talo", max_new_tokens=8, on_text=text.append)
    assert "".join(text) == again.text and len(text) > 1, "passed on in pieces"
    far.backend.close()


def test_a_cancelled_generation_ends(address):
    far, cancelled = assistant.load(f"{address}#tuned"), threading.Event()
    options = {"max_new_tokens": 400, "on_text": lambda _: cancelled.set(), "cancelled": cancelled}
    found = far.ground(Image.new("RGB", (96, 96)), "Talo", **options)
    assert found.generation.tokens == 0 and len(found.text) < 200


@pytest.mark.ci
def test_errors_of_a_server(address):
    with pytest.raises(FieldmarkError, match="no model 'gpt'; the server has tuned"):
        assistant.load(f"{address}#gpt")
    with pytest.raises(FieldmarkError, match="ends in /v1"):
        assistant.load(address.removesuffix("/v1"))
    with pytest.raises(FieldmarkError, match="connection failed"):
        assistant.load("http://127.0.0.1:9/v1")


def test_a_server_that_does_not_state_its_convention():
    with pytest.raises(FieldmarkError, match=r"give --family \(.*qwen3_vl"):
        openai_client._convention({"id": "m"}, "m at x", None)
    stated = openai_client._convention({"id": "m"}, "m at x", "qwen3_vl")
    assert (stated.family, stated.prompt) == ("qwen3_vl", "direct")
    with pytest.raises(FieldmarkError, match="field fieldmark"):
        openai_client._convention({"fieldmark": {"family": "qwen3_vl"}}, "m at x", None)


def chunk(finish=None, usage=None, **delta):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    used = usage and {"prompt_tokens": 1, "completion_tokens": usage, "total_tokens": 1 + usage}
    return ChatCompletionChunk.model_validate(
        {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice], "usage": used}
    )


def test_thoughts_that_come_apart_are_put_back():
    """vLLM with a reasoning parser sends them in a field of their own."""
    text = []
    pieces = openai_client._Pieces(text.append)
    for one in (
        chunk(role="assistant", content=""),
        chunk(reasoning_content="it "),
        chunk(reasoning_content="is"),
        chunk(content="<answer>"),
        chunk(content="[1]</answer>", finish="length", usage=7),
    ):
        pieces.add(one)
    assert pieces.text == "<think>it is</think><answer>[1]</answer>" == "".join(text)
    assert pieces.finish == "length" and pieces.tokens == 7


def test_boxes_on_resized_pixels_are_written_on_what_was_sent(monkeypatch):
    """Qwen2.5-VL writes pixels of the resized image: it is sent at that very size, so that no server resizes it."""
    far = SimpleNamespace(family=openai_client.families.load("qwen2_5_vl"), convention=SimpleNamespace(budget=None))
    far.convention.budget = Budget(56 * 56, 28 * 28 * 64)
    sent = []
    monkeypatch.setattr(openai_client.image_view, "data_url", lambda image, lossless: sent.append(image.size))
    openai_client.ServerBackend._url(far, Image.new("RGB", (1000, 500)))
    frame = far.family.resized(Frame(1000, 500), far.convention.budget)
    assert sent == [(frame.width, frame.height)] and sent[0][0] * sent[0][1] <= far.convention.budget.max_pixels
    far.family = openai_client.families.load("qwen3_vl")
    openai_client.ServerBackend._url(far, Image.new("RGB", (4000, 2000)))
    assert (
        sent[1][0] / sent[1][1] == pytest.approx(2, rel=1e-3)
        and sent[1][0] * sent[1][1] <= openai_client.MAX_SENT_PIXELS
    )

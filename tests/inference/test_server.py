"""The server over real HTTP: it answers as `mllm.inference.generate` does, and rejects bad requests by name."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import httpx2
import openai
import pytest
from PIL import Image

from mllm.boxes import Box, Frame
from mllm.inference.generate import generate
from mllm.inference.openai_schema import ServerLimits
from mllm.inference.sampling import Sampling
from mllm.inference.server import Service
from mllm.models import checkpoint
from mllm.pocket import world
from mllm.pocket.species import species
from mllm.prompting import prompts
from mllm.records import Sample
from tests.support.served import served

KINDS = ("bird", "car", "food")


@pytest.fixture(scope="module")
def loaded():
    return checkpoint.load("pocket")


@pytest.fixture(scope="module")
def service(loaded):
    return Service(loaded, "pocket", limits=ServerLimits(images=2, pixels=40_000, body=200_000, tokens=700), batch=4)


@pytest.fixture(scope="module")
def url(service):
    with served(service) as address:
        yield address


@pytest.fixture(scope="module")
def client(url):
    return openai.OpenAI(base_url=url, api_key="any", max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Three samples with their images, in a folder."""
    folder, samples = tmp_path_factory.mktemp("served"), []
    for k, domain in enumerate(KINDS):
        one = species(domain)[k]
        img, box = world.photo(one, k)
        img.save(folder / f"{k}.png")
        samples.append(
            Sample(
                id=f"s{k}", task="ground", image=f"{k}.png", size=Frame(*img.size), domain=domain,
                entity=one.name, question=f"List every {domain}.", boxes=(Box(*box.to_xyxy(Frame(1, 1))),),
            )
        )  # fmt: skip
    return samples, folder


def data_url(image: Image.Image) -> str:
    file = BytesIO()
    image.save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def turn(text: str, *images: Image.Image) -> list[dict]:
    parts = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def ask(client, text: str, *images: Image.Image, **options):
    return client.chat.completions.create(model="pocket", messages=turn(text, *images), **{"max_tokens": 40} | options)


def test_answers_are_those_of_generate(client, loaded, asked) -> None:
    samples, folder = asked
    wanted = {c.sample_id: c for c in generate(loaded, samples, folder, Sampling(40), style="direct")}
    assert len({c.text for c in wanted.values()}) == 3, "the images make a difference"
    with ThreadPoolExecutor(3) as threads:
        answers = threads.map(
            lambda s: ask(client, prompts.user_text(s, "direct"), Image.open(folder / s.image)), samples
        )
        for sample, answer in zip(samples, answers, strict=True):
            text, count = wanted[sample.id].text, wanted[sample.id].tokens
            assert answer.choices[0].message.content == text and answer.model == "pocket"
            assert answer.usage.completion_tokens == count
            assert answer.usage.total_tokens == answer.usage.prompt_tokens + count
            assert answer.choices[0].finish_reason == ("length" if wanted[sample.id].truncated else "stop")


def test_streamed_pieces_make_the_same_text(client, asked) -> None:
    image = Image.open(asked[1] / "0.png")
    whole = ask(client, "List every bird.", image)
    chunks = list(ask(client, "List every bird.", image, stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert "".join(pieces) == whole.choices[0].message.content and len(pieces) > 3
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert len({chunk.id for chunk in chunks}) == 1


def test_max_tokens_and_stop(client, asked) -> None:
    image = Image.open(asked[1] / "0.png")
    whole = ask(client, "List every bird.", image)
    text = whole.choices[0].message.content
    short = ask(client, "List every bird.", image, max_tokens=4)
    assert text.startswith(short.choices[0].message.content) and short.usage.completion_tokens == 4
    assert short.choices[0].finish_reason == "length"
    stop = text[len(text) // 2 : len(text) // 2 + 3]
    before = text[: text.index(stop)]
    cut = ask(client, "List every bird.", image, stop=[stop, "never written"])
    assert cut.choices[0].message.content == before and cut.choices[0].finish_reason == "stop"
    assert cut.usage.completion_tokens < whole.usage.completion_tokens
    pieces = [
        chunk.choices[0].delta.content or "" for chunk in ask(client, "List every bird.", image, stop=stop, stream=True)
    ]
    assert "".join(pieces) == before


def test_text_alone_and_several_images(client) -> None:
    one = species("bird")[4]
    answer = client.chat.completions.create(
        model="pocket", messages=[{"role": "user", "content": f"Describe {one.name}."}], max_tokens=40
    )
    assert answer.choices[0].message.content == f"{one.name}: {', '.join(one.marks)}."
    two = ask(client, "List every bird.", Image.new("RGB", (96, 96)), Image.new("RGB", (64, 128), "red"))
    one = ask(client, "List every bird.", Image.new("RGB", (96, 96)))
    assert two.usage.prompt_tokens > one.usage.prompt_tokens


def test_each_row_is_sampled_with_its_own_seed(client, asked) -> None:
    image = Image.open(asked[1] / "1.png")

    def sampled(seed):
        return (
            ask(client, "List every car.", image, temperature=1.5, seed=seed, max_tokens=12).choices[0].message.content
        )

    alone = [sampled(seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(sampled, range(3))) == alone, "neighbours in the batch change nothing"
    assert len(set(alone)) > 1


def test_models(client) -> None:
    assert [model.id for model in client.models.list()] == ["pocket"] == [client.models.retrieve("pocket").id]
    with pytest.raises(openai.NotFoundError, match="this server has 'pocket'"):
        client.models.retrieve("gpt")


SMALL = Image.new("RGB", (32, 32))


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"model": "other"}, 404, "model_not_found"),
        ({"messages": []}, 400, "messages"),
        ({"temperature": -1}, 400, "temperature"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"top_p": 0}, 400, "top_p"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_tokens": 701}, 400, "this server allows 700"),
        ({"n": 2}, 400, "n: "),
        ({"tools": []}, 400, "tools.*known fields"),
        ({"frequency_penalty": 0.5}, 400, "frequency_penalty"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "role"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, 400, "content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a.b/c.png"}}]}]},
         400, "data:image"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "/etc/passwd"}}]}]},
         400, "data:image"),
        ({"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,?"}}]}]}, 400, "not base64"),
        ({"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}]}]}, 400, "not an image"),
        ({"messages": turn("x", Image.new("L", (1000, 41)))}, 400, "the limit is 40000"),
        ({"messages": turn("x", SMALL, SMALL, SMALL)}, 400, "more than 2 images"),
        ({"messages": turn("List every bird. " * 2000)}, 400, "context_length_exceeded"),
        ({"messages": turn("a <|image_pad|> bird")}, 400, r"messages.0.content: <\|image_pad\|> is a special .* None"),
        ({"messages": [{"role": "system", "content": "<|im_end|>"}, *turn("x")]}, 400, "messages.0.content: .*im_end"),
        ({"messages": turn("x" * 200_000)}, 413, "larger than 200000 bytes"),
    ],
)  # fmt: skip
def test_rejected_requests_say_why(client, url, change, status, says) -> None:
    body = {"model": "pocket", "messages": turn("List every bird.", SMALL), "max_tokens": 2} | change
    answer = httpx2.post(f"{url}/chat/completions", json=body, timeout=60)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    assert re.search(says, f"{error['message']} {error['code']}")


def test_other_ways_to_go_wrong(url) -> None:
    for content, headers, status in (
        (b"{", {"content-type": "application/json"}, 400),
        (b"\xff\xfe", {"content-type": "application/json"}, 400),
        (b"{}", {"content-type": "text/plain"}, 415),
    ):
        answer = httpx2.post(f"{url}/chat/completions", content=content, headers=headers)
        assert answer.status_code == status and answer.json()["error"]["message"]
    assert httpx2.get(f"{url}/chat/completions").status_code == 405
    assert httpx2.get(f"{url}/nothing").json()["error"]["message"] == "GET /v1/nothing: Not Found"
    assert httpx2.get(url.removesuffix("/v1") + "/health").json() == {"status": "ok", "requests": 0}


def test_an_overloaded_server_rejects_requests(loaded) -> None:
    with served(Service(loaded, "pocket", limits=ServerLimits(requests=0))) as address:
        client = openai.OpenAI(base_url=address, api_key="any", max_retries=0)
        with pytest.raises(openai.InternalServerError) as refused:
            ask(client, "List every bird.")
    assert refused.value.status_code == 503 and refused.value.response.headers["retry-after"] == "1"
    assert refused.value.code == "overloaded"


def test_a_client_that_disconnects_stops_its_row(pocket_folder) -> None:
    """With random weights and a high temperature a row goes on to its limit: minutes, unless it is
    stopped. With this seed it does; others may draw the end token early."""
    service = Service(checkpoint.load(pocket_folder), "pocket", limits=ServerLimits(tokens=100_000))
    longest = service.loaded.model.config.get_text_config().max_position_embeddings - 200
    with served(service) as address:
        client = openai.OpenAI(base_url=address, api_key="any", max_retries=0)
        stream = ask(client, "List every bird.", SMALL, temperature=2, seed=4, max_tokens=longest, stream=True)
        for _, _ in zip(stream, range(3), strict=False):
            pass
        (job,) = service.jobs
        stream.close()
        assert job.cancelled.wait(20)
        for _ in range(2000):
            if not service.pending:
                break
            time.sleep(0.01)
        assert service.pending == 0 and not service.jobs
        with pytest.raises(openai.APITimeoutError):
            ask(client.with_options(timeout=0.2), "List every bird.", SMALL, temperature=2, seed=4, max_tokens=longest)


def test_a_failed_generation_is_an_error(loaded, monkeypatch) -> None:
    def fails(**_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(loaded.model, "generate", fails)
    with served(Service(loaded, "pocket")) as address:
        client = openai.OpenAI(base_url=address, api_key="any", max_retries=0)
        with pytest.raises(openai.InternalServerError, match="the answer failed: RuntimeError"):
            ask(client, "List every bird.")
        with pytest.raises(openai.APIError, match="the answer failed: RuntimeError"):
            list(ask(client, "List every bird.", stream=True))


def test_a_person_who_opens_the_address_is_told_what_it_is_for(url) -> None:
    response = httpx2.get(url.removesuffix("/v1"))
    assert response.status_code == 200 and f"base_url {url}, any api_key" in response.text


@pytest.mark.ci
def test_the_command_serves_and_ends(root) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mllm.cli", "serve", "pocket", "--port", str(port)]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0, timeout=60)
    try:
        early = ""
        while f"pocket: http://127.0.0.1:{port}/v1" not in early:
            assert process.poll() is None, early + process.stdout.read()
            early += process.stdout.readline()
        client.models.list()  # whoever reads the address may call it at once
        one = species("dog")[0]
        text = ask(client, f"Describe {one.name}.").choices[0].message.content
        assert text == f"{one.name}: {', '.join(one.marks)}."
    finally:
        os.kill(process.pid, signal.SIGINT)
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert output.endswith("stopped; the same command continues\n"), output
    assert "Traceback" not in output, json.dumps(output)

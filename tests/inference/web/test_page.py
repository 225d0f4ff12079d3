"""The page in a real browser: an image is dropped, a thing is asked for, a box is drawn and asked about."""

from __future__ import annotations

import json
import secrets
import socket
import time
import urllib.error
import urllib.request
from io import BytesIO
from statistics import median
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the web extra is not installed")

from mllm.inference.assistant import load
from mllm.inference.web import page
from mllm.pocket import world
from mllm.pocket.species import species
from tests.support.attackers import attackers
from tests.support.browser import browser


@pytest.fixture(scope="module")
def address():
    assistant = load("pocket", device="cpu", batch=2)
    _, url, _ = page.run(
        [assistant, assistant], page.WebLimits(), host="127.0.0.1", port=None, prevent_thread_lock=True
    )
    yield url
    page.gr.close_all(verbose=False)


def asked(url: str, **headers: str) -> tuple[int, dict[str, str], str]:
    """GET an address; the status, the headers and the body of the answer."""
    request = urllib.request.Request(url, headers={name.title(): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read().decode()


def test_the_page_is_served_whole_to_this_machine(address: str) -> None:
    status, headers, body = asked(address)
    assert status == 200 and 'property="og:title" content="Fieldmark"' in body
    config = json.loads(asked(f"{address}config")[2])
    shown = {component["props"].get("elem_id") for component in config["components"]}
    assert {"drop", "draw", "question", "ask", "stop", "stage-0", "stage-1", "talk-0", "talk-1"} <= shown
    assert not [one for one in config["dependencies"] if one["api_visibility"] != "private"], "no handler is an API"
    assert not [name for name in headers if name.lower() == "access-control-allow-credentials"]


@pytest.mark.parametrize("path", ["", "config", "gradio_api/info", "gradio_api/upload"])
def test_the_page_refuses_other_pages_and_names(address: str, path: str) -> None:
    status, headers, body = asked(f"{address}{path}", origin="https://evil.example")
    assert status == 403 and "other pages" in body
    assert not [name for name in headers if name.lower().startswith("access-control")]
    assert asked(f"{address}{path}", host="evil.example")[0] == 421


def test_large_requests_are_refused_before_they_are_read(address: str) -> None:
    port = int(address.rstrip("/").rpartition(":")[2])
    heads = {413: f"Content-Length: {3 * 2**20}", 411: "Transfer-Encoding: chunked"}
    for status, head in heads.items():
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(f"POST /gradio_api/queue/join HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n".encode())
            assert connection.recv(12) == f"HTTP/1.1 {status}".encode()


class Visitor:
    """What the page's script does, without a browser: an event is sent, and its end waited for."""

    def __init__(self, address: str) -> None:
        self.address, self.session = f"{address}gradio_api/queue/", secrets.token_hex(6)
        config = json.loads(asked(f"{address}config")[2])
        self.ids = {component["props"].get("elem_id"): component["id"] for component in config["components"]}
        self.events = {target[0]: one["id"] for one in config["dependencies"] for target in one["targets"]}

    def event(self, kind: str, *values: Any) -> str:
        """Click on a button; `values` are the inputs after the session. Returns the outputs as JSON."""
        sent = {"data": [None, *values], "fn_index": self.events[self.ids[kind]], "session_hash": self.session}
        request = urllib.request.Request(f"{self.address}join", json.dumps(sent).encode())
        request.add_header("Content-Type", "application/json")
        urllib.request.urlopen(request, timeout=60).close()
        with urllib.request.urlopen(f"{self.address}data?session_hash={self.session}", timeout=600) as events:
            line = next(line for line in events if b"process_completed" in line).decode()
        assert '"success":true' in line.replace(" ", ""), line
        return line


def test_a_question_that_is_too_long_is_not_asked(address: str) -> None:
    visitor, question = Visitor(address), "x" * (page.QUESTION + 1)
    visitor.event("draw", True)
    line = visitor.event("ask", question, True, False, "answer at once", "", 0, 64, 0)
    assert json.loads(line.removeprefix("data: "))["output"]["data"][0] == question and line.count(question) == 1


def request_bytes(path: str, kind: str, data: bytes) -> bytes:
    head = f"POST /gradio_api/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


@pytest.mark.slow
def test_200_attacking_connections_leave_a_visitor_its_answer(address: str, tmp_path) -> None:
    """As for `serve`: a visitor waits at most three times as long as alone."""
    file = BytesIO()
    Image.new("L", (5000, 5000)).save(file, "PNG")
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    text = json.dumps({"data": [None, "x" * 3_000_000], "fn_index": 0, "session_hash": "x"}).encode()
    requests = {
        "slow": [request_bytes("queue/join", "application/json", b" " * 1000)],
        "large": [
            request_bytes("queue/join", "application/json", text),
            request_bytes("upload", "multipart/form-data; boundary=x", head + file.getvalue() + b"\r\n--x--\r\n"),
        ],
        "left": [b"GET /gradio_api/queue/data?session_hash=x HTTP/1.1\r\nHost: localhost\r\n\r\n"],
    }
    visitor = Visitor(address)
    visitor.event("draw", True)

    def timed(_: int) -> float:
        start = time.monotonic()
        shown = visitor.event("ask", "Find the bird.", True, False, "answer at once", "", 0, 64, 0)
        assert "\u2192" in shown or "→" in shown, shown
        return time.monotonic() - start

    with attackers(requests, tmp_path) as (attack, sink):
        timed(0)
        alone = [*map(timed, range(4))]
        with attack.attacking(sink):
            control = [*map(timed, range(3))]
        with attack.attacking(int(address.rstrip("/").rpartition(":")[2])):
            attacked = [*map(timed, range(6))]
            while attack.answers()["HTTP/1.1 413"] < 55:
                attacked.append(timed(0))
            answers = attack.answers()
        alone += map(timed, range(4))
    ratio, theirs = (median(times) / median(alone) for times in (attacked, control))
    print(f"alone {median(alone):.2f} s, under attack {ratio:.2f} times as long, in the control {theirs:.2f} times")
    print(alone, attacked, control, dict(answers))
    assert set(answers) <= {"HTTP/1.1 413", "HTTP/1.1 200", "left"}, answers
    assert max(attacked) <= 3 * min(alone), f"{alone} s alone, {attacked} s under attack, {control} s in the control"


@pytest.mark.slow
def test_an_image_a_question_a_box(address, tmp_path):
    birds = species("bird")
    scene = world.make_scene(5, "bird", [birds[0], birds[5], birds[9]])
    file = tmp_path / "<img src=x onerror=alert(1)>.png"
    scene.image.save(file)
    wanted = scene.things[1]
    with browser(tmp_path / "profile") as tab:
        tab.size(1400, 950)
        tab.open(address)
        tab.wait("document.querySelector('#question textarea')")
        tab.upload("#drop input[type=file]", [file])
        tab.wait("document.querySelector('#stage-0 img')")
        tab.write("#question textarea", f"Find the bird with marks {', '.join(wanted.marks)}.")
        bare = tab.js("document.querySelector('#stage-0 img').src")
        tab.click("#ask")
        tab.wait("document.querySelector('#talk-1').innerText.includes('→ #2')", 120)
        tab.wait(f"document.querySelector('#stage-0 img').src != {json.dumps(bare)}")
        tab.wait("document.querySelector('#stage-0 img').complete")
        tab.shoot(tmp_path / "page.png")
        tab.click("#stage-0 img", *wanted.box.center)
        tab.wait("document.querySelector('#question textarea').value == 'What is at #1?'")
        tab.click("#ask")
        tab.wait("document.querySelector('#talk-0').innerText.includes('Answered in words')", 120)
        tab.click("#json-0 button")
        tab.wait("document.querySelector('#json-0').innerText.includes('\"question\": \"What is at #1?\"')")
        assert tab.js("document.querySelectorAll('[onerror]').length") == 0
        assert not tab.console, "errors on the console"
        outside = [one for one in tab.requested if not one.startswith((address, "data:", "blob:"))]
        assert not outside, "the page loads nothing from elsewhere"

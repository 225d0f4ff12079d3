"""The page in a real browser: an image is dropped, a thing is asked for, a box is drawn and asked about."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

pytest.importorskip("gradio", reason="the web extra is not installed")

from mllm.inference.assistant import load
from mllm.inference.web import page
from mllm.pocket import world
from mllm.pocket.species import species
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

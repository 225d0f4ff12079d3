"""The gallery: what it shows of samples and of outputs, that text of models stays text, and that its filters filter."""

from __future__ import annotations

import html

import pytest
from typer.testing import CliRunner

from mllm import cli
from mllm.errors import FieldmarkError
from mllm.report import gallery
from tests.browser import browser
from tests.test_report import EVIL, Page, benchmark


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return benchmark(tmp_path_factory.mktemp("gallery") / EVIL.replace("/", "-"), ["left", "right", "evil"] * 4, EVIL)


def test_outputs_with_evil_texts(folder, tmp_path):
    done = CliRunner().invoke(cli.app, ["inspect", str(folder), "--html", str(tmp_path / "page.html")])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1 and "onerror" not in str(page.tags).replace(EVIL, "")
    assert all(given["src"].startswith("data:image/") for tag, given in page.tags if tag == "img")
    cards = [given for tag, given in page.tags if tag == "article"]
    assert [card["data-outcome"] for card in cards] == ["hit", "miss", "no answer tag"] * 4
    assert float(cards[0]["data-iou"]) == pytest.approx(1) and {card["data-domain"] for card in cards} == {
        "bird",
        "dog",
    }
    assert html.escape(EVIL, quote=False) in text.replace("&#34;", '"')


def test_samples(folder, tmp_path):
    path = gallery.write(folder / "samples.jsonl", tmp_path / "page.html", count=5)
    cards = [given for tag, given in Page(path.read_text()).tags if tag == "article"]
    assert len(cards) == 5 and "5 of 12, evenly spread" in path.read_text()
    assert {card["data-outcome"] for card in cards} == {"ground"}


def test_what_cannot_be_shown(folder, tmp_path):
    with pytest.raises(FieldmarkError, match="no benchmark folder"):
        gallery.write(tmp_path, tmp_path / "page.html")
    done = CliRunner().invoke(cli.app, ["inspect", str(folder)])
    assert isinstance(done.exception, FieldmarkError) and "--html" in str(done.exception)


@pytest.mark.slow
def test_filters_in_a_browser(folder, tmp_path):
    path = gallery.write(folder, tmp_path / "page.html")
    with browser(tmp_path / "profile") as tab:
        tab.size(1200, 800)
        tab.open(path.as_uri())
        tab.wait("document.querySelector('#left')?.textContent == '12 of 12 shown'")
        choose = "document.querySelector('[name={}]').value = {!r}; document.querySelector('form').dispatchEvent({})"
        told = "new Event('input')"
        tab.js(choose.format("outcome", "no answer tag", told))
        tab.wait("document.querySelector('#left').textContent == '4 of 12 shown'")
        tab.js(choose.format("domain", "dog", told))
        tab.wait("document.querySelectorAll('article:not([hidden])').length == 2")
        tab.js(choose.format("outcome", "", told))
        tab.js(choose.format("low", "0.9", told))
        tab.wait("document.querySelectorAll('article:not([hidden])').length == 2")
        assert tab.js("document.querySelectorAll('[onerror]').length") == 0 and not tab.said
        tab.js(choose.format("domain", "", told))
        tab.js(choose.format("low", "", told))
        tab.shoot(tmp_path / "gallery.png")

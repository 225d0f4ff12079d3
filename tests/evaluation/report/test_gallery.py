"""The gallery: what it shows of samples and of outputs, that text of models stays text, and that its filters filter."""

from __future__ import annotations

import html
import json

import pytest

from mllm.data.bags import Bag
from mllm.errors import FieldmarkError
from mllm.evaluation import runs
from mllm.evaluation.report import gallery
from mllm.io.jsonl import write_jsonl
from mllm.records import Answer, Completion, load_samples
from tests.evaluation.report.test_report import EVIL, Page, benchmark
from tests.support.browser import browser
from tests.support.command_line import fieldmark
from tests.support.scenes import make_captions


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return benchmark(tmp_path_factory.mktemp("gallery") / EVIL.replace("/", "-"), ["left", "right", "evil"] * 4, EVIL)


def test_outputs_with_evil_texts(folder, tmp_path):
    done = fieldmark(["inspect", str(folder), "--html", str(tmp_path / "page.html")])
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


@pytest.fixture(scope="module")
def captions(tmp_path_factory):
    """A folder of captions, two families of three, judged in bags of three: one caption takes the wrong image."""
    out = tmp_path_factory.mktemp("captions")
    file = make_captions(out / "truth", "test", families=2, size=3)
    samples = load_samples(file)
    convention = {"family": "pocket", "prompt": "direct", "budget": {"min_pixels": 1, "max_pixels": 9}}
    runs.begin(out, {"model": "m", "convention": convention}, samples, file.parent)
    for sample in samples:
        runs.append(out, Completion(sample.id, f"{EVIL} {sample.captions[0]}", Answer(None, None, (), (), None)))
    rows = [{"bag": str(k // 3), "image": one.id, "found": one.id, "hit": 1.0} for k, one in enumerate(samples)]
    rows[4] |= {"found": samples[3].id, "hit": 0.0}
    share = {"value": 1 / 3, "low": None, "high": None, "samples": 3, "groups": 1, "level": 0.95}
    table = {
        "scorer": "pocket-judge",
        "sizes": {"3": {"r1": share, "chance": 1 / 3}},
        "matches": {"3": rows},
        "text": {"words": 5.0},
    }
    (out / "truematch.json").write_text(json.dumps(table))
    bags = [Bag(f"b{k}", tuple(one.id for one in samples[3 * k : 3 * k + 3]), "hard", 0.75) for k in range(2)]
    write_jsonl(out / "bags.jsonl", bags)
    return out, file, samples


def test_captions_and_the_images_that_they_retrieved(captions, tmp_path):
    out, _, samples = captions
    text = gallery.write(out, tmp_path / "page.html").read_text()
    page = Page(text)
    cards = [given for tag, given in page.tags if tag == "article"]
    assert [card["data-outcome"] for card in cards] == ["all found", "some found"]
    assert float(cards[1]["data-iou"]) == pytest.approx(2 / 3), "filtered by the share that found their own"
    assert [given["alt"] for tag, given in page.tags if tag == "img"] == [one.id for one in samples]
    assert text.count('class="bad">→ 1<') == 1 and text.count("share found from") == 1
    assert [tag for tag, _ in page.tags].count("script") == 1, "captions stay text"


def test_bags_as_they_were_mined(captions, tmp_path):
    out, file, samples = captions
    flags = ["inspect", str(out / "bags.jsonl"), "--html", str(tmp_path / "page.html"), "--count", "1"]
    done = fieldmark([*flags, "--samples", str(file)])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "page.html").read_text()
    assert "1 of 2, evenly spread" in text and "3 look-alikes, similarity 0.75" in text and "→" not in text
    assert all(html.escape(one.captions[0]) in text for one in samples[:3])
    without = fieldmark(flags)
    assert without.exit_code == 2 and "--samples FILE" in without.output
    write_jsonl(tmp_path / "lost.jsonl", [Bag("b", (samples[0].id, "nobody"))])
    with pytest.raises(FieldmarkError, match="bag b: .* holds no sample 'nobody'"):
        gallery.write(tmp_path / "lost.jsonl", tmp_path / "page.html", samples=file)


def test_what_cannot_be_shown(folder, tmp_path):
    with pytest.raises(FieldmarkError, match="not a benchmark folder"):
        gallery.write(tmp_path, tmp_path / "page.html")
    done = fieldmark(["inspect", str(folder)])
    assert done.exit_code == 2 and "--html" in done.output


@pytest.mark.slow
def test_filters_in_a_browser(folder, tmp_path):
    path = gallery.write(folder, tmp_path / "page.html")
    with browser(tmp_path / "profile") as tab:
        tab.size(1200, 800)
        tab.open(path.as_uri())
        tab.wait("document.querySelector('#left')?.textContent == '12 of 12 shown'")
        choose = "document.querySelector('[name={}]').value = {!r}; document.querySelector('form').dispatchEvent({})"
        event = "new Event('input')"
        tab.js(choose.format("outcome", "no answer tag", event))
        tab.wait("document.querySelector('#left').textContent == '4 of 12 shown'")
        tab.js(choose.format("domain", "dog", event))
        tab.wait("document.querySelectorAll('article:not([hidden])').length == 2")
        tab.js(choose.format("outcome", "", event))
        tab.js(choose.format("low", "0.9", event))
        tab.wait("document.querySelectorAll('article:not([hidden])').length == 2")
        assert tab.js("document.querySelectorAll('[onerror]').length") == 0 and not tab.console
        tab.js(choose.format("domain", "", event))
        tab.js(choose.format("low", "", event))
        tab.shoot(tmp_path / "gallery.png")

"""The report: self-contained, everything escaped, and no order claimed that the numbers do not carry."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from mllm.boxes import Box, Frame
from mllm.errors import FieldmarkError
from mllm.evaluation import report, runs
from mllm.evaluation.report import curves
from mllm.io import drawing
from mllm.records import Answer, Completion, Sample, Thing
from tests.support.command_line import fieldmark

UNREAD = Answer(None, None, (), (), None)
EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)> & "quotes"'
LEFT, RIGHT = Box(0.1, 0.2, 0.5, 0.6), Box(0.6, 0.2, 0.9, 0.6)
SAY = {"left": "<answer>(10,20),(50,60)</answer>", "right": "<answer>(60,20),(90,60)</answer>", "evil": EVIL}
THOUGHT = "<think>Talo: round, red. 1 (10,20),(50,60): round, red. 2 (60,20),(90,60): round, blue. So 1.</think>"


def benchmark(folder: Path, texts: list[str], name: str = "Talo", **info) -> Path:
    """A benchmark folder of one question on each of `len(texts)` images; the left thing is right."""
    folder.mkdir(parents=True)
    samples = []
    for k in range(len(texts)):
        Image.new("RGB", (60, 40), (10 * k % 255, 90, 120)).save(folder / f"{k}.png")
        things = (Thing(name, LEFT, ("round", "red")), Thing("other", RIGHT, ("round", "blue")))
        samples.append(
            Sample(
                id=f"s{k}", task="ground", image=f"{k}.png", size=Frame(60, 40), domain=("bird", "dog")[k % 2],
                entity=name, question=f"Find the bird {name}.", boxes=(LEFT,), things=things, split="test",
                seen=k % 2 == 0,
            )
        )  # fmt: skip
    convention = {
        "family": "pocket", "prompt": "think", "budget": {"min_pixels": 9216, "max_pixels": 55296}, "system": None,
        "version": 1,
    }  # fmt: skip
    base = {
        "benchmark": "kvg", "version": "1", "model": "m", "style": "think", "convention": convention, "official": False,
        "samples": {"file": "f", "hash": "h"}, "generation": {"temperature": 0.0},
    }  # fmt: skip
    runs.begin(folder, base | info, samples, folder)
    for sample, words in zip(samples, texts, strict=True):
        runs.append(folder, Completion(sample.id, SAY.get(words, words), UNREAD, tokens=9))
    return folder


class Page(HTMLParser):
    """What a browser would make of the page: tags with attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "link", "img", "hr", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another tag"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    texts = ["left", "right", "evil"] * 4
    a = benchmark(folder / "a", texts, EVIL, model=EVIL)
    b = benchmark(folder / "b", [THOUGHT + SAY["left"]] * 12, EVIL)
    (folder / "train").mkdir()
    rows = [{"step": s, "loss": 3 / s, "eval/acc": s / 10, "seconds": s} for s in range(1, 9)]
    (folder / "train" / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 9, "lo')
    made = report.build({"plain": a, EVIL: b}, logs={EVIL: folder / "train"}, title=EVIL, gallery=4)
    files = report.write(made, folder / "out" / "report.html")
    return made, [path.read_text(encoding="utf-8") for path in files]


def test_injected_text_stays_text(page):
    text = page[1][0]
    parsed = Page(text)
    assert not parsed.open, "every tag is closed"
    assert "script" not in {tag for tag, _ in parsed.tags} and "img" not in {tag for tag, _ in parsed.tags}
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    assert html.escape(EVIL, quote=False).split("&amp;")[0].strip() in text.replace("&#34;", '"')


def test_nothing_is_fetched(page):
    parsed = Page(page[1][0])
    for _, attributes in parsed.tags:
        for name in ("src", "href", "xlink:href"):
            if value := attributes.get(name):
                assert value.startswith(("data:image/", "#")), value
    assert "@import" not in page[1][0] and not re.search(r"url\(", page[1][0])
    assert not re.findall(r"https?://", page[1][0])


def test_images_are_described(page):
    drawn = [attributes for tag, attributes in Page(page[1][0]).tags if tag == "svg"]
    assert all("aria-label" in a or a.get("aria-hidden") == "true" for a in drawn)
    assert any("IoU" in (a.get("aria-label") or "") for a in drawn)
    assert 'class="gold"' in page[1][0] and 'class="said"' in page[1][0]


def test_light_and_dark(page):
    assert "prefers-color-scheme: dark" in page[1][0] and "color-scheme: light dark" in page[1][0]


def test_numbers_agree_in_page_markdown_and_json(page):
    made, (text, markdown, raw) = page
    stored = json.loads(raw)
    assert stored["runs"][0]["slices"]["all"]["acc"]["value"] == pytest.approx(4 / 12)
    assert "33.3" in text and "33.3" in markdown
    assert (
        stored["slices"]
        == made["slices"]
        == ["all", "seen entities", "unseen entities", "seen domains", "unseen domains"]
    )


def test_links_only_where_the_form_is_measured(page):
    row = {row["name"]: row for row in page[0]["links"]}["recall"]
    assert row["cells"][0] is None, "the first run does not reason"
    assert (row["cells"][1]["right"], row["cells"][1]["of"]) == (12, 12)


def test_gallery_shows_hits_and_misses(tmp_path):
    folder = benchmark(tmp_path / "a", ["left"] * 10 + ["right"] * 2)
    visible = report.build({"a": folder}, gallery=4)["gallery"]
    assert len(visible) == 4 and {case["answers"][0]["hit"] for case in visible} == {True, False}
    assert {case["domain"] for case in visible} == {"bird", "dog"}
    assert visible[0]["gold"] == {"x": 6.0, "y": 8.0, "width": 24.0, "height": 16.0}
    assert visible[0]["uri"].startswith("data:image/")


def test_no_order_is_claimed_that_the_numbers_do_not_carry(tmp_path):
    a = benchmark(tmp_path / "a", ["right"] * 6 + ["left"] * 6)
    b = benchmark(tmp_path / "b", ["right"] * 5 + ["left"] * 7)
    c = benchmark(tmp_path / "c", ["left"] * 12)
    made = report.build({"A": a, "B": b, "C": c}, gallery=0)
    words = {(row["a"], row["slice"]): row["sentence"] for row in made["differences"]}
    assert "no order of B and A can be claimed" in words["A", "all"] and "n=12" in words["A", "all"]
    assert "C is above B" in words["B", "all"]
    assert [row for row in made["differences"] if row["slice"].endswith("domains")] == []


def test_runs_on_other_samples_are_not_compared(tmp_path):
    a, b = benchmark(tmp_path / "a", ["left"] * 4), benchmark(tmp_path / "b", ["left"] * 3)
    (row,) = report.build({"A": a, "B": b}, gallery=0)["differences"]
    assert "different samples" in row["sentence"] and report.html(report.build({"A": a, "B": b}, gallery=1))


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(FieldmarkError, match="needs a run"):
        report.build({})
    with pytest.raises(FieldmarkError, match="not a benchmark folder"):
        report.build({"a": tmp_path})
    with pytest.raises(FieldmarkError, match="no such log"):
        curves.read_log(tmp_path)
    (tmp_path / "log.jsonl").write_text('{"step": 1}\nnot json\n{"step": 2}\n')
    with pytest.raises(FieldmarkError, match="log.jsonl:2"):
        curves.read_log(tmp_path)
    for line in (b"\xff", b"9" * 5000, b"[" * 100_000, b"7", b'{"step": null}', b'{"step": NaN}'):
        (tmp_path / "log.jsonl").write_bytes(line + b'\n{"step": 2}\n')
        with pytest.raises(FieldmarkError, match="log.jsonl:1"):
            curves.read_log(tmp_path)
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": %s, "kl": 1e400}\n' % ("9" * 400))  # more than a float
    assert curves.read_log(tmp_path) == [{"step": 1.0}]


def test_curves(tmp_path):
    rows = [
        {"step": 1, "loss": 3.0},
        {"step": 2, "loss": 2.0},
        {"step": 1, "loss": 2.5, "eval/acc": 0.1},
        {"step": 3, "x": "y"},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    log = curves.read_log(tmp_path)
    assert [row["step"] for row in log] == [1, 2, 3] and log[0]["loss"] == 2.5, "a step logged again counts once"
    (panel,) = curves.panels({"a": log})
    assert panel.title == "training loss" and panel.lines[0].last == 2.0
    assert panel.lines[0].dots[0][1] < panel.lines[0].dots[1][1], "larger is higher up"
    long = [{"step": s, "eval/acc": 0.5} for s in range(5000)]
    (panel,) = curves.panels({"a": long})
    assert panel.lines[0].path.count("L") < curves.POINTS and panel.y_ticks[0][1] == "0" and panel.y_ticks[-1][1] == "1"
    grpo = [{"step": s, "loss": 0.0, "reward": s} for s in range(5)]
    assert [p.title for p in curves.panels({"g": grpo})] == ["mean reward of the completions"]
    rows = [{"step": k, "kl": 0.1 * k, "rewards/format/mean": 1.0, "rewards/iou/mean": 0.1 * k} for k in (1.0, 2.0)]
    assert [p.title.split(",")[0] for p in curves.panels({"g": rows})] == [
        "KL from the reference model", "reward format", "reward iou",
    ]  # fmt: skip
    alone = [{"step": k, "rewards/iou/mean": k} for k in (1.0, 2.0)]
    assert curves.panels({"g": alone}) == [], "one reward is the mean reward, which has a panel"


def test_the_command(tmp_path):
    a, b = benchmark(tmp_path / "a", ["left"] * 4), benchmark(tmp_path / "b", ["right"] * 4)
    words = [
        "report",
        "--runs",
        f"A={a}",
        f"B={b}",
        "--runs",
        f"C={b}",
        "--out",
        str(tmp_path / "r.html"),
        "--gallery",
        "1",
    ]
    done = fieldmark(words)
    assert done.exit_code == 0 and "| C " in done.output and str(tmp_path / "r.html") in done.output
    for name in ("r.html", "r.md", "r.json"):
        assert (tmp_path / name).stat().st_size > 100


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 400), (-3.2, 0.1), (0, 7e-6), (2, 2)])
def test_ticks_are_round_and_inside(low, high):
    found = curves.ticks(low, high)
    assert 1 <= len(found) <= 9 and all(low - 1e-9 <= t <= high + 1e-9 for t in found)


def test_drawing(tmp_path):
    img = drawing.draw(
        Image.new("RGB", (64, 48), "black"), [drawing.DrawnBox(Box(0, 0, 0.5, 0.5), "Ünïcode name")], side=320
    )
    assert img.size == (320, 240)
    assert img.getpixel((1, 120)) == (0, 0, 0) and img.getpixel((158, 60)) != (0, 0, 0), "the right edge"
    assert (213, 94, 0) in {c for _, c in img.getcolors(1 << 20)}
    big = drawing.draw(
        Image.new("RGB", (900, 20)), [drawing.DrawnBox(Box(0.9, 0.2, 1, 1), "a long label", dashed=True)]
    )
    assert big.size == (900, 20)


def test_captions_among_look_alikes(tmp_path):
    """Numbers, and who was retrieved by what; model text stays text."""
    from eval import truematch
    from mllm.data.bags import Bag
    from mllm.io.jsonl import write_jsonl
    from mllm.records import load_samples
    from tests.support.scenes import make_captions

    file = make_captions(tmp_path / "data", "test", families=2, size=3)
    samples = load_samples(file)
    write_jsonl(tmp_path / "bags.jsonl", [Bag(f"b{k}", tuple(s.id for s in samples[k : k + 3])) for k in (0, 3)])
    convention = {"family": "pocket", "prompt": "direct", "budget": {"min_pixels": 1, "max_pixels": 9}, "version": 1}
    named = {}
    for name, texts in (("right", [s.captions[0] for s in samples]), ("same", [samples[0].captions[0] + EVIL] * 6)):
        named[name] = tmp_path / name
        runs.begin(named[name], {"model": name, "convention": convention}, samples, file.parent)
        for sample, text in zip(samples, texts, strict=True):
            runs.append(named[name], Completion(sample.id, text, UNREAD))
        arguments = ["--captions", str(named[name] / "outputs.jsonl"), "--samples", str(file)]
        truematch.main(
            [*arguments, "--bags", str(tmp_path / "bags.jsonl"), "--out", str(named[name] / "truematch.json")]
        )
    plain = benchmark(tmp_path / "plain", ["left"] * 4)
    made = report.build({"plain": plain}, captions=named)
    page, text, data = (path.read_text() for path in report.write(made, tmp_path / "out.html"))
    parsed = Page(page)
    assert not parsed.open and "script" not in {tag for tag, _ in parsed.tags}
    assert all(attributes["src"].startswith("data:image/") for tag, attributes in parsed.tags if tag == "img")
    right, same = made["captions"]["runs"]
    assert right["text"]["precision"]["value"] == 1.0 and same["sizes"]["3"]["r1"]["value"] == pytest.approx(1 / 3)
    assert "| same " in text and "33.3" in text and "chance: 33.3 of 3" in text
    assert "bags" not in json.loads(data)["captions"]
    for bag in made["captions"]["bags"]:
        found = {row["found"] for img in bag["images"] for row in img["rows"] if row["name"] == "same"}
        assert len(found) == 1, "one caption for all retrieves one image"
        assert sum(img["rows"][1]["right"] for img in bag["images"]) == 1
    broken = json.loads((named["same"] / "truematch.json").read_text())
    broken["matches"]["3"].pop()
    (named["same"] / "truematch.json").write_text(json.dumps(broken))
    with pytest.raises(FieldmarkError, match="other bags than right"):
        report.build({"plain": plain}, captions=named)
    (named["same"] / "truematch.json").unlink()
    with pytest.raises(FieldmarkError, match=r"eval/truematch.py .* writes it"):
        report.build({"plain": plain}, captions=named)

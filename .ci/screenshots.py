"""Make the images in docs/images anew from the runs of `make demo`, in Debian's headless Chromium.

    python .ci/screenshots.py                           # after `make demo`; -> docs/images
    python .ci/screenshots.py --only chat web --out /tmp

Pages are written by the commands that a person would type. The terminal is a real one: `fieldmark chat` runs in it, its
colours become an SVG, and Chromium draws that. Look at every image before it is committed.
"""

from __future__ import annotations

import argparse
import html
import os
import pty
import re
import select
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the driver is the tests'

from mllm.evaluation import runs  # noqa: E402
from mllm.evaluation.scores import Case  # noqa: E402
from tests.support.browser import Tab, browser  # noqa: E402

WIDTH = 1100
COLOURS = 256
"""Colours of an image's palette, chosen to cover rare ones too (a red stripe is a mark): pages have few, and the files
stay small."""
PROMPT = "find> "


@dataclass(frozen=True)
class Desk:
    """What every image is made with: the tab, the demo's folder, and a folder for what is thrown away."""

    tab: Tab
    demo: Path
    scratch: Path

    def page(self, file: Path, height: int) -> Image.Image:
        """Open a page from the disk and look at its beginning."""
        self.tab.size(WIDTH, height)
        self.tab.open(file.resolve().as_uri())
        self.tab.wait("document.readyState == 'complete' && document.querySelector('h1')")
        return self.look()

    def look(self) -> Image.Image:
        """Take what the window shows."""
        return Image.open(BytesIO(self.tab.shoot(self.scratch / "shot.png").read_bytes())).convert("RGB")

    def command(self, *words: str) -> None:
        """Run one of our commands beside the demo, whose pages then name it as the documentation does."""
        subprocess.run([sys.executable, "-m", "mllm.cli", *words], cwd=self.demo.parent.parent, check=True)


def answers(desk: Desk) -> Image.Image:
    page = desk.scratch / "answers.html"
    desk.command("inspect", _named(desk, "eval/GRPO"), "--html", str(page), "--count", "12")
    return desk.page(page, 825)


def captions(desk: Desk) -> Image.Image:
    page = desk.scratch / "captions.html"
    desk.command("inspect", _named(desk, "captions-eval/SFT"), "--html", str(page), "--count", "12")
    return desk.page(page, 752)


def report(desk: Desk) -> Image.Image:
    return desk.page(desk.demo / "report.html", 917)


def live(desk: Desk) -> Image.Image:
    return desk.page(desk.demo / "rl" / "live.html", 1000)


def compare(desk: Desk) -> Image.Image:
    page = desk.scratch / "compare.html"
    named = [f"{name}={_named(desk, f'eval/{name}')}" for name in ("SFT", "CoT-SFT", "GRPO")]
    desk.command("compare", *named, "--out", str(page))
    return desk.page(page, 917)


def pocket_world(_: Desk) -> Image.Image:
    from mllm.pocket.poster import poster

    return poster()


def web(desk: Desk) -> Image.Image:
    """The page with base and tuned model side by side, asked for one thing by name."""
    from mllm.inference import assistant
    from mllm.inference.web import page as web

    case = _found(desk)
    models = [assistant.load(name, device="cpu", batch=2) for name in ("pocket", _named(desk, "rl/best"))]
    _, address, _ = web.run(models, web.WebLimits(), host="127.0.0.1", port=None, prevent_thread_lock=True)
    tab = desk.tab
    tab.size(1400, 950, scale=WIDTH / 1400)
    tab.open(address)
    tab.wait("document.querySelector('#question textarea')")
    tab.upload("#drop input[type=file]", [_image(desk, case)])
    tab.wait("document.querySelector('#stage-0 img') && document.querySelector('#stage-1 img')")
    bare = tab.js("document.querySelector('#stage-1 img').src")
    tab.write("#question textarea", case.sample.entity)
    tab.click("#ask")
    tab.wait("document.querySelector('#talk-1').innerText.includes('→')", 600)
    tab.wait(f"document.querySelector('#stage-1 img').src != {bare!r}")
    tab.wait("document.querySelector('#stage-1 img').complete")
    time.sleep(1)  # the page fades its parts in
    found = desk.look()
    web.gr.close_all(verbose=False)
    return found


def terminal(desk: Desk) -> Image.Image:
    """The terminal, with the image that it saved beside it."""
    case = _found(desk)
    others = [thing.entity for thing in case.sample.things if thing.entity != case.sample.entity]
    picture = _image(desk, case)
    words = ["fieldmark", "chat", _named(desk, "rl/best"), picture.name, "--domain", case.sample.domain]
    said = talk([*words, "--out", str(desk.scratch)], [case.sample.entity, others[0]], picture.parent, desk)
    saved = sorted(desk.scratch.glob(f"{picture.stem}.*.png"), key=lambda file: file.stat().st_mtime)[0]
    page = desk.scratch / "chat.html"
    style = "margin:0;padding:16px;background:#fff;display:flex;gap:16px;align-items:center"
    page.write_text(
        f"<!doctype html><body style='{style}'><div style='flex:1'>{drawn(said, shlex.join(words))}</div>"
        f"<img style='max-width:320px;max-height:360px' src='{html.escape(saved.as_uri())}'></body>",
        encoding="utf-8",
    )
    desk.tab.size(WIDTH, 100)
    desk.tab.open(page.as_uri())
    desk.tab.wait("document.images[0] && document.images[0].complete && document.querySelector('svg')")
    desk.tab.size(WIDTH, int(desk.tab.js("Math.ceil(document.body.getBoundingClientRect().height)")))
    return desk.look()


def talk(words: list[str], questions: list[str], folder: Path, desk: Desk) -> str:
    """Run a command in a terminal of its own, type the questions, and return all that it showed."""
    model = str((desk.demo / "rl" / "best").resolve())
    real = [sys.executable, "-m", "mllm.cli", words[1], model, *words[3:]]
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "88", "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(real, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = ""
    for question in [*questions, ""]:
        shown += until(ours, PROMPT)
        os.write(ours, f"{question}\n".encode())
    process.wait(60)
    os.close(ours)
    shown = shown[shown.index(f"{model} at ") :]  # bars of the weights being read come before
    return shown.removesuffix(PROMPT).replace(model, words[2]).replace(str(desk.scratch), ".")


def until(terminal: int, end: str, patience: float = 600) -> str:
    """Read a terminal until it shows `end`."""
    text, latest = "", time.monotonic() + patience
    while not text.endswith(end):
        ready, _, _ = select.select([terminal], [], [], max(latest - time.monotonic(), 0))
        if not ready:
            raise SystemExit(f"the terminal never showed {end!r}; it shows:\n{text}")
        text += os.read(terminal, 4096).decode(errors="replace")
    return text


def drawn(said: str, title: str) -> str:
    """Turn what a terminal showed into an SVG; its letters are the machine's own, nothing is fetched."""
    console = Console(record=True, width=88, file=open(os.devnull, "w", encoding="utf-8"), force_terminal=True)  # noqa: SIM115
    console.print(Text.from_ansi(said.replace("\r\n", "\n").strip()))
    form = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    return console.export_svg(
        title=title, code_format=form.replace("Fira Code, monospace", "DejaVu Sans Mono, monospace")
    )


def _named(desk: Desk, part: str) -> str:
    """Name a folder of the demo as it is named from where `make demo` ran."""
    return str(Path(desk.demo.parent.name) / desk.demo.name / part)


def _found(desk: Desk) -> Case:
    """Return the first answer of the rewarded model that is right, on a wide image of a kind it was trained on."""
    cases = runs.load(desk.demo / "eval" / "GRPO").cases
    fit = (case for case in cases if case.hit and case.sample.seen and len(case.sample.things) > 2)
    return next(case for case in fit if case.sample.size.width >= case.sample.size.height)


def _image(desk: Desk, case: Case) -> Path:
    return (desk.demo / "eval" / "GRPO" / case.sample.image).resolve()


IMAGES: dict[str, Callable[[Desk], Image.Image]] = {
    "pocket_world": pocket_world, "answers": answers, "captions": captions, "report": report, "live": live,
    "compare": compare, "web": web, "chat": terminal,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=ROOT / "runs" / "demo", help="what `make demo` left")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--only", nargs="+", choices=sorted(IMAGES), default=list(IMAGES))
    options = parser.parse_args()
    out, demo = options.out.resolve(), options.demo.resolve()
    os.chdir(demo.parent.parent)  # so that folders are called as they are in the documentation
    with tempfile.TemporaryDirectory() as name, browser(Path(name) / "profile") as tab:
        for picture in options.only:
            desk = Desk(tab, demo, Path(name))
            small = IMAGES[picture](desk).quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            file = out / f"{picture}.png"
            small.save(file, optimize=True)
            print(f"{file}: {small.width} x {small.height}, {file.stat().st_size // 1024} KB", flush=True)


if __name__ == "__main__":
    main()

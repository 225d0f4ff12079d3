"""Take the screenshots in docs/images from the runs of `make demo`, in headless Chromium.

    python .ci/screenshots.py                           # after `make demo`; -> docs/images
    python .ci/screenshots.py --only chat web --out /tmp

Pages are written by the commands that a user would type. `fieldmark chat` runs in a real terminal, whose colours become
an SVG, which Chromium draws. Look at every image before you commit it.
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
sys.path.insert(0, str(ROOT))  # for the tests' browser driver

from mllm.evaluation import runs  # noqa: E402
from mllm.evaluation.scores import Case  # noqa: E402
from mllm.pocket.species import DOMAINS, species  # noqa: E402
from mllm.pocket.world import TILE, photo  # noqa: E402
from tests.support.browser import Tab, browser  # noqa: E402

WIDTH = 1100
COLOURS = 256
"""Size of an image's palette, which covers rare colours too (a red stripe is a mark). Small, for small files."""
PROMPT = "find> "


@dataclass(frozen=True)
class Session:
    """What every screenshot needs: a browser tab, the demo's folder, and a scratch folder."""

    tab: Tab
    demo: Path
    scratch: Path

    def page(self, file: Path, height: int) -> Image.Image:
        """Open a page from disk and return a screenshot of its top, `height` pixels high."""
        self.tab.size(WIDTH, height)
        self.tab.open(file.resolve().as_uri())
        self.tab.wait("document.readyState == 'complete' && document.querySelector('h1')")
        return self.screenshot()

    def screenshot(self) -> Image.Image:
        """Return a screenshot of the window."""
        return Image.open(BytesIO(self.tab.shoot(self.scratch / "shot.png").read_bytes())).convert("RGB")

    def command(self, *words: str) -> None:
        """Run a command in the demo's parent folder, so that its page names folders as the documentation does."""
        subprocess.run([sys.executable, "-m", "mllm.cli", *words], cwd=self.demo.parent.parent, check=True)


def answers(session: Session) -> Image.Image:
    page = session.scratch / "answers.html"
    session.command("inspect", _path(session, "eval/GRPO"), "--html", str(page), "--count", "12")
    return session.page(page, 825)


def captions(session: Session) -> Image.Image:
    page = session.scratch / "captions.html"
    session.command("inspect", _path(session, "captions-eval/SFT"), "--html", str(page), "--count", "12")
    return session.page(page, 752)


def report(session: Session) -> Image.Image:
    return session.page(session.demo / "report.html", 917)


def live(session: Session) -> Image.Image:
    return session.page(session.demo / "rl" / "live.html", 1000)


def compare(session: Session) -> Image.Image:
    page = session.scratch / "compare.html"
    folders = [f"{name}={_path(session, f'eval/{name}')}" for name in ("SFT", "CoT-SFT", "GRPO")]
    session.command("compare", *folders, "--out", str(page))
    return session.page(page, 917)


def pocket_world(_: Session) -> Image.Image:
    """Draw the pocket world: ten columns of domains, three sister species each."""
    sheet = Image.new("RGB", (TILE * len(DOMAINS), TILE * 3), "white")
    for column, domain in enumerate(DOMAINS):
        for row, one in enumerate(species(domain)[6:9]):
            sheet.paste(photo(one, seed=2)[0], (column * TILE, row * TILE))
    return sheet


def web(session: Session) -> Image.Image:
    """Return the web page with base and tuned model side by side, after a question for one thing by name."""
    from mllm.inference import assistant
    from mllm.inference.web import page as web

    case = _example(session)
    models = [assistant.load(name, device="cpu", batch=2) for name in ("pocket", _path(session, "rl/best"))]
    _, address, _ = web.run(models, web.WebLimits(), host="127.0.0.1", port=None, prevent_thread_lock=True)
    tab = session.tab
    tab.size(1400, 950, scale=WIDTH / 1400)
    tab.open(address)
    tab.wait("document.querySelector('#question textarea')")
    tab.upload("#drop input[type=file]", [_image(session, case)])
    tab.wait("document.querySelector('#stage-0 img') && document.querySelector('#stage-1 img')")
    bare = tab.js("document.querySelector('#stage-1 img').src")
    tab.write("#question textarea", case.sample.entity)
    tab.click("#ask")
    tab.wait("document.querySelector('#talk-1').innerText.includes('→')", 600)
    tab.wait(f"document.querySelector('#stage-1 img').src != {bare!r}")
    tab.wait("document.querySelector('#stage-1 img').complete")
    time.sleep(1)  # the page fades its parts in
    found = session.screenshot()
    web.gr.close_all(verbose=False)
    return found


def terminal(session: Session) -> Image.Image:
    """Return the terminal, with the image that it saved beside it."""
    case = _example(session)
    others = [thing.entity for thing in case.sample.things if thing.entity != case.sample.entity]
    image = _image(session, case)
    words = ["fieldmark", "chat", _path(session, "rl/best"), image.name, "--domain", case.sample.domain]
    text = chat_in_terminal(
        [*words, "--out", str(session.scratch)], [case.sample.entity, others[0]], image.parent, session
    )
    saved = sorted(session.scratch.glob(f"{image.stem}.*.png"), key=lambda file: file.stat().st_mtime)[0]
    page = session.scratch / "chat.html"
    style = "margin:0;padding:16px;background:#fff;display:flex;gap:16px;align-items:center"
    page.write_text(
        f"<!doctype html><body style='{style}'><div style='flex:1'>{terminal_svg(text, shlex.join(words))}</div>"
        f"<img style='max-width:320px;max-height:360px' src='{html.escape(saved.as_uri())}'></body>",
        encoding="utf-8",
    )
    session.tab.size(WIDTH, 100)
    session.tab.open(page.as_uri())
    session.tab.wait("document.images[0] && document.images[0].complete && document.querySelector('svg')")
    session.tab.size(WIDTH, int(session.tab.js("Math.ceil(document.body.getBoundingClientRect().height)")))
    return session.screenshot()


def chat_in_terminal(words: list[str], questions: list[str], folder: Path, session: Session) -> str:
    """Run a command in a pseudo-terminal, type the questions, and return the terminal's text."""
    model = str((session.demo / "rl" / "best").resolve())
    command = [sys.executable, "-m", "mllm.cli", words[1], model, *words[3:]]
    terminal, child = pty.openpty()
    environment = {**os.environ, "COLUMNS": "88", "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdin=child, stdout=child, stderr=child)
    os.close(child)
    output = ""
    for question in [*questions, ""]:
        output += read_until(terminal, PROMPT)
        os.write(terminal, f"{question}\n".encode())
    process.wait(60)
    os.close(terminal)
    output = output[output.index(f"{model} at ") :]  # progress bars of loading come before
    return output.removesuffix(PROMPT).replace(model, words[2]).replace(str(session.scratch), ".")


def read_until(terminal: int, end: str, timeout: float = 600) -> str:
    """Read a terminal until its text ends with `end`. Exits after `timeout` seconds."""
    text, deadline = "", time.monotonic() + timeout
    while not text.endswith(end):
        ready, _, _ = select.select([terminal], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            raise SystemExit(f"{end!r} did not appear in the terminal; its text is:\n{text}")
        text += os.read(terminal, 4096).decode(errors="replace")
    return text


def terminal_svg(text: str, title: str) -> str:
    """Turn a terminal's text into an SVG in the machine's own font; it loads nothing from the network."""
    console = Console(record=True, width=88, file=open(os.devnull, "w", encoding="utf-8"), force_terminal=True)  # noqa: SIM115
    console.print(Text.from_ansi(text.replace("\r\n", "\n").strip()))
    form = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    return console.export_svg(
        title=title, code_format=form.replace("Fira Code, monospace", "DejaVu Sans Mono, monospace")
    )


def _path(session: Session, part: str) -> str:
    """Return the path of a part of the demo, relative to where `make demo` ran."""
    return str(Path(session.demo.parent.name) / session.demo.name / part)


def _example(session: Session) -> Case:
    """Return the first right answer of the GRPO model, on a wide image of a kind it was trained on."""
    cases = runs.load(session.demo / "eval" / "GRPO").cases
    fit = (case for case in cases if case.hit and case.sample.seen and len(case.sample.things) > 2)
    return next(case for case in fit if case.sample.size.width >= case.sample.size.height)


def _image(session: Session, case: Case) -> Path:
    return (session.demo / "eval" / "GRPO" / case.sample.image).resolve()


IMAGES: dict[str, Callable[[Session], Image.Image]] = {
    "pocket_world": pocket_world, "answers": answers, "captions": captions, "report": report, "live": live,
    "compare": compare, "web": web, "chat": terminal,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=ROOT / "runs" / "demo", help="folder that `make demo` wrote")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--only", nargs="+", choices=sorted(IMAGES), default=list(IMAGES))
    options = parser.parse_args()
    out, demo = options.out.resolve(), options.demo.resolve()
    os.chdir(demo.parent.parent)  # so that pages name folders as the documentation does
    with tempfile.TemporaryDirectory() as scratch, browser(Path(scratch) / "profile") as tab:
        for name in options.only:
            session = Session(tab, demo, Path(scratch))
            small = IMAGES[name](session).quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            file = out / f"{name}.png"
            small.save(file, optimize=True)
            print(f"{file}: {small.width} x {small.height}, {file.stat().st_size // 1024} KB", flush=True)


if __name__ == "__main__":
    main()

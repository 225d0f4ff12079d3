"""Debian's headless Chromium, driven through its own debugging pipe (Chrome DevTools Protocol): no driver, no port.

with browser(tmp_path) as tab:
    tab.open("file:///tmp/page.html")
    tab.wait("document.querySelector('h1')")
    tab.shoot(Path("page.png"))
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --hide-scrollbars --remote-debugging-pipe"
).split()


class Tab:
    """One tab. `requested` holds the addresses that the page asked for, `console` what it wrote to the console."""

    def __init__(self, process: subprocess.Popen, out: int, into: int) -> None:
        self.process, self._out, self._into = process, out, into
        self._number, self._buffer, self._session = 0, b"", None
        self.requested: list[str] = []
        self.console: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, *, timeout: float = 60, **params: Any) -> dict[str, Any]:
        """Send one command and wait for its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._into, json.dumps(message).encode() + b"\0")
        latest = time.monotonic() + timeout
        while True:
            answer = self._next(latest - time.monotonic())
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._note(answer)

    def size(self, width: int, height: int, scale: float = 1) -> None:
        """Set the size of the window's inside."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )

    def open(self, address: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=address)

    def js(self, code: str) -> Any:
        """Evaluate an expression in the page; promises are waited for."""
        done = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, f"{code}: {done['exceptionDetails']}"
        return done["result"].get("value")

    def wait(self, code: str, timeout: float = 60) -> Any:
        """Wait until an expression is true, and return it."""
        latest = time.monotonic() + timeout
        while not (value := self.js(f"(() => {{ const v = {code}; return v instanceof Node ? true : v; }})()")):
            assert time.monotonic() < latest, (
                f"never true: {code}\n{self.js('document.body.innerText')}\n{self.console}"
            )
            time.sleep(0.1)
        return value

    def upload(self, selector: str, files: Sequence[Path]) -> None:
        """Put files into an input of type file."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def write(self, selector: str, text: str) -> None:
        """Type a text into a field."""
        self.js(f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.focus(); e.select(); }})()")
        self.call("Input.insertText", text=text)

    def click(self, selector: str, across: float = 0.5, down: float = 0.5) -> None:
        """Click into an element, at a share of its width and height."""
        find = f"document.querySelector({json.dumps(selector)})"
        self.js(f"{find}.scrollIntoView({{block: 'nearest'}})")
        box = self.js(
            f"(() => {{ const r = {find}.getBoundingClientRect(); return [r.x, r.y, r.width, r.height]; }})()"
        )
        place = {"x": box[0] + across * box[2], "y": box[1] + down * box[3], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **place)

    def shoot(self, path: Path, *, whole: bool = False) -> Path:
        """Save a screenshot: what the window shows, or the whole page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))
        return path

    def _next(self, timeout: float) -> dict[str, Any]:
        """Read one message."""
        latest = time.monotonic() + timeout
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._out], [], [], max(latest - time.monotonic(), 0))
            assert ready, "the browser does not answer"
            data = os.read(self._out, 1 << 20)
            assert data, "the browser is gone"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)

    def _note(self, event: dict[str, Any]) -> None:
        """Keep the requests and console messages of the page."""
        params = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])
        elif event.get("method") == "Runtime.exceptionThrown":
            self.console.append(str(params["exceptionDetails"].get("exception", {}).get("description")))
        elif event.get("method") == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.console.append(" ".join(str(one.get("value", one.get("description"))) for one in params["args"]))


@contextmanager
def browser(profile: Path, program: str = "chromium") -> Iterator[Tab]:
    """Start a browser with a fresh profile in a folder; skips the test where none is installed."""
    if (found := shutil.which(program)) is None:
        pytest.skip(f"{program} is not installed")
    to_it, into = os.pipe()
    out, from_it = os.pipe()

    def pipes() -> None:
        read, write = os.dup(to_it), os.dup(from_it)  # out of the way of 3 and 4, which Chromium listens on
        os.dup2(read, 3)
        os.dup2(write, 4)

    process = subprocess.Popen(
        [found, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        preexec_fn=pipes,
        pass_fds=(3, 4),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_it)
    os.close(from_it)
    try:
        tab = Tab(process, out, into)
        yield tab
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(into)
        os.close(out)

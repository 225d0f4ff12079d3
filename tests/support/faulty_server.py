"""A small OpenAI-compatible server that misbehaves on purpose and counts everything that reaches it."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = str | tuple[int, dict[str, str]] | None
"""None answers well; a name misbehaves (see `_Handler.FAULTS`); a pair is a status with headers."""


class FaultyServer(ThreadingHTTPServer):
    """`fault(number, text)` says what happens to the request with that number (from 0) and text."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, fault: Callable[[int, str], Fault], delay: float, answer: Callable[[str], str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fault, self.delay, self.answer = fault, delay, answer
        self.requests: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.by_text: Counter[str] = Counter()
        self.under_way = self.peak = 0
        self.gone = False
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are part of the play."""


@contextmanager
def serving(
    fault: Callable[[int, str], Fault] = lambda number, text: None,
    delay: float = 0.0,
    answer: Callable[[str], str] = lambda text: f"Said: {text}",
) -> Iterator[FaultyServer]:
    """Run the server; `answer` writes the reply to a text."""
    server = FaultyServer(fault, delay, answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.gone = True  # connections that are kept open have threads of their own
        server.shutdown()
        server.server_close()
        thread.join()


def text_of(body: dict[str, Any]) -> str:
    """The last text of a request."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else [p["text"] for p in content if p["type"] == "text"][-1]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text, server = text_of(body), self.server
        if server.gone:
            self.close_connection = True
            return
        with server.lock:
            number = len(server.requests)
            server.requests.append(body)
            server.times.append(time.monotonic())
            server.by_text[text] += 1
            server.under_way += 1
            server.peak = max(server.peak, server.under_way)
        try:
            if server.delay:
                time.sleep(server.delay)
            fault = server.fault(number, text)
        finally:
            with server.lock:  # before the answer leaves: the client may send its next call at once
                server.under_way -= 1
        if fault is None:
            self._send(200, completion(body["model"], server.answer(text)))
        elif isinstance(fault, tuple):
            self._send(fault[0], {"error": {"message": "no", "type": "t", "code": None}}, fault[1])
        else:
            self.FAULTS[fault](self)

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _silent(self) -> None:
        time.sleep(0.4)
        self.close_connection = True

    def _reset(self) -> None:
        self.close_connection = True

    def _cut(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "5000")
        self.end_headers()
        self.wfile.write(b'{"id": "x", "choices": [')
        self.close_connection = True

    def _drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "5000")
        self.end_headers()
        for _ in range(1000):
            self.wfile.write(b" ")
            time.sleep(0.05)
        self.close_connection = True

    def _usage(self, read: Any, written: Any) -> None:
        counts = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": 1}
        self._send(200, {**completion("m", "Said."), "usage": counts})

    def _echo(self) -> None:
        self._send(400, {"error": {"message": f"bad {'x' * 150} {self.headers['authorization']}", "code": None}})

    FAULTS: dict[str, Callable[[Any], None]] = {
        "silent": _silent,
        "reset": _reset,
        "cut": _cut,
        "html": lambda self: self._send(200, b"<html>proxy</html>", {"Content-Type": "text/html"}),
        "broken json": lambda self: self._send(200, b'{"choices": [{"message"'),
        "not utf-8": lambda self: self._send(200, b'{"choices": "\xff\xfe"}'),
        "no choices": lambda self: self._send(200, {"id": "x", "object": "chat.completion", "choices": []}),
        "no text": lambda self: self._send(200, completion("m", None)),
        "a list": lambda self: self._send(200, [1, 2]),
        "refuses": lambda self: self._send(200, completion("m", "That I cannot say.")),
        "drip": _drip,
        "endless": lambda self: self._send(200, b" " * 5000),
        "half a character": lambda self: self._send(200, completion("m", "half \ud83d")),
        "deep": lambda self: self._send(200, b"[" * 200_000 + b"]" * 200_000),
        "deep object": lambda self: self._send(200, b'{"a":' * 200_000),
        "many digits": lambda self: self._send(200, b'{"id":' + b"9" * 5000 + b"}"),
        "negative usage": lambda self: self._usage(-5, 3),
        "absurd usage": lambda self: self._usage(10, 10**30),
        "echo": _echo,
        "truncated": lambda self: self._send(200, completion("m", "half a", finish="length")),
    }


def completion(model: str, text: Any, finish: str = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13},
    }

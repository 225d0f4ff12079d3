"""Names in Host and Origin: only this machine's own, and those that were allowed."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from mllm.inference.hosts import Guard, guarded, is_own, own_names

OWN = own_names("Box.example.org")


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "localhost:8000", "LOCALHOST:80", "localhost.", "a.localhost:1", "127.0.0.1:8000", "[::1]:8000",
        "[::1]", "192.168.1.7:7860", "box.example.org:8000", "Box.Example.org.", socket.gethostname(),
    ],
)  # fmt: skip
def test_own_names(host: str) -> None:
    assert is_own(host, OWN)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "evil-localhost", "",
        "user@localhost", "localhost/x", "evil.example@127.0.0.1", "[::1", "127.0.0.1:x", "box.example.org.evil",
        "0x7f.evil", "a b", "localhost:8000, evil.example",
    ],
)  # fmt: skip
def test_foreign_names(host: str) -> None:
    assert not is_own(host, OWN)


def asked(app, *, kind: str = "http", **headers: str) -> tuple[int, dict[str, str], str]:
    """Send a GET to an application; the status, the headers and the body of its answer."""
    sent: list[dict] = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": kind, "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "scheme": "http",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "http_version": "1.1", "root_path": "",
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    if sent[0]["type"] == "websocket.close":
        return sent[0]["code"], {}, ""
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent).decode()


def test_a_guarded_application_refuses_foreign_names_and_other_pages() -> None:
    """gradio's own middleware lets any page in, with its cookies; the guard stands before it."""
    inner = Starlette(routes=[Route("/", lambda _: PlainTextResponse("in"))])
    inner.add_middleware(CORSMiddleware, allow_origins=["*"], allow_credentials=True)
    inner.middleware_stack = inner.build_middleware_stack()

    async def start() -> None:
        async with guarded(inner, own_names("page.example.org"), largest=len):  # a path has as many bytes as letters
            pass

    asyncio.run(start())
    assert asked(inner, host="localhost:7860")[::2] == (200, "in")
    assert asked(inner, host="localhost:7860", origin="http://localhost:7860")[0] == 200
    assert asked(inner, host="127.0.0.1:7860", origin="https://page.example.org")[0] == 200, "a proxy in front"
    for origin in ("https://evil.example", "http://localhost:3000", "null", "http://127.0.0.1:7860.evil.example"):
        status, headers, body = asked(inner, host="localhost:7860", origin=origin)
        assert status == 403 and "other pages" in json.loads(body)["error"]["message"]
        assert not [name for name in headers if name.startswith("access-control")], headers
    status, headers, body = asked(inner, host="evil.example:7860", origin="http://evil.example:7860")
    assert status == 421 and "'evil.example'" in body and "--allow-host" in body and len(headers) == 2
    for size, status in ((1, 200), (2, 413)):
        assert asked(inner, host="localhost", **{"content-length": str(size)})[0] == status
    assert asked(inner, host="localhost", **{"transfer-encoding": "chunked"})[0] == 411
    assert asked(inner)[0] == 421 and asked(inner, host="evil.example", kind="websocket")[0] == 1008


def test_a_long_name_is_not_repeated() -> None:
    body = asked(Guard(PlainTextResponse("in"), OWN), host="x" * 10_000)[2]
    assert len(body) < 400

"""Clients take turns, large work rests, and a body that need not be read is dropped at the same pace."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from mllm.inference import turns
from mllm.inference.turns import LARGE_BODY, Pace, Paced, Turns


def test_one_of_each_client_then_a_second_one_of_each() -> None:
    queue: Turns[str] = Turns()
    for item in ("a1", "a2", "a3", "b1", "c1", "c2"):
        queue.put(item[0], item)
    assert [queue.take() for _ in range(len(queue))] == ["a1", "b1", "c1", "a2", "c2", "a3"] and not queue


def test_pieces_come_one_at_a_time_in_turns_with_rests() -> None:
    done: list[str] = []

    async def piece(pace: Pace, client: str) -> None:
        async with pace.turn(client):
            done.append(f"{client} begins")
            await asyncio.sleep(0.01)
            done.append(f"{client} ends")

    async def all_of() -> float:
        pace, start = Pace(), time.monotonic()
        tasks = [asyncio.create_task(piece(pace, client)) for client in "aaaxb"]
        await asyncio.sleep(0)
        tasks[3].cancel()  # a client that leaves while it waits
        await asyncio.gather(*tasks, return_exceptions=True)
        return time.monotonic() - start

    assert asyncio.run(all_of()) > 4 * 0.01 + 3 * 0.03, "each piece is followed by a rest three times as long"
    assert done == [f"{client} {what}" for client in "aaba" for what in ("begins", "ends")]


def test_a_piece_that_fails_or_is_given_up_leaves_its_turn_to_the_next() -> None:
    async def all_of() -> None:
        pace = Pace()
        with pytest.raises(ZeroDivisionError):
            async with pace.turn("a"):
                raise ZeroDivisionError
        waiting = asyncio.create_task(pace.turn("b").__aenter__())
        while not waiting.done():  # the turn of b comes, and never ends
            await asyncio.sleep(0.001)
        late = asyncio.create_task(pace.turn("c").__aenter__())
        await asyncio.sleep(0)
        pace._next()
        late.cancel()  # at the moment at which its turn comes
        await asyncio.gather(late, return_exceptions=True)
        async with asyncio.timeout(5), pace.turn("d"):
            pass

    asyncio.run(all_of())


def answered(parts: list[bytes], *, read: bool, endless: bool = False, monkeypatch: Any) -> tuple[list[Any], int, int]:
    """What a `Paced` application sends, the turns that it took, and the parts that are left unread."""
    monkeypatch.setattr(turns, "UNREAD_SECONDS", 0.2)
    left, sent, taken = list(parts), [], []

    class Counted(Pace):
        def turn(self, client):
            taken.append(client)
            return super().turn(client)

    async def receive() -> Any:
        if not left:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": left.pop(0), "more_body": endless or bool(left)}

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while read and (await receive())["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"answer"})

    scope = {"type": "http", "method": "POST", "headers": [(b"authorization", b"k")], "client": ("1.2.3.4", 5)}
    asyncio.run(Paced(app, Counted())(scope, receive, send))
    assert set(taken) <= {("1.2.3.4", "k", "")}
    return sent, len(taken), len(left)


@pytest.mark.parametrize("read", [True, False])
def test_what_is_beyond_the_beginning_of_a_body_is_read_in_turns(read: bool, monkeypatch) -> None:
    sent, taken, left = answered([b"x" * LARGE_BODY] * 4, read=read, monkeypatch=monkeypatch)
    assert (taken, left) == (3, 0), "the rest is read, whether it is wanted or not"
    closes = (b"connection", b"close") in sent[0]["headers"]
    assert closes is not read and b"".join(message.get("body", b"") for message in sent[1:]) == b"answer"
    assert [message.get("more_body", False) for message in sent[1:]] == ([False] if read else [True, False])


def test_a_small_body_takes_no_turn(monkeypatch) -> None:
    assert answered([b"x", b"y"], read=True, monkeypatch=monkeypatch)[1:] == (0, 0)


def test_an_unread_body_that_does_not_end_is_given_up(monkeypatch) -> None:
    start = time.monotonic()
    sent, _, left = answered([b"x"] * 3, read=False, endless=True, monkeypatch=monkeypatch)
    assert left == 0 and sent[-1].get("more_body") is None and time.monotonic() - start < 30


def test_requests_with_large_bodies_or_files_begin_some_time_apart() -> None:
    begun: list[float] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.append(time.monotonic())

    async def all_of(*headers: tuple[bytes, bytes]) -> float:
        begun.clear()
        paced = Paced(app, Pace(), between=0.1)
        scope = {"type": "http", "method": "POST", "headers": headers, "client": ("1.2.3.4", 5)}
        await asyncio.gather(*(paced(scope, None, None) for _ in range(3)))
        return begun[-1] - begun[0]

    for header in ((b"content-length", b"70000"), (b"transfer-encoding", b"chunked")):
        assert asyncio.run(all_of(header)) > 0.19
    assert asyncio.run(all_of((b"content-type", b"multipart/form-data; boundary=x"))) > 0.19
    assert asyncio.run(all_of((b"content-length", b"60000"))) < 0.19

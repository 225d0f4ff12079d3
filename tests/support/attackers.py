"""A program of 200 attacking connections at the lowest priority, for the servers' tests; and a server that only reads.

Run as `python attackers.py sink`, or `python attackers.py REQUESTS.json`; commands come on stdin, one a line: `attack
PORT`; `count`, which prints how often each first line of an answer came; `rest`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

CONNECTIONS = {"slow": 60, "large": 110, "left": 30}


class Attackers:
    """The program, at rest. `requests`: lists of complete HTTP requests of each kind in `CONNECTIONS`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def _say(self, line: str) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    @contextmanager
    def attacking(self, port: int) -> Iterator[None]:
        """Attack while the block runs."""
        self._say(f"attack {port}")
        yield
        self._say("rest")

    def answers(self) -> Counter[str]:
        """Return how often each first line of an answer has come since the attack began, and what was left ("left")."""
        return Counter(json.loads(self._say("count")))


@contextmanager
def attackers(requests: dict[str, Sequence[bytes]], folder: Path) -> Iterator[tuple[Attackers, int]]:
    """Start the program and the server that only reads; yield them, the latter as a port."""
    file = folder / "requests.json"
    file.write_text(json.dumps({kind: [one.decode("latin-1") for one in some] for kind, some in requests.items()}))
    command, pipe = [sys.executable, __file__], subprocess.PIPE
    with (
        subprocess.Popen([*command, "sink"], stdin=pipe, stdout=pipe, text=True) as sink,
        subprocess.Popen([*command, file], stdin=pipe, stdout=pipe, text=True) as process,
    ):
        try:
            assert sink.stdout is not None
            yield Attackers(process), int(sink.stdout.readline())
        finally:
            process.kill()
            sink.kill()


def _attack(kind: str, content: bytes, port: int, resting: threading.Event, answers: Counter[str]) -> None:
    """One connection: with a large request it attacks again once it was answered, else a second after it was closed."""
    while not resting.is_set():
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
            if kind == "slow":
                connection.sendall(content[: content.index(b"\r\n\r\n") + 4])
                for byte in content[-1000:]:
                    if resting.wait(1):
                        break
                    connection.sendall(bytes([byte]))
            else:
                with suppress(OSError):  # it may have been answered already
                    connection.sendall(content)
                answers[connection.recv(12).decode() if kind == "large" else kind] += 1
        resting.wait(0 if kind == "large" else 1)


def _sink() -> None:
    """Read what comes, and close."""

    def read(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            while len(connection.recv(2**18)) == 2**18:
                pass

    with socket.create_server(("127.0.0.1", 0), backlog=256) as server:
        print(server.getsockname()[1], flush=True)
        threading.Thread(target=lambda: [sys.stdin.read(), os._exit(0)], daemon=True).start()  # ends with the test
        while True:
            threading.Thread(target=read, args=(server.accept()[0],), daemon=True).start()


def _main(file: str) -> None:
    os.nice(19)
    requests = {k: [one.encode("latin-1") for one in some] for k, some in json.loads(Path(file).read_text()).items()}
    resting, answers = threading.Event(), Counter[str]()
    for line in sys.stdin:
        if line.startswith("attack"):
            resting, answers = threading.Event(), Counter[str]()
            for kind, count in CONNECTIONS.items():
                for number in range(count):
                    content = requests[kind][number % len(requests[kind])]
                    about = kind, content, int(line.split()[1]), resting, answers
                    threading.Thread(target=_attack, args=about, daemon=True).start()
        elif line.startswith("rest"):
            resting.set()
        print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    _sink() if sys.argv[1] == "sink" else _main(sys.argv[1])

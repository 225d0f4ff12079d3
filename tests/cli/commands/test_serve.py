"""`fieldmark serve` before its model is read: the address is had, or the error says so."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from mllm.errors import FieldmarkError
from mllm.inference.server import bind
from tests.support.command_line import fieldmark


def test_an_address_that_is_taken_is_an_error_before_weights_are_read(tmp_path: Path) -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):  # a client does not wait in a queue while weights are read
            socket.create_connection(("127.0.0.1", port))
        taken.listen()
        ended = fieldmark(["serve", str(tmp_path / "nowhere"), "--port", str(port)])
    assert ended.exit_code == 2 and ended.output.startswith(f"error: cannot listen at 127.0.0.1, port {port}: Address")
    assert ended.output.endswith("; choose another --port or --host\n")


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.name.invalid", "1.2.3.4.5"])
def test_an_address_of_another_machine_is_an_error(host: str) -> None:
    with pytest.raises(FieldmarkError, match=f"cannot listen at {host}, port 0: .*; choose another --port or --host"):
        bind(host, 0)

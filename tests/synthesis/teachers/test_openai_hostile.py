"""A teacher behind a hostile server: no reply ends a run with a traceback, costs more than it says, or leads away."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from mllm.errors import FieldmarkError
from mllm.inference import openai_http
from mllm.inference.openai_errors import retry_after
from mllm.synthesis.capabilities import TeacherError
from tests.support.faulty_server import serving
from tests.synthesis.teachers.test_openai import say, teacher_of


@pytest.mark.parametrize("value", ["9" * 400, "1e999", "nan", f"Wed, 21 Oct 2026 07:28:00 -{'9' * 20}", "Wed, 21 Oct"])
def test_a_retry_after_that_means_nothing_is_none(value) -> None:
    assert retry_after(SimpleNamespace(response=SimpleNamespace(headers={"retry-after": value}))) is None


@pytest.mark.ci
def test_a_server_that_drips_is_given_up(tmp_path) -> None:
    with serving(lambda number, text: "drip" if number == 0 else None) as server:
        teacher = teacher_of(server, tmp_path, longest=3)
        start = time.monotonic()
        assert say(teacher).startswith("Said") and len(server.requests) == 2
        assert time.monotonic() - start < 25, "it drips for fifty seconds"
    with serving(lambda number, text: "drip") as server, pytest.raises(TeacherError, match="timed out.*0.2 seconds"):
        say(teacher_of(server, tmp_path / "other", longest=0.2, tries=1))


def test_a_reply_without_end_is_given_up(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(openai_http, "LONGEST_REPLY", 3000)
    with serving(lambda number, text: "endless") as server, pytest.raises(TeacherError, match="more than 3000 bytes"):
        say(teacher_of(server, tmp_path, tries=1))


@pytest.mark.parametrize("fault", ["negative usage", "absurd usage"])
def test_counts_that_cannot_be_true_are_not_counted(fault, tmp_path) -> None:
    with serving(lambda number, text: fault) as server:
        teacher = teacher_of(server, tmp_path)
        assert say(teacher) == "Said." and len(server.requests) == 1, "it is paid for"
        report = teacher.report()
    assert (report.tokens_in, report.tokens_out, report.uncounted, report.answered) == (0, 0, 1, 1)


def test_an_echoed_key_is_not_shown(tmp_path) -> None:
    with serving(lambda number, text: "echo") as server:
        teacher = teacher_of(server, tmp_path, api_key="sk-0123456789")
        with pytest.raises(TeacherError, match=r"\(the key\)|server answered 400") as error:
            say(teacher)
    assert "sk-01" not in f"{error.value} {teacher.report()}"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_request_follows_to_another_server(status, tmp_path) -> None:
    with serving() as other:
        with serving(lambda number, text: (status, {"Location": f"{other.url}/chat/completions"})) as server:
            with pytest.raises(FieldmarkError, match="sends requests on to http://127.0.0.1") as ended:
                say(teacher_of(server, tmp_path))
        assert not isinstance(ended.value, TeacherError) and len(server.requests) == 1 and not other.requests


def test_a_redirect_on_the_same_server_is_followed(tmp_path) -> None:
    with serving(lambda number, text: (307, {"Location": "/v2/chat/completions"}) if number == 0 else None) as server:
        assert say(teacher_of(server, tmp_path)).startswith("Said") and len(server.requests) == 2


def test_half_a_character_in_what_is_sent_is_a_failure_of_that_request(tmp_path) -> None:
    with serving() as server:
        teacher = teacher_of(server, tmp_path)
        with pytest.raises(TeacherError, match="half a character"):
            teacher.marks("Talo \ud83d", "bird")
        assert say(teacher) and len(server.requests) == 1
        str(teacher.report()).encode()

"""A teacher behind a server that misbehaves: nothing is lost, nothing is asked twice, every failure is listed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import pytest
from PIL import Image

from mllm.errors import ConfigError, FieldmarkError
from mllm.inference.openai_errors import retry_after
from mllm.synthesis import teachers
from mllm.synthesis.capabilities import Edits, Knows, Look, Points, Reasons, Sees, TeacherError
from tests.support.faulty_server import FaultyServer, serving


def teacher_of(server: FaultyServer, folder, **settings):
    quick = {"backoff": 0.001, "timeout": 5.0, "tries": 3, "cache": folder / "replies", "model": "m", "api_key": "k"}
    return teachers.load("openai", **{**quick, "base_url": server.url, **settings})


def say(teacher, k=0) -> str:
    return teacher.blend([f"caption {k}"])


@pytest.mark.parametrize(
    "fault",
    [
        (429, {}), (429, {"Retry-After": "0"}), (500, {}), (502, {}), (503, {"Retry-After": "0.01"}), (408, {}),
        "reset", "cut", "html", "broken json", "not utf-8", "no choices", "no text", "a list",
        "half a character", "deep", "deep object", "many digits",
        (429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 +99999999999999999999"}),
        (503, {"Retry-After": "Wed, 21 Oct 999999999999 07:28:00 GMT"}),
    ],
)  # fmt: skip
def test_what_passes_is_tried_again(fault, tmp_path) -> None:
    with serving(lambda number, text: fault if number < 2 else None) as server:
        teacher = teacher_of(server, tmp_path)
        assert say(teacher).startswith("Said: These captions")
        report = teacher.report()
    assert len(server.requests) == 3 == report.calls and server.requests[0] == server.requests[2]
    assert report.answered == 1 and report.failures == () and (report.tokens_in, report.tokens_out) == (10, 3)


def test_a_server_that_stays_silent_times_out(tmp_path) -> None:
    with serving(lambda number, text: "silent" if number == 0 else None) as server:
        teacher = teacher_of(server, tmp_path, timeout=0.1)
        assert say(teacher) and len(server.requests) == 2
        patient = teacher_of(server, tmp_path, timeout=5)
        server.delay = 0.15
        assert say(patient, 1) and len(server.requests) == 3, "a slow answer is an answer"


def test_retry_after_is_kept(tmp_path) -> None:
    with serving(lambda number, text: (429, {"Retry-After": "0.2"}) if number == 0 else None) as server:
        say(teacher_of(server, tmp_path))
    assert server.times[1] - server.times[0] >= 0.2
    with serving(lambda number, text: (503, {"Retry-After": "3600"})) as server:
        teacher = teacher_of(server, tmp_path / "other")
        with pytest.raises(TeacherError, match="server answered 503"):
            say(teacher)
        assert len(server.requests) == 1, "nobody waits an hour"


def test_retry_after_in_seconds_and_as_a_date() -> None:
    def message(value):
        return retry_after(SimpleNamespace(response=SimpleNamespace(headers={"retry-after": value})))

    assert message("7") == 7 and message("0.5") == 0.5 and message("-3") == 0
    assert message("") is None and message("soon") is None and message("inf") is None
    assert 58 < message(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)) <= 60
    assert message(format_datetime(datetime.now(UTC) - timedelta(seconds=60), usegmt=True)) == 0
    assert retry_after(None) is None and retry_after(ValueError()) is None


def test_one_failed_request_is_listed_and_the_next_goes_well(tmp_path) -> None:
    with serving(lambda number, text: (500, {}) if "caption 1" in text else None) as server:
        teacher = teacher_of(server, tmp_path, price_in=2.0, price_out=4.0)
        assert say(teacher, 0)
        with pytest.raises(TeacherError) as failed:
            say(teacher, 1)
        assert failed.value.reason == "server answered 500" and say(teacher, 2)
        report = teacher.report()
        with pytest.raises(TeacherError):
            say(teacher, 1)  # a failure is not kept: it may go well another time
    assert [(f.reason, f.calls, f.what) for f in report.failures] == [
        ("server answered 500", 3, "blend of 'caption 1'")
    ]
    assert (report.answered, report.calls) == (2, 5) and len(server.requests) == 8
    assert report.cost == pytest.approx((20 * 2 + 6 * 4) / 1e6)
    assert "blend of 'caption 1': server answered 500 (tried 3 times)" in str(report)


def test_a_request_that_is_refused_is_not_repeated(tmp_path) -> None:
    with serving(lambda number, text: (400, {})) as server:
        with pytest.raises(TeacherError, match="server answered 400"):
            say(teacher_of(server, tmp_path))
    assert len(server.requests) == 1


@pytest.mark.parametrize(("status", "says"), [(401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (404, "no such model")])
def test_what_fails_for_everybody_ends_the_run(status, says, tmp_path) -> None:
    with serving(lambda number, text: (status, {})) as server:
        with pytest.raises(FieldmarkError, match=says) as ended:
            say(teacher_of(server, tmp_path))
    assert not isinstance(ended.value, TeacherError) and len(server.requests) == 1


def test_a_server_that_is_gone_ends_the_run(tmp_path) -> None:
    with serving() as server:
        teacher = teacher_of(server, tmp_path, tries=2, give_up_after=3)
        assert say(teacher)
    for k in (1, 2):
        with pytest.raises(TeacherError, match="connection failed"):
            say(teacher, k)
    with pytest.raises(FieldmarkError, match="3 requests failed in a row") as ended:
        say(teacher, 3)
    assert not isinstance(ended.value, TeacherError) and len(teacher.report().failures) == 3
    assert say(teacher).startswith("Said"), "what is kept needs no server"


def test_unreadable_and_truncated_replies_are_failures_and_are_kept(tmp_path) -> None:
    with serving(lambda number, text: "truncated" if "Write one caption" in text else "refuses") as server:
        teacher = teacher_of(server, tmp_path)
        for _ in range(2):
            with pytest.raises(TeacherError, match="reply truncated"):
                say(teacher)
            with pytest.raises(TeacherError, match="unreadable reply"):
                teacher.differences("a", "b", "bird")
        assert len(server.requests) == 2, "the same question has the same answer"
        assert [f.reason for f in teacher.report().failures] == ["reply truncated", "unreadable reply"] * 2


def test_never_more_calls_than_allowed(tmp_path) -> None:
    three = threading.Barrier(3, timeout=20)  # nobody is answered before three are there

    def together(number, text):
        three.wait()

    with serving(together) as server:
        teacher = teacher_of(server, tmp_path, concurrency=3)
        with ThreadPoolExecutor(12) as threads:
            texts = list(threads.map(lambda k: say(teacher, k), range(12)))
    assert server.peak == 3 and len(server.requests) == 12 == len(set(texts))


def test_threads_that_want_the_same_ask_once(tmp_path) -> None:
    with serving(delay=0.05) as server:
        one, two = teacher_of(server, tmp_path), teacher_of(server, tmp_path)
        with ThreadPoolExecutor(8) as threads:
            texts = set(threads.map(lambda k: say((one, two)[k % 2]), range(8)))
        assert len(texts) == 1 and len(server.requests) == 1
        assert one.report().cached + two.report().cached == 7
    with serving(lambda number, text: (400, {}), delay=0.05) as server:
        teacher = teacher_of(server, tmp_path / "other")
        with ThreadPoolExecutor(4) as threads:
            failed = [threads.submit(say, teacher) for _ in range(4)]
            assert all(isinstance(one.exception(), TeacherError) for one in failed)
    assert len(server.requests) == 1 == len(teacher.report().failures)


def test_a_storm_loses_nothing(tmp_path) -> None:
    """Sixty requests by eight threads, two calls of five misbehave: each is answered with its own text or listed."""
    kinds = ["reset", "cut", "html", "broken json", "no choices", (429, {"Retry-After": "0"}), (500, {}), (400, {})]
    rng = random.Random(7)
    faults = [rng.choice(kinds) if rng.random() < 0.4 else None for _ in range(400)]
    with serving(lambda number, text: faults[number]) as server:
        teacher = teacher_of(server, tmp_path, concurrency=4, give_up_after=1000)

        def outcome(k):
            try:
                return say(teacher, k)
            except TeacherError as error:
                return error

        with ThreadPoolExecutor(8) as threads:
            outcomes = list(threads.map(outcome, range(60)))
        report = teacher.report()
    answered = [k for k, one in enumerate(outcomes) if isinstance(one, str)]
    assert all(f"1. caption {k} " in outcomes[k] + " " for k in answered)
    assert len(answered) == report.answered and len(answered) + len(report.failures) == 60
    assert 0 < len(report.failures) < 20 and server.peak <= 4
    assert report.calls == len(server.requests) and max(server.by_text.values()) <= 3


def test_the_whole_request_is_the_key(tmp_path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "b.png")
    with serving() as server:
        base = teacher_of(server, tmp_path)
        look = Look(tmp_path / "a.png", "bird")
        base.describe(look)
        base.describe(look)
        teacher_of(server, tmp_path, timeout=2.0, tries=9, api_key="other").describe(look)
        assert len(server.requests) == 1
        base.describe(Look(tmp_path / "b.png", "bird"))
        base.describe(look, seed=1)
        for settings in ({"model": "n"}, {"seed": 5}, {"max_tokens": 7}, {"system": "Be brief."}, {"max_pixels": 1024}):
            teacher_of(server, tmp_path, **settings).describe(look)
        teacher_of(server, tmp_path, extra_body={"top_k": 3}).describe(look)
        assert len(server.requests) == 9
        (tmp_path / "a.png").write_bytes((tmp_path / "b.png").read_bytes())
        base.describe(look)
        assert len(server.requests) == 9, "known by its bytes, wherever it lies"
    sent = server.requests[0]
    image, text = sent["messages"][0]["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,") and text["type"] == "text"
    assert (sent["temperature"], sent["max_tokens"], sent["model"]) == (0.0, 1024, "m")
    assert server.requests[2]["temperature"] == 0.7 and server.requests[2]["seed"] == 1
    assert server.requests[6]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert server.requests[8]["top_k"] == 3


def test_a_damaged_reply_is_named(tmp_path) -> None:
    with serving() as server:
        say(teacher_of(server, tmp_path))
        (file,) = (tmp_path / "replies").rglob("*.json")
        file.write_text("{")
        with pytest.raises(FieldmarkError, match=f"{file.name}.*delete the file"):
            say(teacher_of(server, tmp_path))
    assert len(server.requests) == 1


def test_settings_come_from_the_environment(tmp_path, monkeypatch) -> None:
    with serving() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "secret")
        monkeypatch.setenv("FIELDMARK_TEACHER_MODEL", "from-outside")
        monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path))
        teacher = teachers.load("openai")
        assert say(teacher) and server.requests[0]["model"] == "from-outside"
        assert list((tmp_path / "replies").rglob("*.json"))
        message = teachers.identity("openai", price_in=1)
        assert message["model"] == "from-outside" and not {"api_key", "base_url", "price_in", "cache"} & set(message)
        assert "secret" not in repr(teacher._config) and "secret" not in str(message)
    monkeypatch.delenv("FIELDMARK_TEACHER_MODEL")
    with pytest.raises(ConfigError, match="FIELDMARK_TEACHER_MODEL"):
        teachers.load("openai")
    for ability in (Reasons, Knows, Sees, Points, Edits):
        assert isinstance(teacher, ability)


CHILD = """
import sys
from mllm.synthesis import teachers
teacher = teachers.load("openai", model="m", api_key="k", base_url=sys.argv[1], cache=sys.argv[2], backoff=0.001)
for k in range(30):
    print(teacher.blend([f"caption {k}"]).splitlines()[0], flush=True)
print(teacher.report())
"""


@pytest.mark.ci
def test_replies_outlive_a_kill_and_serve_other_processes(tmp_path) -> None:
    with serving(delay=0.03) as server:
        command = [sys.executable, "-c", CHILD, server.url, str(tmp_path / "replies")]
        first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while len(server.requests) < 12:
            assert first.poll() is None
            time.sleep(0.005)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        second = subprocess.run(command, capture_output=True, text=True, check=True)
        assert second.stdout.count("Said:") == 30
        twice = [text for text, count in server.by_text.items() if count > 1]
        assert len(twice) <= 1 and len(server.by_text) == 30, "only the call that was under way at the kill"
        before = len(server.requests)
        third = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(server.requests) == before and "m: 0 answered in 0 calls, 30 cached" in third.stdout

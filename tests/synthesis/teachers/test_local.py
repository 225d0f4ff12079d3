"""A teacher in this process and the same model behind the server say the same, down to what cannot be read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from mllm.inference.server import Service
from mllm.pocket import world
from mllm.pocket.species import species
from mllm.synthesis import teachers
from mllm.synthesis.capabilities import Edits, Knows, Look, Points, Reasons, Sees, TeacherError
from tests.support.served import served


@pytest.fixture(scope="module")
def looks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("looks")
    for k, one in enumerate(species("bird")[:2]):
        world.photo(one, k)[0].save(folder / f"{k}.png")
    return [Look(folder / f"{k}.png", "bird") for k in range(2)]


def text(teacher, look, seed=0):
    """What a teacher says of an image; the pocket model does not understand the question, and says something."""
    try:
        return teacher.describe(look, seed=seed)
    except TeacherError as error:
        return error.reason, error.detail


@pytest.mark.ci
def test_local_and_served_say_the_same(looks, tmp_path) -> None:
    local = teachers.load("local", model="pocket", dtype="float32", device="cpu", max_tokens=256, batch=4, patience=0.2)
    assert all(isinstance(local, ability) for ability in (Reasons, Knows, Sees, Points, Edits))
    asked = [(look, seed) for look in looks for seed in (0, 1)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda one: text(local, *one), asked))
    report = local.report()
    assert report.calls == report.answered == 4 and report.tokens_out > 0 and report.uncounted == 0
    assert text(local, *asked[1]) == together[1], "alone as in a batch"
    assert len({str(one) for one in together}) > 1
    with served(Service(local._loaded, "pocket", batch=4)) as address:
        remote = teachers.load(
            "openai", model="pocket", base_url=address, api_key="any", family="pocket", max_tokens=256,
            cache=tmp_path, tries=1,
        )  # fmt: skip
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(lambda one: text(remote, *one), asked)) == together
        message = remote.report()
        assert (message.tokens_in, message.tokens_out) == (report.tokens_in, report.tokens_out)
    local.close()

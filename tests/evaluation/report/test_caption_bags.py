"""What eval/truematch.py left is checked before a page is made of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mllm.errors import FieldmarkError
from mllm.evaluation.report import caption_bags
from tests.evaluation.report.test_report import benchmark
from tests.support.fuzz_files import BAG_SCORES
from tests.support.fuzz_targets import dumped


def test_a_folder_that_is_whole_becomes_a_table(tmp_path: Path) -> None:
    folder = benchmark(tmp_path / "run", ["left", "right"])
    (folder / caption_bags.SCORES).write_bytes(dumped(BAG_SCORES))
    assert "| run" in caption_bags.markdown(caption_bags.build({"run": folder}))


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("field sizes.2.r1.value: Input should be a valid number", lambda t: t["sizes"]["2"]["r1"].update(value="x")),
        ("field sizes: Dictionary should have at least 1 item", lambda t: t.update(sizes={})),
        ("field matches.2: no match", lambda t: t.update(matches={})),
        ("field matches.2[0].bag: is missing", lambda t: t["matches"]["2"][0].pop("bag")),
        ("field matches.2[0].bag: String should match", lambda t: t["matches"]["2"][0].update(bag="x")),
        ("matches.2[0].image: no sample 'gone'", lambda t: t["matches"]["2"][0].update(image="gone")),
        ("matches.2[0].found: 'gone' is not an image of bag 0", lambda t: t["matches"]["2"][0].update(found="gone")),
        ("field text.words: is missing", lambda t: t.update(text={})),
    ],
)
def test_scores_of_other_shapes_are_named(tmp_path: Path, message: str, change: Callable[[Any], Any]) -> None:
    folder, table = benchmark(tmp_path / "run", ["left", "right"]), copy.deepcopy(BAG_SCORES)
    change(table)
    (folder / caption_bags.SCORES).write_bytes(dumped(table))
    with pytest.raises(FieldmarkError) as error:
        caption_bags.build({"run": folder})
    assert message in str(error.value) and "truematch.json" in str(error.value)

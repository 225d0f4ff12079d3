"""The convention beside the weights: saved, read back, and refused with the field that is wrong."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from mllm.errors import FamilyError, FieldmarkError, UnknownNameError
from mllm.models import families
from mllm.models.families import Budget, Convention, read_convention, write_convention


def test_an_unknown_family_lists_the_known_ones() -> None:
    with pytest.raises(
        UnknownNameError, match="unknown family 'qwen3'.*Did you mean 'qwen3_vl'.*Known: pocket, qwen2_5_vl"
    ):
        families.load("qwen3")
    error = pickle.loads(pickle.dumps(UnknownNameError("family", "x", ["b", "a"])))
    assert isinstance(error, FieldmarkError) and str(error) == "unknown family 'x'. Known: a, b."


def test_a_convention_is_saved_beside_the_weights(tmp_path: Path) -> None:
    convention = Convention("qwen2_5_vl", "think", Budget(3136, 401408), system="Be brief.")
    assert write_convention(tmp_path, convention) == tmp_path / "fieldmark.json"
    assert read_convention(tmp_path) == convention
    write_convention(tmp_path, Convention("pocket", "direct", Budget(9216, 55296)))
    assert read_convention(tmp_path).family == "pocket"
    with pytest.raises(UnknownNameError):
        write_convention(tmp_path, Convention("llava", "direct", Budget(1, 2)))
    assert read_convention(tmp_path).family == "pocket"


BAD = {
    "unknown family": ({"family": "llava"}, "field family: unknown family 'llava'.*Known: pocket"),
    "another version": ({"version": 99}, "field version: convention 99, but this Fieldmark uses"),
    "unknown field": ({"colour": "red"}, "unknown field colour"),
    "impossible budget": ({"budget": {"min_pixels": 5, "max_pixels": 1}}, "image budget"),
    "another file": ({"schema": "other"}, "field schema"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_a_bad_convention_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    file = write_convention(tmp_path, Convention("pocket", "direct", Budget(1, 2)))
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(FamilyError, match=rf"fieldmark\.json: .*{message}"):
        read_convention(tmp_path)


def test_a_checkpoint_without_convention_asks_for_the_family(tmp_path: Path) -> None:
    with pytest.raises(FamilyError, match=r"no fieldmark\.json beside .*Set `family`: qwen2_5_vl or qwen2_vl or"):
        read_convention(tmp_path)

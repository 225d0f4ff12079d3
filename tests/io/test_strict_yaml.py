"""YAML that is hostile or mistyped: refused at once, with its line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mllm.errors import ConfigError, FieldmarkError
from mllm.io import strict_yaml
from mllm.knowledge import card_files, domains
from mllm.synthesis import teachers
from mllm.training import config_file


def bomb(write: str) -> str:
    """Nine levels of nine aliases each: 400 million values, in lists, objects or merged objects."""
    lines = ["b0: &b0 {x: 1}"]
    for level in range(1, 10):
        lines.append(f"b{level}: &b{level} " + write.format(", ".join([f"*b{level - 1}"] * 9)))
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text, line, problem",
    [
        (bomb("[{}]"), 5, "more than 30 aliases"),
        (bomb("{{<<: [{}]}}"), 5, "more than 30 aliases"),
        (bomb("{{[{}]: 1}}"), 5, "more than 30 aliases"),
        ("a: " + "[" * 100_000, 1, "nested more than 50 levels deep|maximum nesting depth"),  # PyYAML has a limit, too
        ("a: " + "{b: " * 60 + "1" + "}" * 60, 1, "nested more than 50 levels deep"),
        ("\n".join(" " * level + "a:" for level in range(60)), 51, "nested more than 50 levels deep"),
        ("a: 1\nb: {c: 1, d: 2, c: 3}", 2, "key 'c' is given twice"),
        ("a: 1\nb: *c", 2, "undefined alias"),
        ("a: 2020-99-99", 0, "month must be in 1..12"),
        ("a: " + "9" * 5000, 0, "limit"),
        ("a: \x07", 0, "unacceptable character"),
        ("a: !!python/object/apply:os.system [ls]", 1, "could not determine a constructor"),
    ],
)
def test_what_is_no_plain_yaml_is_refused(text: str, line: int, problem: str) -> None:
    place = f"a.yaml:{line}" if line else "a.yaml"
    with pytest.raises(FieldmarkError, match=rf"^{place}: broken YAML: .*{problem}") as error:
        strict_yaml.loads(text, "a.yaml")
    assert len(str(error.value)) < 230


def test_aliases_and_nesting_within_bounds_are_read() -> None:
    assert strict_yaml.loads("[" * 49 + "]" * 49, "")
    texts = "a: &a x\n" + "".join(f"b{k}: *a\n" for k in range(200))
    assert set(strict_yaml.loads(texts, "").values()) == {"x"}
    lists = "a: &a [1]\n" + "".join(f"b{k}: *a\n" for k in range(30))
    assert len(strict_yaml.loads(lists, "")) == 31
    assert strict_yaml.loads("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}", "")["b"] == {"x": 1, "y": 3}


def test_every_reader_of_yaml_is_strict(tmp_path: Path) -> None:
    file = tmp_path / "wren.yaml"
    file.write_text(bomb("[{}]"), encoding="utf-8")
    readers = (card_files.read, config_file.load_yaml, domains.read, teachers.read_config)
    for read in readers:
        with pytest.raises(ValueError, match=r"wren.yaml:5: broken YAML: more than 30 aliases"):
            read(file)
    file.write_bytes(b"a: \xff")
    for read in readers:
        with pytest.raises(ValueError, match=r"wren.yaml: not UTF-8 at byte 4; save"):
            read(file)
    with pytest.raises(ConfigError, match="nowhere.yaml: no such file of a teacher's settings"):
        teachers.read_config(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="teacher option 'a=.*: broken YAML: nested"):
        teachers.read_config(None, ["a=" + "[" * 1000])


def test_many_cards_are_read_in_time_that_grows_with_them(tmp_path: Path) -> None:
    """Counted in calls of Python functions, which no other load of the machine changes."""

    def calls(number: int) -> int:
        file = tmp_path / "bird.yaml"
        file.write_text("".join(f"wren {k}:\n  domain: bird\n  marks: [tail {k}, beak]\n" for k in range(number)))
        counted = 0

        def count(frame: object, event: str, argument: object) -> None:
            nonlocal counted
            counted += event == "call"

        sys.setprofile(count)
        try:
            card_files.read(file)
        finally:
            sys.setprofile(None)
        return counted

    card_files.read(tmp_path / "bird.yaml") if calls(1) else None  # what is made once
    few, many = calls(20), calls(60)
    assert many < 3.2 * few and many / 60 < 250

"""The list of parts holds single words, each its own part."""

from __future__ import annotations

from mllm.knowledge.parts import PARTS, part_of


def test_every_part_is_its_own_and_plurals_are_too() -> None:
    for part in PARTS:
        assert part_of(f"a red {part}") == part
        assert part_of(f"two {part}s") in PARTS

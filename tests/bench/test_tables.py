"""The bench's table, against a row worked by hand."""

from __future__ import annotations

from dataclasses import replace

from bench.parts.step import Result, Size
from bench.parts.tables import HEAD, table

ONE = Result(
    size=Size("qwen3_vl", 1000, 256, 8), prompt=992, share=8.0, learner=(9.0, 1.5), rollout=(16.0, 8.0),
    rest=(0.5, 0.25), tokens=(9984, 3039), floor=0.75, image=0.06, rounds=2, memory=(1525, 544),
)  # fmt: skip


def test_a_row_by_hand() -> None:
    """25.5 s of stock's against 9.75 s; the law allows 25.5 / (1.5 + 8 + 0.5) = 2.55x, of which 2.615 is 1.03."""
    row = [cell.strip() for cell in table([ONE]).splitlines()[2].strip("|").split(" | ")]
    assert row == [
        "Qwen3-VL, 1000/256, 8", "2", "9.00 / 1.50 s, 6.0x", "16.00 / 8.00 s, 2.0x", "25.50 / 9.75 s, 2.6x", "1.03",
        "9,984 / 3,039", "0.75 s; 12.0 / 2.0", "1,525 / 544 MiB",
    ]  # fmt: skip


def test_families_stand_together_and_short_prompts_first() -> None:
    sizes = [("qwen2_5_vl", 300, 4), ("qwen3_vl", 1000, 4), ("qwen3_vl", 300, 16), ("qwen3_vl", 300, 8)]
    given = [replace(ONE, size=Size(family, prompt, 128, group), memory=None) for family, prompt, group in sizes]
    lines = table(given).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "Qwen3-VL, 300/128, 8", "Qwen3-VL, 300/128, 16", "Qwen3-VL, 1000/128, 4", "Qwen2.5-VL, 300/128, 4"
    ]  # fmt: skip
    assert all(name in lines[0] for name in HEAD) and lines[2].rstrip("| ").endswith("-")

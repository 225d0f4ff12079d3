"""The table of docs/performance.md, as `make bench` writes it."""

from __future__ import annotations

from collections.abc import Sequence

from bench.parts.plots import NAMES
from bench.parts.step import Pair, Result
from mllm.io.tables import markdown

HEAD = (
    "Model, size, G", "rounds", "learner step, stock / ours", "sampling", "whole GRPO step", "of Amdahl's law",
    "tokens of the learner step", "floor; stock and ours in times of it", "peak memory of the learner step",
)  # fmt: skip


def table(results: Sequence[Result]) -> str:
    """Return one row per size as Markdown: families in the bench's order, short prompts first."""
    families = list(NAMES)
    ordered = sorted(results, key=lambda one: (families.index(one.size.family), one.size.prompt, one.size.group))
    return markdown([HEAD, *(_row(one) for one in ordered)])


def _row(one: Result) -> list[str]:
    size, above = one.size, [seconds / one.floor for seconds in one.learner]
    return [
        f"{NAMES[size.family]}, {size.prompt}/{size.completion}, {size.group}",
        str(one.rounds),
        *(_gain(pair) for pair in (one.learner, one.rollout, one.step)),
        f"{one.step[0] / one.step[1] / one.allowed:.2f}",
        f"{one.tokens[0]:,.0f} / {one.tokens[1]:,.0f}",
        f"{one.floor:.2f} s; {above[0]:.1f} / {above[1]:.1f}",
        "-" if one.memory is None else f"{one.memory[0]:,} / {one.memory[1]:,} MiB",
    ]


def _gain(pair: Pair) -> str:
    return f"{pair[0]:.2f} / {pair[1]:.2f} s, {pair[0] / pair[1]:.1f}x"

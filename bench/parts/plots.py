"""Plots the learner step's time by group size, stock and ours: a column per length, a row per family."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.parts.step import Result

NAMES = {"qwen3_vl": "Qwen3-VL", "qwen2_5_vl": "Qwen2.5-VL"}


def draw(results: Sequence[Result], file: Path) -> None:
    """Write the figure; the floor is drawn as a dotted line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    families = list(dict.fromkeys(one.size.family for one in results))
    lengths = sorted({(one.size.prompt, one.size.completion) for one in results})
    shape = (4 * len(lengths), 2.9 * len(families))
    figure, axes = pyplot.subplots(len(families), len(lengths), figsize=shape, squeeze=False)
    for line, family in zip(axes, families, strict=True):
        for axis, length in zip(line, lengths, strict=True):
            mine = [
                one for one in results if (one.size.family, one.size.prompt, one.size.completion) == (family, *length)
            ]
            if not mine:  # not measured yet
                axis.axis("off")
                continue
            groups = [one.size.group for one in mine]
            for way, name in enumerate(("stock TRL", "prefix engine")):
                axis.plot(groups, [one.learner[way] for one in mine], marker="o", label=name)
            axis.plot(groups, [one.floor for one in mine], ":", color="gray", label="floor")
            axis.set(title=f"{NAMES[family]}, {length[0]} + {length[1]} tokens", xticks=groups)
            axis.set_ylim(bottom=0)
    for axis in axes[-1]:
        axis.set_xlabel("completions of a prompt")
    for line in axes:
        line[0].set_ylabel("learner step, CPU seconds")
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(file, dpi=110)

"""Whether the answer has the form that was asked for. It judges the form alone, never the place of the box."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mllm.errors import ConfigError
from mllm.records import Completion, Sample, Score
from mllm.rewards import BaseReward

Style = Literal["think", "direct"]
_TAG = re.compile(r"</?(?:think|answer)>")
_ORDER = {"think": ["<think>", "</think>", "<answer>", "</answer>"], "direct": ["<answer>", "</answer>"]}


@dataclass(frozen=True)
class Reward(BaseReward):
    """R = 0.5 * [tags] + 0.5 * [one answer], 0..1.

    [tags]: the text is `<think>...</think><answer>...</answer>` (style `direct`: without the thought), each tag once,
    in this order, nothing outside them but white space, and a thought that is not empty. [one answer]: the answer could
    be read and is exactly one box, so that many guesses in a row earn nothing, or says that the thing is absent; where
    every instance is asked for (task `ground_all`), one box or more, all of them valid.

    The two halves are those of DeepPerception and KARL (arXiv 2503.12797), whose code is looser about tags (words after
    the answer are let pass) and stricter about boxes (`(x1,y1),(x2,y2)` alone; as released, DeepPerception's could
    never be earned).
    """

    style: Style = "think"

    def __post_init__(self) -> None:
        """Refuse an unknown style."""
        if self.style not in get_args(Style):
            raise ConfigError(f"reward 'format': style must be one of {', '.join(get_args(Style))}, got {self.style!r}")

    def __call__(self, samples: Sequence[Sample], completions: Sequence[Completion]) -> list[Score]:
        """Score each completion; parts: tags and one_box, each 0 or 1."""
        return [self._score(sample, completion) for sample, completion in zip(samples, completions, strict=True)]

    def _score(self, sample: Sample, completion: Completion) -> Score:
        """Score one completion."""
        tags = float(self._in_order(completion.text))
        answer = completion.answer
        one = len(answer.numbers) == 1 or (sample.task == "ground_all" and len(answer.numbers) == len(answer.boxes))
        one_box = float(answer.absent or (answer.box is not None and one))
        return Score(0.5 * tags + 0.5 * one_box, {"tags": tags, "one_box": one_box})

    def _in_order(self, text: str) -> bool:
        """Whether the tags stand once each in the right order, with nothing outside them."""
        if _TAG.findall(text) != _ORDER[self.style]:
            return False
        before, *inside = _TAG.split(text)
        thought, between = (inside[0], inside[1]) if self.style == "think" else ("-", "")
        return bool(thought.strip()) and not (before + between + inside[-1]).strip()

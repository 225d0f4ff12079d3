"""Whether the answer has the requested format, regardless of where its box is."""

import re
from dataclasses import dataclass
from typing import Literal

from mllm.records import Completion, Sample, Score
from mllm.rewards import SampleReward

_TAG = re.compile(r"</?(?:think|answer)>")
_ORDER = {"think": ["<think>", "</think>", "<answer>", "</answer>"], "direct": ["<answer>", "</answer>"]}


@dataclass(frozen=True)
class Reward(SampleReward):
    """R = 0.5 * [tags] + 0.5 * [one answer], 0..1.

    [tags]: the text is `<think>...</think><answer>...</answer>` (style `direct`: without the thought), each tag once,
    in this order, with only white space outside and a thought that is not empty. [one answer]: the answer can be parsed
    and is exactly one box, so that a list of guesses earns nothing, or says that the thing is absent; for task
    `ground_all`, one box or more, all of them valid; for task `name`, any text.

    The halves are those of DeepPerception and KARL (arXiv 2503.12797), whose code is looser about tags (words may
    follow the answer) and stricter about boxes (`(x1,y1),(x2,y2)` alone).
    """

    style: Literal["think", "direct"] = "think"

    def score(self, sample: Sample, completion: Completion) -> Score:
        """Score one completion; parts: tags and one_box, each 0 or 1."""
        tags = float(self._in_order(completion.text))
        answer = completion.answer
        one = len(answer.numbers) == 1 or (sample.task == "ground_all" and len(answer.numbers) == len(answer.boxes))
        text = sample.task == "name" and answer.problem is None
        one_box = float(answer.absent or text or (answer.box is not None and one))
        return Score(0.5 * tags + 0.5 * one_box, {"tags": tags, "one_box": one_box})

    def _in_order(self, text: str) -> bool:
        """Whether each tag occurs once, in the right order, with nothing outside."""
        if _TAG.findall(text) != _ORDER[self.style]:
            return False
        before, *inside = _TAG.split(text)
        thought, between = (inside[0], inside[1]) if self.style == "think" else ("-", "")
        return bool(thought.strip()) and not (before + between + inside[-1]).strip()

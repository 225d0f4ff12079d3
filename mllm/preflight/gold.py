"""Whether right answers earn what they should: the data's own answers, spelled as the model will spell them and scored
by the very functions that the trainer calls."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mllm import conversations
from mllm.boxes import Box
from mllm.families import Convention
from mllm.models import Checkpoint
from mllm.records import Answer, Completion, Sample
from mllm.rewards import BaseReward
from mllm.training.bridge import TrlReward

ROUNDING = 0.1
"""What an answer may lose because its box is written in whole numbers: IoU of a small box."""
_SPECIAL = re.compile(r"<\|[^|>]*\|>")
_STAND_IN = "The row has no thought."


@dataclass(frozen=True)
class Gold:
    """One reward over all gold answers. `worst` names the row that earned least of what was possible."""

    name: str
    low: float
    mean: float
    high: float
    possible: float
    short: int
    worst: str
    applies: int


def answer(sample: Sample, checkpoint: Checkpoint) -> str:
    """Return a row's gold answer as the trainer reads a completion: through the tokenizer, special tokens left out.

    Without a tokenizer the special tokens are taken out of the text. A row without a thought gets a stand-in for it.
    """
    convention = checkpoint.convention
    if convention.prompt == "think" and not sample.thought:
        direct = Convention(convention.family, "direct", convention.budget)
        text = f"<think>{_STAND_IN}</think>{conversations.target(sample, direct)}"
    else:
        text = conversations.target(sample, convention)
    if checkpoint.processor is None:
        return _SPECIAL.sub("", text)
    tokenizer = checkpoint.processor.tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def score(
    samples: Sequence[Sample], rewards: Mapping[str, tuple[BaseReward, float]], checkpoint: Checkpoint
) -> list[Gold]:
    """Score the gold answers of `samples` under each reward.

    Full marks are what the same reward gives to an answer that holds exactly the true box (KARL's gives less than its
    most for what the model knows well); where the box does not matter, the most that the reward gives. An answer is
    `short` when it earns less by more than `ROUNDING`, or when nothing at all can be earned.
    """
    texts = [answer(sample, checkpoint) for sample in samples]
    exact = [_holding(text, sample, sample.boxes[0]) for sample, text in zip(samples, texts, strict=True)]
    astray = [_holding(text, sample, _elsewhere(sample.boxes[0])) for sample, text in zip(samples, texts, strict=True)]
    turns = [[conversations.says("assistant", "") | {"content": text}] for text in texts]
    found: list[Gold] = []
    for name, (reward, _) in rewards.items():
        given = TrlReward(name, reward, checkpoint)([None] * len(samples), turns, [()] * len(samples), sample=samples)
        most = [
            reward.high if right.value == wrong.value else right.value  # no matter of the box: nothing may be missing
            for right, wrong in zip(reward(samples, exact), reward(samples, astray), strict=True)
        ]
        pairs = [
            (value, top, sample.id)
            for value, top, sample in zip(given, most, samples, strict=True)
            if value is not None and top is not None
        ]
        if not pairs:
            found.append(Gold(name, 0.0, 0.0, 0.0, reward.high, 0, "", 0))
            continue
        values = [value for value, _, _ in pairs]
        short = sum(top - value > ROUNDING or top <= 0 < reward.high for value, top, _ in pairs)
        worst = min(pairs, key=lambda pair: (pair[0] - pair[1], pair[0], pair[2]))[2]
        mean = sum(values) / len(values)
        found.append(Gold(name, min(values), mean, max(values), reward.high, short, worst, len(pairs)))
    return found


def _holding(text: str, sample: Sample, box: Box) -> Completion:
    """Return a completion whose answer is exactly `box`, whatever its text says."""
    return Completion(sample.id, text, Answer("-", text, (box,), ((box.x1, box.y1, box.x2, box.y2),), None))


def _elsewhere(box: Box) -> Box:
    """Return a small box in the corner that a box is farthest from."""
    left, top = box.x1 + box.x2 > 1, box.y1 + box.y2 > 1
    x, y = (0.0 if left else 0.99), (0.0 if top else 0.99)
    return Box(x, y, x + 0.01, y + 0.01)

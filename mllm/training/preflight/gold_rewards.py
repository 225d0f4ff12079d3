"""Whether right answers earn what they should: the data's own answers, spelled as the model will spell them and scored
by the very functions that the trainer calls.

A box that is right earns all there is. A caption has no full marks, and only one that earns the least is told of.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mllm.boxes import Box
from mllm.errors import FieldmarkError
from mllm.models.checkpoint import Checkpoint
from mllm.models.families import Convention
from mllm.prompting import conversations
from mllm.records import Answer, Completion, Sample
from mllm.rewards import BaseReward
from mllm.training.trl_adapter import TrlReward

CAPTIONS = 200
"""So many captions are scored, as one batch: their images have to be looked at."""
ROUNDING = 0.1
"""What an answer may lose because its box is written in whole numbers: IoU of a small box."""
_SPECIAL = re.compile(r"<\|[^|>]*\|>")
_STAND_IN = "The row has no thought."


@dataclass(frozen=True)
class Gold:
    """One reward over all gold answers. `worst` names the row that earned least of what was possible; `missing` says
    why nothing could be scored: the encoder that the reward asks is not there. `swapped` is what the answers earn on
    average when each row is given its neighbour's: None where that was not asked."""

    name: str
    low: float
    mean: float
    high: float
    possible: float
    short: int
    worst: str
    applies: int
    missing: str = ""
    swapped: float | None = None


def answer(sample: Sample, checkpoint: Checkpoint) -> str:
    """Return a row's gold answer as the trainer reads a completion: through the tokenizer, special tokens left out.

    Without a tokenizer the special tokens are taken out of the text. A row without a thought gets a stand-in for it.
    """
    convention = checkpoint.convention
    if convention.prompt == "think" and not sample.thought and sample.task != "caption":
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
    """Score the gold answers of `samples` under each reward; images of captions as paths that open.

    Full marks are what the same reward gives to an answer that holds exactly the true box (KARL's gives less than its
    most for what the model knows well); where the box does not matter, the most that the reward gives. An answer is
    `short` when it earns less by more than `ROUNDING`, or when nothing at all can be earned; a caption when it earns
    the least.
    """
    boxed = [sample for sample in samples if sample.task != "caption"]
    told = [sample for sample in samples if sample.task == "caption" and sample.captions][:CAPTIONS]
    found: list[Gold] = []
    for name, (unbound, _) in rewards.items():
        reward = unbound.reading(checkpoint.family, checkpoint.convention.budget)
        if reward.task == "caption":
            found.append(_captions(name, reward, told, checkpoint))
        else:
            found.append(_boxes(name, reward, boxed, checkpoint))
    return found


def _boxes(name: str, reward: BaseReward, samples: Sequence[Sample], checkpoint: Checkpoint) -> Gold:
    """Score boxes against the most that can be earned."""
    texts = [answer(sample, checkpoint) for sample in samples]
    exact = [_holding(text, sample, sample.boxes[0]) for sample, text in zip(samples, texts, strict=True)]
    astray = [_holding(text, sample, _elsewhere(sample.boxes[0])) for sample, text in zip(samples, texts, strict=True)]
    given = _given(name, reward, samples, texts, checkpoint)
    strange = _given(name, reward, samples, [*texts[1:], *texts[:1]], checkpoint) if len(texts) > 1 else []
    most = [
        reward.high if right.value == wrong.value else right.value  # no matter of the box: nothing may be missing
        for right, wrong in zip(reward(samples, exact), reward(samples, astray), strict=True)
    ]
    found = _summary(
        name,
        reward,
        [
            (value, top, sample.id, top - value > ROUNDING or top <= 0 < reward.high)
            for value, top, sample in zip(given, most, samples, strict=True)
            if value is not None and top is not None
        ],
    )
    earned = [value for value in strange if value is not None]
    return replace(found, swapped=sum(earned) / len(earned) if earned else None)


def _captions(name: str, reward: BaseReward, samples: Sequence[Sample], checkpoint: Checkpoint) -> Gold:
    """Score captions, as one batch."""
    if scorer := getattr(reward, "scorer", None):
        from mllm.models import encoders

        try:
            encoders.load(scorer)
        except FieldmarkError as error:
            return Gold(name, 0.0, 0.0, 0.0, reward.high, 0, "", 0, str(error))
    given = _given(name, reward, samples, [answer(sample, checkpoint) for sample in samples], checkpoint)
    return _summary(
        name,
        reward,
        [
            (value, reward.high, sample.id, value <= reward.low)
            for value, sample in zip(given, samples, strict=True)
            if value is not None
        ],
    )


def _given(
    name: str, reward: BaseReward, samples: Sequence[Sample], texts: Sequence[str], checkpoint: Checkpoint
) -> list[float | None]:
    """What the trainer's own call of the reward gives."""
    turns = [[conversations.says("assistant", "") | {"content": text}] for text in texts]
    return TrlReward(name, reward, checkpoint)([None] * len(samples), turns, [()] * len(samples), sample=samples)


def _summary(name: str, reward: BaseReward, rows: Sequence[tuple[float, float, str, bool]]) -> Gold:
    """Sum up (value, the most there is, id, short) of the rows that a reward applies to."""
    if not rows:
        return Gold(name, 0.0, 0.0, 0.0, reward.high, 0, "", 0)
    values = [value for value, *_ in rows]
    worst = min(rows, key=lambda row: (row[0] - row[1], row[0], row[2]))[2]
    short = sum(row[3] for row in rows)
    return Gold(name, min(values), sum(values) / len(values), max(values), reward.high, short, worst, len(rows))


def _holding(text: str, sample: Sample, box: Box) -> Completion:
    """Return a completion whose answer is exactly `box`, whatever its text says."""
    return Completion(sample.id, text, Answer("-", text, (box,), ((box.x1, box.y1, box.x2, box.y2),), None))


def _elsewhere(box: Box) -> Box:
    """Return a small box in the corner that a box is farthest from."""
    left, top = box.x1 + box.x2 > 1, box.y1 + box.y2 > 1
    x, y = (0.0 if left else 0.99), (0.0 if top else 0.99)
    return Box(x, y, x + 0.01, y + 0.01)

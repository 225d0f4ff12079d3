"""Checks that correct answers earn what they should: the data's own answers, written as the model will write them and
scored by the functions that the trainer calls.

A correct box should earn full marks. Captions have no full marks; only those that earn the minimum are reported.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean

from mllm.boxes import Box
from mllm.errors import FieldmarkError
from mllm.models.checkpoint import Checkpoint
from mllm.models.families import Convention
from mllm.prompting import conversations, prompts
from mllm.records import Answer, Completion, Sample
from mllm.rewards import BaseReward
from mllm.training.trl_adapter import TrlReward

CAPTIONS = 200  # are scored at most, as one batch: their images have to be loaded
ROUNDING = 0.1  # what an answer may lose because its box is written in whole numbers: the IoU of a small box
_SPECIAL = re.compile(r"<\|[^|>]*\|>")


@dataclass(frozen=True)
class GoldScore:
    """One reward over all gold answers.

    `worst` is the id of the row that earned least of what was possible. `missing` says why nothing could be scored: the
    encoder that the reward needs is not there. `swapped` is what the answers earn on average when each row gets its
    neighbour's; None if that was not tried.
    """

    name: str
    possible: float
    applies: int = 0
    low: float = 0.0
    mean: float = 0.0
    high: float = 0.0
    short: int = 0
    worst: str = ""
    missing: str = ""
    swapped: float | None = None


def answer(sample: Sample, checkpoint: Checkpoint) -> str:
    """Return a row's gold answer as the trainer reads a completion: through the tokenizer, without special tokens.

    Without a tokenizer the special tokens are removed from the text. A row without a thought gets a placeholder.
    """
    convention = checkpoint.convention
    if convention.prompt == "think" and not sample.thought and sample.task != "caption":
        direct = Convention(convention.family, "direct", convention.budget)
        text = f"<think>The row has no thought.</think>{conversations.target(sample, direct)}"
    else:
        text = conversations.target(sample, convention)
    if checkpoint.processor is None:
        return _SPECIAL.sub("", text)
    tokenizer = checkpoint.processor.tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def score(
    samples: Sequence[Sample], rewards: Mapping[str, tuple[BaseReward, float]], checkpoint: Checkpoint
) -> list[GoldScore]:
    """Score the gold answers of `samples` with each reward; the images of captions have to be paths that open.

    Full marks are what the same reward gives to an answer with exactly the true box (KARL's reward gives less than its
    maximum for what the model knows well); if the box does not matter, the reward's maximum. An answer is `short` if it
    earns less by more than `ROUNDING`, or if nothing at all can be earned; a caption if it earns the minimum.
    """
    boxed = [sample for sample in samples if sample.task != "caption"]
    captioned = [sample for sample in samples if sample.task == "caption" and sample.captions][:CAPTIONS]
    found: list[GoldScore] = []
    for name, (unbound, _) in rewards.items():
        reward = unbound.reading(checkpoint.family, checkpoint.convention.budget)
        of_task, chosen = (_captions, captioned) if reward.task == "caption" else (_boxes, boxed)
        found.append(of_task(name, reward, chosen, checkpoint))
    return found


def _boxes(name: str, reward: BaseReward, samples: Sequence[Sample], checkpoint: Checkpoint) -> GoldScore:
    """Score boxes against the most that each row can earn."""
    texts = [answer(sample, checkpoint) for sample in samples]
    boxes = [(sample.boxes or (Box(0, 0, 1, 1),))[0] for sample in samples]  # a name may be asked of a whole image
    exact = [_holding(text, sample, box) for sample, text, box in zip(samples, texts, boxes, strict=True)]
    wrong = [_holding(text, sample, _elsewhere(box)) for sample, text, box in zip(samples, texts, boxes, strict=True)]
    earned = _earned(name, reward, samples, texts, checkpoint)
    swapped = _earned(name, reward, samples, [*texts[1:], *texts[:1]], checkpoint) if len(texts) > 1 else []
    most = [
        reward.high if right.value == other.value else right.value  # the box does not matter: require the maximum
        for right, other in zip(reward(samples, exact), reward(samples, wrong), strict=True)
    ]
    rows = [
        (value, top, sample.id, top - value > ROUNDING or top <= 0 < reward.high)
        for value, top, sample in zip(earned, most, samples, strict=True)
        if value is not None and top is not None
    ]
    values = [value for value in swapped if value is not None]
    return replace(_summary(name, reward, rows), swapped=mean(values) if values else None)


def _captions(name: str, reward: BaseReward, samples: Sequence[Sample], checkpoint: Checkpoint) -> GoldScore:
    if scorer := getattr(reward, "scorer", None):
        from mllm.models import encoders

        try:
            encoders.load(scorer)
        except FieldmarkError as error:
            return GoldScore(name, reward.high, missing=str(error))
    earned = _earned(name, reward, samples, [answer(sample, checkpoint) for sample in samples], checkpoint)
    rows = [
        (value, reward.high, sample.id, value <= reward.low)
        for value, sample in zip(earned, samples, strict=True)
        if value is not None
    ]
    return _summary(name, reward, rows)


def _earned(
    name: str, reward: BaseReward, samples: Sequence[Sample], texts: Sequence[str], checkpoint: Checkpoint
) -> list[float | None]:
    """Score texts exactly as the trainer does; None where the reward does not apply."""
    turns = [[prompts.says("assistant", "") | {"content": text}] for text in texts]
    return TrlReward(name, reward, checkpoint)([None] * len(samples), turns, [()] * len(samples), sample=samples)


def _summary(name: str, reward: BaseReward, rows: Sequence[tuple[float, float, str, bool]]) -> GoldScore:
    """Summarise (value, possible value, id, short) of the rows that a reward applies to."""
    if not rows:
        return GoldScore(name, reward.high)
    values, short = [row[0] for row in rows], sum(row[3] for row in rows)
    worst = min(rows, key=lambda row: (row[0] - row[1], row[0], row[2]))[2]
    return GoldScore(name, reward.high, len(rows), min(values), mean(values), max(values), short, worst)


def _holding(text: str, sample: Sample, box: Box) -> Completion:
    """Return a completion whose answer is exactly `box`, whatever its text is."""
    return Completion(sample.id, text, Answer("-", text, (box,), ((box.x1, box.y1, box.x2, box.y2),), None))


def _elsewhere(box: Box) -> Box:
    """Return a small box in the corner farthest from a box."""
    x, y = (0.0 if first + last > 1 else 0.99 for first, last in ((box.x1, box.x2), (box.y1, box.y2)))
    return Box(x, y, x + 0.01, y + 0.01)

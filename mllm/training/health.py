"""Alarms: what goes wrong in GRPO while the loss looks well, seen in the logs and said in plain words.

Each alarm looks at the last `WINDOW` logs, gives a number that is logged as `alarm/<name>` (0: quiet, 1: ringing), and
has one sentence that says what was seen and which setting to turn. It rings in the journal once when it starts.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import pstdev
from typing import Any

from transformers import TrainerCallback

from mllm.boxes import Box

logger = logging.getLogger(__name__)

Logs = Sequence[Mapping[str, float]]
"""Logs of training steps, oldest first."""

WINDOW = 10
"""Logs an alarm looks at. It says nothing before it has seen so many."""


@dataclass(frozen=True)
class Alarm:
    """One thing that goes wrong.

    `seen` returns the sentence to say, None while all is well; it is only asked for full windows, of logs that have
    `metric`.
    """

    name: str
    metric: str
    seen: Callable[[Logs], str | None]


def _mean(logs: Logs, metric: str) -> float:
    values = [log[metric] for log in logs if log.get(metric) is not None]
    return sum(values) / len(values) if values else 0.0


def _trend(logs: Logs, metric: str) -> float:
    """Return the mean of the later half less that of the earlier half."""
    half = len(logs) // 2
    return _mean(logs[half:], metric) - _mean(logs[:half], metric)


def _zero_variance(logs: Logs) -> str | None:
    share = _mean(logs, "frac_reward_zero_std")
    if share <= 0.5:
        return None
    easy = _mean(logs, "reward")
    return (
        f"{share:.0%} of the prompts teach nothing: all answers to them get the same reward (mean reward {easy:.2f}). "
        "Raise num_generations or temperature, set fieldmark.dynamic_sampling: resample or drop, use a smoother "
        "reward (rewards.iou.mode: raw), or train on prompts that are neither too easy nor too hard"
    )


def _truncated(logs: Logs) -> str | None:
    share = _mean(logs, "completions/clipped_ratio")
    if share <= 0.3:
        return None
    return (
        f"{share:.0%} of the answers are cut off before their end and can earn little. Raise max_completion_length; "
        "for captions add the length reward; mask_truncated_completions: true leaves them out of the loss"
    )


def _format_without_iou(logs: Logs) -> str | None:
    if _trend(logs, "rewards/format/mean") <= 0.02 or _trend(logs, "rewards/iou/mean") > 0.005:
        return None
    return (
        f"the format reward rises ({_trend(logs, 'rewards/format/mean'):+.2f}) while the IoU reward does not "
        f"({_trend(logs, 'rewards/iou/mean'):+.3f}): the model learns to look right, not to look. Lower "
        "rewards.format.weight, or raise rewards.iou.weight"
    )


def _length_collapse(logs: Logs) -> str | None:
    half = len(logs) // 2
    before, now = (_mean(part, "completions/mean_length") for part in (logs[:half], logs[half:]))
    if before <= 0 or now >= 0.5 * before:
        return None
    return (
        f"answers shrank from {before:.0f} to {now:.0f} tokens: reasoning is being given up. Lower learning_rate, set "
        "beta above 0, or use loss_type: dr_grpo or dapo, which do not favour short answers"
    )


def _one_box(logs: Logs) -> str | None:
    share = _mean(logs, "boxes/spread")
    if share >= 0.3:
        return None
    return (
        f"boxes written for different images are nearly the same: they vary {share:.0%} as much as the true ones. "
        "The model answers without looking: lower learning_rate, set beta above 0, raise temperature, or see with "
        "`fieldmark inspect` whether images are what they should be"
    )


def _kl_runaway(logs: Logs) -> str | None:
    half = len(logs) // 2
    before, now = (_mean(part, "kl") for part in (logs[:half], logs[half:]))
    if now <= 0.5 or now <= 2 * before:
        return None
    return (
        f"the policy runs away from its reference: the KL divergence went from {before:.2f} to {now:.2f}. Lower "
        "learning_rate, raise beta, or lower max_grad_norm; go back to a checkpoint from before"
    )


ALARMS = (
    Alarm("zero_variance", "frac_reward_zero_std", _zero_variance),
    Alarm("truncated", "completions/clipped_ratio", _truncated),
    Alarm("format_without_iou", "rewards/iou/mean", _format_without_iou),
    Alarm("length_collapse", "completions/mean_length", _length_collapse),
    Alarm("one_box", "boxes/spread", _one_box),
    Alarm("kl_runaway", "kl", _kl_runaway),
)


class Alarms(TrainerCallback):
    """Adds `alarm/<name>` to each training log and warns when one starts to ring. Put it before the journal."""

    def __init__(self, alarms: Sequence[Alarm] = ALARMS, window: int = WINDOW) -> None:
        self.alarms, self.window = tuple(alarms), window
        self._logs: deque[dict[str, float]] = deque(maxlen=window)
        self._ringing: set[str] = set()
        self.said: dict[str, str] = {}
        """What each ringing alarm said last, by name."""

    def remembered(self) -> dict[str, Any]:
        """Return what is looked back on, for a checkpoint."""
        return {"logs": list(self._logs), "ringing": sorted(self._ringing)}

    def restore(self, held: Mapping[str, Any]) -> None:
        """Look back on what a checkpoint remembers."""
        self._logs = deque(held["logs"], maxlen=self.window)
        self._ringing = set(held["ringing"])

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Look at one more log."""
        if not logs or "reward" not in logs:
            return
        self._logs.append({name: value for name, value in logs.items() if isinstance(value, int | float)})
        if len(self._logs) < self.window:
            return
        for alarm in self.alarms:
            if not all(alarm.metric in log for log in self._logs):
                continue
            said = alarm.seen(list(self._logs))
            logs[f"alarm/{alarm.name}"] = float(said is not None)
            if said is not None and alarm.name not in self._ringing and state.is_world_process_zero:
                logger.warning("step %d: %s", state.global_step, said)
            self.said.pop(alarm.name, None)
            if said is not None:
                self.said[alarm.name] = said
            (self._ringing.add if said is not None else self._ringing.discard)(alarm.name)


def spread(boxes: Sequence[Box]) -> float:
    """Return how much boxes differ: the standard deviation of each corner's coordinate, mean over the four, 0 to 0.5.

    With fewer than two boxes it is 0.
    """
    if len(boxes) < 2:
        return 0.0
    corners = list(zip(*((box.x1, box.y1, box.x2, box.y2) for box in boxes), strict=True))
    return sum(pstdev(values) for values in corners) / len(corners)

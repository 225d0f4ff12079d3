"""Health checks of a GRPO run: problems that the loss does not show, found in the last `WINDOW` logs.

Each result is logged as `alarm/<name>` (1: problem); a warning says which setting to change when the problem starts.
"""

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from statistics import pstdev
from typing import Any

from transformers import TrainerCallback

from mllm.boxes import Box
from mllm.training.checkpointing import RunState

logger = logging.getLogger(__name__)

Logs = Sequence[Mapping[str, float]]  # of training steps, oldest first
WINDOW = 10  # logs that a check looks at; it needs this many before its first result


def _mean(logs: Logs, metric: str) -> float:
    values = [log[metric] for log in logs if log.get(metric) is not None]
    return sum(values) / len(values) if values else 0.0


def _halves(logs: Logs, metric: str) -> tuple[float, float]:
    half = len(logs) // 2
    return _mean(logs[:half], metric), _mean(logs[half:], metric)


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
        f"{share:.0%} of the answers are truncated and can earn little. Raise max_completion_length; "
        "for captions add the length reward; mask_truncated_completions: true leaves them out of the loss"
    )


def _format_without_iou(logs: Logs) -> str | None:
    halves = [_halves(logs, f"rewards/{name}/mean") for name in ("format", "iou")]
    form, iou = (now - before for before, now in halves)
    if form <= 0.02 or iou > 0.005:
        return None
    return (
        f"the format reward rises ({form:+.2f}) while the IoU reward does not ({iou:+.3f}): the model learns the "
        "format, not to look. Lower rewards.format.weight, or raise rewards.iou.weight"
    )


def _length_collapse(logs: Logs) -> str | None:
    before, now = _halves(logs, "completions/mean_length")
    if before <= 0 or now >= 0.5 * before:
        return None
    return (
        f"answers shrank from {before:.0f} to {now:.0f} tokens: the model stops reasoning. Lower learning_rate, set "
        "beta above 0, or use loss_type: dr_grpo or dapo, which do not favour short answers"
    )


def _one_box(logs: Logs) -> str | None:
    share = _mean(logs, "boxes/spread")
    if share >= 0.3:
        return None
    return (
        f"boxes for different images are nearly the same: they vary {share:.0%} as much as the true ones. "
        "The model answers without looking: lower learning_rate, set beta above 0, raise temperature, or check the "
        "images with `fieldmark inspect`"
    )


def _kl_runaway(logs: Logs) -> str | None:
    before, now = _halves(logs, "kl")
    if now <= 0.5 or now <= 2 * before:
        return None
    return (
        f"the policy runs away from its reference: the KL divergence went from {before:.2f} to {now:.2f}. Lower "
        "learning_rate, raise beta, or lower max_grad_norm; go back to a checkpoint from before"
    )


CHECKS: Mapping[str, tuple[str, Callable[[Logs], str | None]]] = {
    "zero_variance": ("frac_reward_zero_std", _zero_variance),
    "truncated": ("completions/clipped_ratio", _truncated),
    "format_without_iou": ("rewards/iou/mean", _format_without_iou),
    "length_collapse": ("completions/mean_length", _length_collapse),
    "one_box": ("boxes/spread", _one_box),
    "kl_runaway": ("kl", _kl_runaway),
}
"""By name: a metric that all logs of the window must have, and the check, which returns a warning or None."""


class HealthChecks(TrainerCallback):
    """Adds `alarm/<name>` to each training log and warns when a problem starts.

    The window of logs is saved as the run state `health`.
    """

    def __init__(self, run_state: RunState | None = None) -> None:
        self._logs: deque[dict[str, float]] = deque(maxlen=WINDOW)
        self._active: set[str] = set()
        self.messages: dict[str, str] = {}  # the latest warning of each problem that persists, by name
        if run_state is not None:
            run_state.register(
                "health", lambda: {"logs": list(self._logs), "active": sorted(self._active)}, self._restore
            )

    def _restore(self, saved: Mapping[str, Any]) -> None:
        self._logs = deque(saved["logs"], maxlen=WINDOW)
        self._active = set(saved["active"])

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Check the window that ends with this log."""
        if not logs or "reward" not in logs:
            return
        self._logs.append({name: value for name, value in logs.items() if isinstance(value, int | float)})
        if len(self._logs) < WINDOW:
            return
        for name, (metric, find) in CHECKS.items():
            if not all(metric in log for log in self._logs):
                continue
            message = find(list(self._logs))
            logs[f"alarm/{name}"] = float(message is not None)
            self.messages.pop(name, None)
            if message is None:
                self._active.discard(name)
                continue
            if name not in self._active and state.is_world_process_zero:
                logger.warning("step %d: %s", state.global_step, message)
            self.messages[name] = message
            self._active.add(name)


def box_spread(boxes: Sequence[Box]) -> float:
    """Return the standard deviation of each of the four coordinates, averaged, 0 to 0.5; 0 for fewer than two boxes."""
    if len(boxes) < 2:
        return 0.0
    corners = list(zip(*((box.x1, box.y1, box.x2, box.y2) for box in boxes), strict=True))
    return sum(pstdev(values) for values in corners) / len(corners)

"""The order of a run's callbacks, and the check that a trainer keeps it."""

from collections.abc import Iterable

from transformers import TrainerCallback

from mllm.training.callbacks import Completeness, Journal, OrderlyStop
from mllm.training.checkpointing import Boundaries, RunState
from mllm.training.grpo.bag_curriculum import BagStages
from mllm.training.grpo.mastery_refresh import MasteryRefresh
from mllm.training.grpo.vllm_check import RolloutCheck
from mllm.training.health import HealthChecks
from mllm.training.live_page import LivePage
from mllm.training.validation import GeneratedEval

ORDER: tuple[type[TrainerCallback], ...] = (
    RolloutCheck,  # before the first step
    MasteryRefresh,
    BagStages,
    HealthChecks,  # adds to a log before the journal writes it
    Journal,
    LivePage,  # reads the journal
    RunState,  # writes into a checkpoint before it is marked as complete
    Completeness,
    GeneratedEval,
    OrderlyStop,
    Boundaries,  # delays the saves and stops that all others request
)


def in_order(callbacks: Iterable[TrainerCallback]) -> list[TrainerCallback]:
    """Return callbacks of `ORDER` in that order."""
    return sorted(callbacks, key=lambda callback: ORDER.index(type(callback)))


def check_order(callbacks: Iterable[TrainerCallback]) -> None:
    """Check the callbacks of a trainer; those of other kinds may stand anywhere.

    Raises:
        ValueError: two of them are in the wrong order, or one kind occurs twice.
    """
    known = [callback for callback in callbacks if type(callback) in ORDER]
    for first, second in zip(known, known[1:], strict=False):
        if ORDER.index(type(first)) >= ORDER.index(type(second)):
            raise ValueError(f"callback {type(first).__name__} must not run before {type(second).__name__}")

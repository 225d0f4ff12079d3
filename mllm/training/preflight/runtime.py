"""The least time a run can take, by arithmetic: a bound that no implementation beats, and no forecast."""

from __future__ import annotations

from dataclasses import dataclass

from mllm.training.preflight.memory import NF4_BYTES
from mllm.training.preflight.parameters import Anatomy
from mllm.training.preflight.run_spec import Case
from mllm.training.preflight.steps import Batches


@dataclass(frozen=True)
class Card:
    """A GPU by its data sheet: dense bfloat16 operations and bytes of memory read, both a second."""

    name: str
    memory: float
    operations: float
    bandwidth: float


CARDS = (
    Card("RTX 4090", 24, 165e12, 1.008e12),
    Card("A100 80 GB", 80, 312e12, 2.039e12),
    Card("H200", 141, 989e12, 4.8e12),
)


@dataclass(frozen=True)
class Bound:
    """Seconds at the very least: learning at all of the card's operations, writing at all of its bandwidth."""

    card: Card
    learning: float
    writing: float

    @property
    def hours(self) -> float:
        """Both, one after the other as TRL does it."""
        return (self.learning + self.writing) / 3600


def bound(case: Case, anatomy: Anatomy, batches: Batches, tokens: float) -> Bound:
    """Bound a run's time.

    Learning takes 2 operations a parameter and token forward, 2 backward for activations, 2 for the weights that learn
    (Kaplan et al. 2020, arXiv 2001.08361, section 2.1), 2 more where checkpointing runs forward again; a reference
    model 2 more. Writing a token reads all weights once, for however many rows are written together.

    Args:
        case: the run.
        anatomy: of its model; only the language model is counted.
        batches: how many updates and draws.
        tokens: mean length of a row with its answer.
    """
    card = next((card for card in CARDS if card.memory >= case.machine.gpu_memory), CARDS[-1])
    parameters = anatomy.total["llm"]
    learns = 2.0 * anatomy.trained["llm"] / parameters
    per_token = 4 + learns + 2 * case.checkpointing + 2 * case.load.reference
    operations = batches.updates * batches.rows * tokens * parameters * per_token
    width = 2.0 * (1 - anatomy.quantized / anatomy.parameters) + NF4_BYTES * anatomy.quantized / anatomy.parameters
    reads = batches.draws * case.completion * parameters * width
    return Bound(card, operations / case.machine.processes / card.operations, reads / card.bandwidth)

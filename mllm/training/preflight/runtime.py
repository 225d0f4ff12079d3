"""A lower bound on the time of a run, by arithmetic: no implementation is faster. It is not a forecast."""

from __future__ import annotations

from dataclasses import dataclass

from mllm.training.preflight.memory import NF4_BYTES
from mllm.training.preflight.parameters import ParameterCounts
from mllm.training.preflight.run_spec import RunSpec
from mllm.training.preflight.steps import StepCounts


@dataclass(frozen=True)
class Gpu:
    """A GPU by its data sheet: GiB of memory, dense bfloat16 operations and bytes of memory read, both per second."""

    name: str
    memory: float
    operations: float
    bandwidth: float


GPUS = (
    Gpu("RTX 4090", 24, 165e12, 1.008e12),
    Gpu("A100 80 GB", 80, 312e12, 2.039e12),
    Gpu("H200", 141, 989e12, 4.8e12),
)


@dataclass(frozen=True)
class LeastTime:
    """The fewest seconds possible: training at the GPU's full operations, generation at its full bandwidth."""

    gpu: Gpu
    training: float
    generation: float

    @property
    def hours(self) -> float:
        """Both, one after the other as TRL does it."""
        return (self.training + self.generation) / 3600


def least_time(spec: RunSpec, counts: ParameterCounts, steps: StepCounts, tokens: float) -> LeastTime:
    """Bound the time of a run from below.

    Training takes 2 operations per parameter and token forward, 2 backward for activations, 2 for the trained weights
    (Kaplan et al. 2020, arXiv 2001.08361, section 2.1), 2 more if checkpointing repeats the forward pass; a reference
    model 2 more. Generating a token reads all weights once, for all rows of the batch together.

    Args:
        spec: the run.
        counts: the model's parameters; only the language model is counted.
        steps: how many updates and generations.
        tokens: mean length of a row with its answer.
    """
    gpu = next((gpu for gpu in GPUS if gpu.memory >= spec.hardware.gpu_memory), GPUS[-1])
    parameters = counts.total["llm"]
    backward_weights = 2.0 * counts.trained["llm"] / parameters
    per_token = 4 + backward_weights + 2 * spec.checkpointing + 2 * spec.has_reference
    operations = steps.updates * steps.rows * tokens * parameters * per_token
    quantized = counts.quantized / counts.parameters
    reads = (
        steps.generations * spec.max_completion_length * parameters * (2.0 * (1 - quantized) + NF4_BYTES * quantized)
    )
    return LeastTime(gpu, operations / spec.hardware.processes / gpu.operations, reads / gpu.bandwidth)

"""The steps and epochs of a run as the trainers count them, and a lower bound on its time, by arithmetic."""

import math
from dataclasses import dataclass

from mllm.training.preflight.memory import NF4_BYTES
from mllm.training.preflight.parameters import ParameterCounts
from mllm.training.preflight.run_spec import RunSpec
from mllm.training.recipe import Recipe, check_generation_batch


@dataclass(frozen=True)
class StepCounts:
    """What one optimizer step (an update) is made of, and how many there will be.

    `rows` go into an update on all processes together; `updates` is the number of optimizer steps of the whole run. RL:
    `answers` are generated at a time, and `updates_per_generation` made from them; `dropped` are the rows at an epoch's
    end that fill no batch (RL keeps only complete generation batches).
    """

    rows: int
    updates_per_epoch: int
    updates: int
    epochs: float
    answers: int = 0
    updates_per_generation: float = 0.0
    dropped: int = 0

    @property
    def generations(self) -> int:
        """How many times answers are generated."""
        return math.ceil(self.updates / self.updates_per_generation) if self.updates_per_generation else 0


def count_steps(recipe: Recipe, rows: int) -> StepCounts:
    """Count the updates of a recipe on `rows` training rows.

    SFT: an epoch is ceil(ceil(rows / (per_device x processes)) / accumulation) updates (transformers' Trainer). RL: the
    rows are taken in complete batches of P = generation_batch_size / num_generations prompts, each used for
    steps_per_generation x num_iterations passes (TRL's RepeatSampler).

    Raises:
        ConfigError: RL with fewer rows than prompts in one generation batch.
    """
    args = recipe.args
    accumulation = args.gradient_accumulation_steps
    per_pass = recipe.per_device * recipe.processes
    answers, per_generation, dropped = 0, 0.0, 0
    if recipe.kind == "sft":
        passes = math.ceil(rows / per_pass)
    else:
        answers = args.generation_batch_size
        prompts = check_generation_batch(recipe.file, args, rows)
        uses = args.steps_per_generation * args.num_iterations
        passes, dropped, per_generation = rows // prompts * uses, rows % prompts, uses / accumulation
    per_epoch = max(math.ceil(passes / accumulation), 1)
    updates = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * per_epoch)
    epochs = updates / per_epoch
    return StepCounts(per_pass * accumulation, per_epoch, updates, epochs, answers, per_generation, dropped)


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


def least_time(spec: RunSpec, counts: ParameterCounts, steps: StepCounts, tokens: float) -> tuple[Gpu, float, float]:
    """Bound the time of a run from below; no implementation is faster, and it is not a forecast.

    Returns the GPU, and the hours of training at its full operations and of generation at its full bandwidth, which TRL
    does one after the other.

    Training takes 2 operations per parameter and token forward, 2 backward for activations, 2 for the trained weights
    (Kaplan et al. 2020, arXiv 2001.08361, section 2.1), 2 more if checkpointing repeats the forward pass; a reference
    model 2 more. Generating a token reads all weights once, for all rows of the batch together.
    Of the model only the language model is counted. `tokens` is the mean length of a row with its answer.
    """
    gpu = next((gpu for gpu in GPUS if gpu.memory >= spec.hardware.gpu_memory), GPUS[-1])
    parameters = counts.total["llm"]
    per_token = 4 + 2.0 * counts.trained["llm"] / parameters + 2 * spec.checkpointing + 2 * (spec.beta != 0)
    operations = steps.updates * steps.rows * tokens * parameters * per_token
    quantized = counts.quantized / counts.parameters
    weight_bytes = 2.0 * (1 - quantized) + NF4_BYTES * quantized
    reads = steps.generations * spec.max_completion_length * parameters * weight_bytes
    return gpu, operations / spec.hardware.processes / gpu.operations / 3600, reads / gpu.bandwidth / 3600

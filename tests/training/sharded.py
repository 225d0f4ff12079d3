"""Run a recipe and write down what came of it: `accelerate launch sharded.py sft|rl|replay OUT.pt --config FILE ...`.

`replay` is rl with answers that depend on the prompt and their number in its group alone, not on who writes them.
OUT.pt holds the weights of the model in memory, gathered from all processes, the logits of a few tokens, how many
processes trained it in which way and which share of the weights the first one holds, so that what the recipe saved can
be compared.
"""

from __future__ import annotations

import importlib
import random
import sys
from typing import Any

import torch
from accelerate import PartialState
from torch.distributed.tensor import DTensor

from mllm.training import run
from mllm.training.run import program

from trl.models.utils import unwrap_model_for_generation  # isort: skip

TOKENS = torch.arange(20, 40)[None]


class Replay:
    """Mixed into the GRPO trainer: answers from elsewhere, a group's the same on any number of processes."""

    def _generate_single_turn(self: Any, prompt_ids: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        tokenizer = self.processing_class.tokenizer
        first = self.accelerator.process_index * len(prompt_ids)
        written = []
        for row, ids in enumerate(prompt_ids):
            draw = random.Random(f"{list(ids)} {(first + row) % self.num_generations}")
            box = (draw.randint(0, 40), draw.randint(0, 40), draw.randint(60, 99), draw.randint(60, 99))
            text = "<answer>({},{}),({},{})</answer>".format(*box)
            written.append([*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id])
        return written, None


def main() -> None:
    """Train; afterwards every process gathers and the first one writes."""
    kind, out, *argv = sys.argv[1:]
    program: Any = importlib.import_module(f"recipes.{'rl' if kind == 'replay' else kind}")
    if kind == "replay":
        program.Trainer = type("Replaying", (Replay, program.Trainer), {})
    train = run.train

    def train_and_tell(trainer: Any, settings: Any, prepared: Any, callbacks: Any = ()) -> None:
        train(trainer, settings, prepared, callbacks)
        with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as unwrapped:
            model: Any = unwrapped
            with torch.no_grad():
                logits = model.eval()(input_ids=TOKENS).logits
            weights = {name: _whole(value) for name, value in model.state_dict().items()}
            shares = [_share(value) for value in model.parameters()]
        state, plugin = PartialState(), trainer.accelerator.state.deepspeed_plugin
        info = {"world": state.num_processes, "how": state.distributed_type.value, "loss": _logged(trainer, "loss")}
        info |= {"grad_norm": _logged(trainer, "grad_norm")}
        info |= {"stage": plugin.zero_stage if plugin else None, "logits": logits, "weights": weights}
        info["share"] = sum(held for held, _ in shares) / sum(size for _, size in shares)
        if state.is_main_process:
            torch.save(info, out)

    run.train = train_and_tell  # the recipe's own call finds it
    run.program(lambda: program.main(argv))


def _whole(value: torch.Tensor) -> torch.Tensor:
    """A weight gathered from all processes: FSDP's are shards until somebody asks."""
    return (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone()


def _share(value: torch.Tensor) -> tuple[int, int]:
    """How many numbers of a weight this process holds, and how many there are."""
    return (value.to_local().numel() if isinstance(value, DTensor) else value.numel()), value.numel()


def _logged(trainer: Any, name: str) -> list[float]:
    return [row[name] for row in trainer.state.log_history if name in row]


if __name__ == "__main__":
    program(main)

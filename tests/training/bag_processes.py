"""Take steps over bags on some processes: `accelerate launch bag_processes.py CHECKPOINT SAMPLES OUT`.

Each process writes what it was asked, what it said and what it earned, batch after batch, to OUT/<rank>.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mllm.config import Bags
from mllm.io.codec import encode
from mllm.models.checkpoint import load, open_checkpoint
from mllm.records import Completion, Sample, Score, image_path, load_samples
from mllm.rewards import BaseReward
from mllm.rewards import load as load_reward
from mllm.training import trl_adapter
from mllm.training.checkpointing import RunState
from mllm.training.grpo import bag_curriculum
from mllm.training.run import program
from mllm.training.trl_adapter import Row
from recipes.rl import Trainer

from trl import GRPOConfig  # isort: skip  (after mllm.training, which switches its telemetry off)

SCHEDULE = ((1, 2), (1, 3))


class Written(BaseReward):
    """Gives what the reward inside it gives, and remembers everything."""

    def __init__(self, inside: BaseReward) -> None:
        object.__setattr__(self, "inside", inside)
        object.__setattr__(self, "batches", [])

    def __call__(self, samples: Sequence[Sample], completions: Sequence[Completion]) -> list[Score]:
        """Score and write down."""
        scores = self.inside(samples, completions)  # pyright: ignore[reportAttributeAccessIssue]
        rows = [
            {"sample": json.loads(encode(s)), "said": json.loads(encode(c)), "earned": score.value}
            for s, c, score in zip(samples, completions, scores, strict=True)
        ]
        self.batches.append(rows)  # pyright: ignore[reportAttributeAccessIssue]
        return scores


def main() -> None:
    """Train two epochs of two batches; each process writes its own share."""
    checkpoint, file, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    samples = load_samples(file)
    args = GRPOConfig(
        output_dir=str(out / "run"), per_device_train_batch_size=6, num_generations=2, max_completion_length=8,
        gradient_accumulation_steps=1, num_train_epochs=2, save_strategy="no", report_to="none", use_cpu=True,
        remove_unused_columns=False, bf16=False, gradient_checkpointing=False, disable_tqdm=True,
    )  # fmt: skip
    loaded = load(open_checkpoint(checkpoint), trainable=True)
    sampler = bag_curriculum.sampler(Bags(schedule=SCHEDULE), samples, args)
    rows = [Row(sample, image_path(file, sample)) for sample in samples]
    written = Written(load_reward("self_retrieval", over="bag_batch"))
    stages = bag_curriculum.BagStages(sampler, RunState())
    function = trl_adapter.TrlReward("self_retrieval", written, loaded, listeners=[stages.add])
    trainer = Trainer(
        model=loaded.model,
        reward_funcs=[function],  # pyright: ignore[reportArgumentType]
        args=args,
        train_dataset=trl_adapter.dataset(rows, loaded.convention, answers=False, bags=sampler),
        processing_class=loaded.processor,
        sampler=sampler,
    )
    trainer.add_callback(stages)
    trainer.train()
    info = {"batches": written.batches, "counts": stages.counts}  # pyright: ignore[reportAttributeAccessIssue]
    (out / f"{trainer.accelerator.process_index}.json").write_text(json.dumps(info))


if __name__ == "__main__":
    program(main)

"""Supervised fine-tuning: teach a model to answer as the samples do, with or without reasoning first.

    accelerate launch recipes/sft.py                                     # the pocket example, reasoning first
    accelerate launch recipes/sft.py --config recipes/sft_direct.yaml    # the same, answering at once
    accelerate launch --config_file accelerate_config.yaml recipes/sft.py --config recipes/kvg_karl_qwen3vl_8b_sft.yaml

One YAML holds both our settings (`fieldmark:`, see mllm/config.py) and TRL's SFTConfig; flags win over it. The loss is
on the answer alone. Rows that do not fit are refused, never cut. A stopped run goes on when the command is given again.

In output_dir: the last weights; best/ (by Acc@0.5 of answers written to the validation file); checkpoint-N/ to go on
from; log.jsonl; run.json. Beside all weights lies fieldmark.json: family, prompt style and image budget.
"""

from __future__ import annotations

import logging
from pathlib import Path

from mllm.training import arguments, dataset, run, trl_adapter
from mllm.training.callbacks import FiniteLoss
from mllm.training.checkpointing import WholeCheckpoints
from mllm.training.engine.packing import PackedSFTTrainer
from mllm.training.example_data import make_pocket_data
from mllm.training.live_page import LivePage

from trl import SFTConfig  # isort: skip  (after mllm.training, which switches its telemetry off)

logger = logging.getLogger("mllm.recipes.sft")

DEFAULT = Path(__file__).with_name("sft.yaml")


class Trainer(WholeCheckpoints, FiniteLoss, PackedSFTTrainer):
    """TRL's trainer, which can pack rows and stops at a loss that is no number."""


def main(argv: list[str] | None = None) -> None:
    if arguments.wants_help(argv):
        print(arguments.manual(__doc__, SFTConfig))
        return

    # 1. What is asked for.
    settings, args = arguments.read(argv, DEFAULT, SFTConfig)
    arguments.start(settings)
    make_pocket_data(settings)

    # 2. Everything that can be wrong, before the weights are read.
    prepared = run.prepare(settings, args, answers=True)
    if prepared.finished:
        return
    logger.info("%d rows to train on, %d to watch", len(prepared.data.train), len(prepared.data.validation))

    # 3. The model, and the rows as TRL wants them: prompt, completion, images opened when they are needed.
    loaded = run.load_model(settings, prepared.checkpoint, args)
    rows = trl_adapter.dataset(prepared.data.train, loaded.convention, answers=True)

    # 4. Train and save.
    trainer = Trainer(
        model=loaded.model,
        args=args,
        train_dataset=rows,
        processing_class=loaded.processor,
        packing=settings.pack,
        lengths=dataset.lengths(prepared.data.train, prepared.checkpoint) if settings.like_lengths else None,
    )
    run.train(trainer, settings, prepared, LivePage(trainer, Path(str(args.output_dir))))


if __name__ == "__main__":
    run.program(main)

"""Supervised fine-tuning: teach a model to answer as the samples do, with or without reasoning first.

    accelerate launch recipes/sft.py                                     # the pocket example, reasoning first
    accelerate launch recipes/sft.py --config recipes/sft_direct.yaml    # the same, answering at once
    accelerate launch --config_file accelerate_config.yaml recipes/sft.py --config recipes/kvg_karl_qwen3vl_8b_sft.yaml

One YAML holds both our settings (`fieldmark:`, see mllm/config.py) and TRL's SFTConfig; flags override it. The loss is
on the answer alone. Rows above the token limit are refused, never truncated. The same command continues a stopped run.

Written to output_dir: the last weights; best/ (by Acc@0.5 of generated answers on the validation file); checkpoint-N/;
log.jsonl; run.json; validation/ (the answers on the validation file at each evaluated step). Each folder of weights has
a fieldmark.json with family, prompt style and image budget.
"""

from __future__ import annotations

if __name__ == "__main__":
    from mllm import ctrl_c

    ctrl_c.end_at_once()  # while the imports below run

import logging
from pathlib import Path

from mllm.training import arguments, run, trl_adapter
from mllm.training.checkpointing import SafeTrainer
from mllm.training.dataset import make_pocket_data
from mllm.training.engine.packing import PackedSFTTrainer
from mllm.training.live_page import LivePage, ValidationAnswers

from trl import SFTConfig  # isort: skip  (after mllm.training, which switches its telemetry off)

logger = logging.getLogger("mllm.recipes.sft")

DEFAULT = Path(__file__).with_name("sft.yaml")


class Trainer(SafeTrainer, PackedSFTTrainer):
    """TRL's SFT trainer with exact checkpoints; it can pack rows."""


def main(argv: list[str] | None = None) -> None:
    if arguments.wants_help(argv):
        print(arguments.manual(__doc__, SFTConfig))
        return

    # 1. Settings.
    settings, args = arguments.read(argv, DEFAULT, SFTConfig)
    arguments.start(settings)
    make_pocket_data(settings)

    # 2. All checks, before the weights are loaded.
    prepared = run.prepare(settings, args, answers=True)
    if prepared.finished:
        return
    logger.info("%d training rows, %d validation rows", len(prepared.data.train), len(prepared.data.validation))

    # 3. The model, and rows of prompt, completion and images.
    loaded = run.load_model(settings, prepared.checkpoint, args)
    trainer = Trainer(
        model=loaded.model,
        args=args,
        train_dataset=trl_adapter.dataset(prepared.data.train, loaded.convention, answers=True),
        processing_class=loaded.processor,
        packing=settings.pack,
        run_state=prepared.run_state,
        write_card=prepared.write_card,
    )

    # 4. Train and save.
    out = Path(str(args.output_dir))
    run.train(trainer, settings, prepared, [LivePage(trainer, out, ValidationAnswers(prepared.data, out))])


if __name__ == "__main__":
    run.program(main)

"""Make the pocket base: a small Qwen3-VL that can see and knows its species, but cannot yet ground them by name.

    python recipes/pretrain.py                       # everything, resumes where it stopped
    torchrun --nproc-per-node 2 recipes/pretrain.py  # the same in two processes, a tenth faster on two cores
    python recipes/pretrain.py --steps 200 --warmup-steps 100 --scenes 500 --out /tmp/trial

Three steps, each seeded and resumable (after Ctrl-C or a kill, run the same command again):
1. draw scenes once and keep their pixels;
2. warm the vision tower with a throwaway dense head (what stands on each visual token: presence, marks, box);
3. lessons: one thing an image, then two, then everything; beside them, text: each species' marks by heart, and
comparing. At the end the held-out checks run and the weights are written in bfloat16 with a model card.
"""

from __future__ import annotations

import json
import logging
import math
import os
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, TextIO

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mllm.cli.programs import parse, run_program, typed_command
from mllm.errors import FieldmarkError
from mllm.models.cpu_kernels import computes_bfloat16, keep_memory, take_detours
from mllm.pocket import model as pocket
from mllm.pocket.capability_checks import all_checks, check_find, check_recall
from mllm.pocket.card import write_card
from mllm.pocket.curriculum import Curriculum
from mllm.pocket.data_parallel import DataParallel
from mllm.pocket.pretraining import DenseHead, answer_loss, dense_truth, image_batch, lesson_batch
from mllm.pocket.scene_store import SceneStore
from mllm.prompting import questions
from mllm.training.engine import attention, packing

log = logging.getLogger("pretrain")


@dataclass(frozen=True)
class PretrainSettings:
    """Everything the weights depend on."""

    RENAMED: ClassVar = {"--batch": "--batch-size", "--text-batch": "--text-batch-size"}

    seed: int = 0
    """random seed"""
    scenes: int = 24_000
    """scenes to draw"""
    warmup_steps: int = 1_500
    """steps of the vision tower's warm-up"""
    steps: int = 3_600
    """steps of lessons"""
    batch_size: int = 24
    """images in a step"""
    text_batch_size: int = 20
    """texts in a step"""
    learning_rate: float = 1e-3
    """peak learning rate"""
    save_every: int = 250
    """steps between saved states"""
    vision_share: float = 0.3
    """vision tower's share of the learning rate after its warm-up"""


@dataclass(frozen=True)
class Options:
    out: Path = Path("runs/pretrain")
    """folder of state, log and drawn scenes"""
    weights: Path | None = None
    """folder of the finished weights; default: OUT/weights"""
    checks: int = 500
    """held-out scenes per check"""
    threads: int = 2
    """threads, shared by the processes"""
    settings: PretrainSettings = PretrainSettings()


class PretrainRun:
    """Model, optimizer and place in the schedule, saved together so that a stopped run can continue."""

    def __init__(self, settings: PretrainSettings, out: Path, parallel: DataParallel) -> None:
        self.settings, self.out, self.parallel, self.step = settings, out, parallel, 0
        torch.manual_seed(settings.seed)
        self.model, self.processor = pocket.build(settings.seed)
        take_detours(self.model)
        attention.in_rows(self.model)
        self.head = DenseHead(
            self.model.config.text_config.hidden_size, 1 + len(self.model.config.vision_config.deepstack_visual_indexes)
        )
        vision = list(self.model.model.visual.parameters())
        known = {id(parameter) for parameter in vision}
        text = [parameter for parameter in self.model.parameters() if id(parameter) not in known]
        groups = [{"params": text}, {"params": vision}, {"params": list(self.head.parameters())}]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.02)
        self.state = out / "state.pt"
        if self.state.is_file():
            saved = torch.load(self.state, weights_only=True)
            self.model.load_state_dict(saved["model"])
            self.head.load_state_dict(saved["head"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step = saved["step"]
            if parallel.world.is_main:
                self._forget_later_rows()
                log.info("continuing at step %d", self.step)

    def _forget_later_rows(self) -> None:
        """Remove the log lines of steps after the saved state, which are taken again."""
        log_file = self.out / "log.jsonl"
        rows = log_file.read_text(encoding="utf-8").splitlines() if log_file.is_file() else []
        kept = [row for row in rows if json.loads(row)["step"] <= self.step]
        log_file.write_text("".join(f"{row}\n" for row in kept), encoding="utf-8")

    def save(self) -> None:
        """Write the state beside the old one, then replace it, so that a kill never leaves half a state."""
        if not self.parallel.world.is_main:
            return
        parts = {
            "model": self.model.state_dict(),
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(parts | {"step": self.step}, self.state.with_suffix(".new"))
        self.state.with_suffix(".new").replace(self.state)

    def learn(self, loss: torch.Tensor, share: float, vision_share: float) -> None:
        """Take an optimizer step at `share` of the peak learning rate; stop if the loss is NaN or infinite."""
        if not torch.isfinite(loss):
            raise FieldmarkError(
                f"step {self.step}: the loss is {loss.item()}; lower --learning-rate and start again from {self.state}"
            )
        peak = self.settings.learning_rate * share
        for group, factor in zip(self.optimizer.param_groups, (1.0, vision_share, 1.0), strict=True):
            group["lr"] = peak * factor
        loss.backward()
        self.parallel.average([*self.model.parameters(), *self.head.parameters()])
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1


def warm_up(run: PretrainRun, store: SceneStore, rng: random.Random) -> torch.Tensor:
    """Return the dense loss of one batch of scenes."""
    numbers = run.parallel.world.shard([rng.randrange(len(store)) for _ in range(run.settings.batch_size)])
    images = [store.pixels_HWC(number) for number in numbers]
    batch = image_batch(images)
    with torch.autocast("cpu", torch.bfloat16, enabled=computes_bfloat16()):
        seen = run.model.model.visual(batch["pixel_values"], batch["image_grid_thw"])
        return run.head(
            [seen.pooler_output, *seen.deepstack_features],
            dense_truth([store.scene(number) for number in numbers], images),
        )


def teach(run: PretrainRun, curriculum: Curriculum, step: int, rng: random.Random) -> torch.Tensor:
    """Return the loss of one batch of image lessons and one of text."""
    tokenizer, store = run.processor.tokenizer, curriculum.store
    drawn = sorted(curriculum.images(step, run.settings.batch_size, rng), key=lambda lesson: len(lesson.answer))
    texts = run.parallel.world.shard(curriculum.texts(run.settings.text_batch_size, rng))
    seen = run.parallel.world.shard(drawn)
    middle = len(seen) // 2  # short answers and long ones apart: half the padding
    with torch.autocast("cpu", torch.bfloat16, enabled=computes_bfloat16()):
        halves = [lesson_batch(half, store, tokenizer) for half in (seen[:middle], seen[middle:])]
        short, long = (answer_loss(run.model, half, run.head, packing.hidden_states) for half in halves)
        text = answer_loss(run.model, lesson_batch(texts, store, tokenizer), run.head, packing.hidden_states)
    return 0.5 * (short + long) + 0.5 * text


def share_of_peak(step: int, total: int) -> float:
    """Return the learning rate's share of its peak: linear for 150 steps, then a cosine down to 2 %."""
    if step < 150:
        return (step + 1) / 150
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - 150) / max(1, total - 150))))


def train(run: PretrainRun, store: SceneStore) -> None:
    """Run the warm-up, then the lessons, with a check every 500 steps."""
    settings, warm = run.settings, run.settings.warmup_steps
    curriculum = Curriculum(store)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    first = run.parallel.world.is_main
    with Progress(*columns, disable=not first) as progress, _history(run) as history:
        bar = progress.add_task("pretraining", total=warm + settings.steps, completed=run.step)
        smooth, started = None, time.monotonic()
        while run.step < warm + settings.steps:
            rng = random.Random(f"{settings.seed}/{run.step}")
            if run.step < warm:
                loss = warm_up(run, store, rng)
                run.learn(loss, share_of_peak(run.step, warm), 1.0)
            else:
                step = run.step - warm
                loss = teach(run, curriculum, step, rng)
                run.learn(loss, share_of_peak(step, settings.steps), settings.vision_share)
            smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
            progress.update(bar, advance=1, description=f"loss {smooth:.3f}")
            if run.step % 100 == 0 and first:
                row: dict[str, Any] = {
                    "step": run.step,
                    "loss": round(smooth, 4),
                    "seconds": round(time.monotonic() - started, 1),
                }
                if run.step % 500 == 0 and run.step > warm:
                    with run.parallel.alone():
                        row |= progress_checks(run)
                history.write(json.dumps(row) + "\n")
                history.flush()
                log.info("%s", row)
            if run.step % settings.save_every == 0:
                run.save()
    run.save()


def progress_checks(run: PretrainRun) -> dict[str, float]:
    """Return a few quick scores on separate scenes, to monitor a run."""
    model, tokenizer = run.model, run.processor.tokenizer
    return {
        "find": check_find(model, tokenizer, 96, split="progress"),
        "reason": check_find(model, tokenizer, 96, reason=True, split="progress"),
        "recall": check_recall(model, tokenizer, questions.RECALLS[0], in_view=True, every=5),
    }


def _history(run: PretrainRun) -> TextIO:
    """Open the run's log; other processes than the first get one that is discarded."""
    return (run.out / "log.jsonl" if run.parallel.world.is_main else Path(os.devnull)).open("a", encoding="utf-8")


def finish(run: PretrainRun, count: int, weights: Path) -> None:
    """Round to bfloat16, score the rounded weights, and write weights, scores and card."""
    run.model.to(torch.bfloat16).to(torch.float32)
    scores = all_checks(run.model, run.processor.tokenizer, count)
    run.model.set_attn_implementation("sdpa")
    pocket.save(run.model.to(torch.bfloat16), run.processor, weights)
    command = typed_command("recipes/pretrain.py", run.settings)
    write_card(weights, command, asdict(run.settings), scores, count)
    log.info("weights in %s", weights)
    for name, score in scores.items():
        log.info("%-70s %.3f", name, score)


def main(argv: list[str] | None = None) -> None:
    """Pre-train the pocket base."""
    options = parse(Options, argv)
    settings, out = options.settings, options.out
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parallel = DataParallel()
    size = parallel.world.size
    if settings.batch_size < 2 * size or settings.text_batch_size < size:
        raise FieldmarkError(f"{size} processes need at least --batch-size {2 * size} and --text-batch-size {size}")
    torch.set_num_threads(max(1, options.threads // size))
    keep_memory()
    out.mkdir(parents=True, exist_ok=True)
    if not parallel.world.is_main:
        parallel.barrier()  # the first process draws the scenes
    store = SceneStore(out, settings.scenes, workers=options.threads)
    if parallel.world.is_main:
        parallel.barrier()
    run = PretrainRun(settings, out, parallel)
    parallel.barrier()  # until all have read the state, which the first process will overwrite
    try:
        train(run, store)
    except KeyboardInterrupt:
        run.save()
        log.info("saved step %d", run.step)
        raise
    if parallel.world.is_main:
        with parallel.alone():
            finish(run, options.checks, options.weights or out / "weights")
    parallel.close()


if __name__ == "__main__":
    run_program(main)

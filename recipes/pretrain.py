"""Pre-train the pocket base: a small Qwen3-VL that can see and knows its species, but cannot yet ground them by name.

    python recipes/pretrain.py                       # everything; resumes where it stopped
    torchrun --nproc-per-node 2 recipes/pretrain.py  # in two processes: about 10 % faster on two cores
    python recipes/pretrain.py --steps 200 --warmup-steps 100 --scenes 500 --out /tmp/trial

Three stages, each seeded and resumable (after Ctrl-C or a kill, start the same command again):
1. draw the scenes once and keep their pixels;
2. warm up the vision tower with a throwaway dense head (what is at each visual token: presence, marks, box);
3. tasks: one thing per image, then two, then everything; beside them text: each species' marks from memory, and
comparing. At the end the held-out checks run, and the weights are written in bfloat16 with a model card.
"""

if __name__ == "__main__":
    from mllm import ctrl_c

    ctrl_c.end_at_once()  # while the imports below run

import json
import logging
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mllm.cli.programs import parse, run_program, typed_command
from mllm.errors import FieldmarkError
from mllm.io.files import write_bytes
from mllm.io.jsonl import append_line
from mllm.models.cpu_kernels import computes_bfloat16, keep_memory, use_fast_kernels
from mllm.pocket import model as pocket
from mllm.pocket.capability_checks import all_checks, check_find, check_recall, write_model_card
from mllm.pocket.pretraining import DenseHead, answer_loss, dense_truth, image_batch, task_batch
from mllm.pocket.pretraining_curriculum import Curriculum
from mllm.pocket.pretraining_run import DataParallel, SavedState, share_of_peak
from mllm.pocket.scene_store import SceneStore
from mllm.prompting import questions
from mllm.training.engine import attention, packing

log = logging.getLogger("pretrain")
WARMUP = 150
"""Steps over which the learning rate rises, in both stages."""


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
    """steps of tasks"""
    batch_size: int = 24
    """images in a step"""
    text_batch_size: int = 20
    """texts in a step"""
    learning_rate: float = 1e-3
    """peak learning rate"""
    save_every: int = 250
    """steps between saved states"""
    vision_share: float = 0.3
    """share of the learning rate that the vision tower gets after its warm-up"""


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


class PretrainingRun:
    """Model, throwaway head, optimizer and the number of steps taken."""

    def __init__(self, settings: PretrainSettings, out: Path, parallel: DataParallel) -> None:
        self.settings, self.out, self.parallel = settings, out, parallel
        torch.manual_seed(settings.seed)
        self.model, self.processor = pocket.build(settings.seed)
        use_fast_kernels(self.model)
        attention.in_rows(self.model)
        self.head = DenseHead(
            self.model.config.text_config.hidden_size, 1 + len(self.model.config.vision_config.deepstack_visual_indexes)
        )
        vision = list(self.model.model.visual.parameters())
        known = {id(parameter) for parameter in vision}
        text = [parameter for parameter in self.model.parameters() if id(parameter) not in known]
        groups = [{"params": text}, {"params": vision}, {"params": list(self.head.parameters())}]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.02)
        parts = {"model": self.model, "head": self.head, "optimizer": self.optimizer}
        self.state = SavedState(out / "state.pt", parts)
        if self.state.step and parallel.world.is_main:
            self._remove_later_rows()
            log.info("resuming at step %d", self.state.step)

    def _remove_later_rows(self) -> None:
        """Remove the log's rows of steps after the saved state: those steps are taken again."""
        log_file = self.out / "log.jsonl"
        rows = log_file.read_text(encoding="utf-8").splitlines() if log_file.is_file() else []
        kept = [row for row in rows if json.loads(row)["step"] <= self.state.step]
        write_bytes(log_file, "".join(f"{row}\n" for row in kept).encode())

    def save(self) -> None:
        """Save the state, on the main process only."""
        if self.parallel.world.is_main:
            self.state.save()

    def learn(self, loss: torch.Tensor, share: float, vision_share: float) -> None:
        """Take one optimizer step at ``share`` of the peak learning rate.

        Raises:
            FieldmarkError: the loss is NaN or infinite.
        """
        if not torch.isfinite(loss):
            raise FieldmarkError(
                f"step {self.state.step}: the loss is {loss.item()}; lower --learning-rate and resume from "
                f"{self.state.file}"
            )
        peak = self.settings.learning_rate * share
        for group, factor in zip(self.optimizer.param_groups, (1.0, vision_share, 1.0), strict=True):
            group["lr"] = peak * factor
        loss.backward()
        self.parallel.average([*self.model.parameters(), *self.head.parameters()])
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.state.step += 1


def warm_up(run: PretrainingRun, store: SceneStore, rng: random.Random) -> torch.Tensor:
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


def task_loss(run: PretrainingRun, curriculum: Curriculum, step: int, rng: random.Random) -> torch.Tensor:
    """Return the loss of one batch of image tasks and one of text."""
    tokenizer, store = run.processor.tokenizer, curriculum.store
    drawn = sorted(curriculum.images(step, run.settings.batch_size, rng), key=lambda task: len(task.answer))
    texts = run.parallel.world.shard(curriculum.texts(run.settings.text_batch_size, rng))
    images = run.parallel.world.shard(drawn)
    middle = len(images) // 2  # short and long answers apart: half the padding
    batches = [task_batch(tasks, store, tokenizer) for tasks in (images[:middle], images[middle:], texts)]
    with torch.autocast("cpu", torch.bfloat16, enabled=computes_bfloat16()):
        short, long, text = (answer_loss(run.model, batch, run.head, packing.hidden_states) for batch in batches)
    return 0.5 * (short + long) + 0.5 * text


def train(run: PretrainingRun, store: SceneStore) -> None:
    """Warm up, then train on tasks, with quick checks every 500 steps."""
    settings, state, warm = run.settings, run.state, run.settings.warmup_steps
    curriculum, is_main = Curriculum(store), run.parallel.world.is_main
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    if is_main:
        (run.out / "log.jsonl").touch()
    with Progress(*columns, TimeRemainingColumn(), disable=not is_main) as progress:
        bar = progress.add_task("pretraining", total=warm + settings.steps, completed=state.step)
        smooth, started = None, time.monotonic()
        while state.step < warm + settings.steps:
            rng = random.Random(f"{settings.seed}/{state.step}")
            if state.step < warm:
                loss = warm_up(run, store, rng)
                run.learn(loss, share_of_peak(state.step, warm, WARMUP), 1.0)
            else:
                step = state.step - warm
                loss = task_loss(run, curriculum, step, rng)
                run.learn(loss, share_of_peak(step, settings.steps, WARMUP), settings.vision_share)
            smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
            progress.update(bar, advance=1, description=f"loss {smooth:.3f}")
            if state.step % 100 == 0 and is_main:
                seconds = round(time.monotonic() - started, 1)
                row: dict[str, Any] = {"step": state.step, "loss": round(smooth, 4), "seconds": seconds}
                if state.step % 500 == 0 and state.step > warm:
                    with run.parallel.alone():
                        row |= progress_checks(run)
                append_line(run.out / "log.jsonl", json.dumps(row))
                log.info("%s", row)
            if state.step % settings.save_every == 0:
                run.save()
    run.save()


def progress_checks(run: PretrainingRun) -> dict[str, float]:
    """Return a few quick scores on separate scenes, to monitor a run."""
    model, tokenizer = run.model, run.processor.tokenizer
    return {
        "find": check_find(model, tokenizer, 96, split="progress"),
        "reason": check_find(model, tokenizer, 96, reason=True, split="progress"),
        "recall": check_recall(model, tokenizer, questions.RECALLS[0], in_view=True, every=5),
    }


def finish(run: PretrainingRun, count: int, weights: Path) -> None:
    """Round to bfloat16, check the rounded weights, and write weights, scores and model card."""
    run.model.to(torch.bfloat16).to(torch.float32)
    scores = all_checks(run.model, run.processor.tokenizer, count)
    run.model.set_attn_implementation("sdpa")
    pocket.save(run.model.to(torch.bfloat16), run.processor, weights)
    command = typed_command("recipes/pretrain.py", run.settings)
    write_model_card(weights, command, asdict(run.settings), scores, count)
    log.info("weights in %s", weights)
    for name, score in scores.items():
        log.info("%-70s %.3f", name, score)


def main(argv: list[str] | None = None) -> None:
    """Pre-train the pocket base."""
    options = parse(Options, argv)
    settings, out = options.settings, options.out
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parallel = DataParallel()
    size, is_main = parallel.world.size, parallel.world.is_main
    if settings.batch_size < 2 * size or settings.text_batch_size < size:
        raise FieldmarkError(f"{size} processes need at least --batch-size {2 * size} and --text-batch-size {size}")
    torch.set_num_threads(max(1, options.threads // size))
    keep_memory()
    out.mkdir(parents=True, exist_ok=True)
    if not is_main:
        parallel.barrier()  # the main process draws the scenes
    store = SceneStore(out, settings.scenes, workers=options.threads)
    if is_main:
        parallel.barrier()
    run = PretrainingRun(settings, out, parallel)
    parallel.barrier()  # until all have read the state, which the main process will overwrite
    try:
        train(run, store)
    except KeyboardInterrupt:
        run.save()
        log.info("saved step %d", run.state.step)
        raise
    if is_main:
        with parallel.alone():
            finish(run, options.checks, options.weights or out / "weights")
    parallel.close()


if __name__ == "__main__":
    run_program(main)

"""Pre-train the pocket CLIPs: two small dual encoders of the pocket world, one for rewards and one to judge captions.

    python recipes/pretrain_clip.py                  # both, into runs/pretrain_clip; resumes where it stopped
    python recipes/pretrain_clip.py --which judge --steps 50 --bags 60 --out /tmp/trial

Bags of look-alikes are drawn once. Each step takes some of them, writes a caption for every image, with all marks or
with some left out, and trains to match them: CLIP's loss over pooled vectors, FILIP's over tokens and patches, and a
throwaway head that predicts what is at every patch (without it such a small tower does not learn to see in minutes).
Images that a caption also fits are not used as negatives. The two encoders differ in seed, width and scenes. At the
end the weights are rounded to float16, scored on held-out bags and written with a model card.
"""

if __name__ == "__main__":
    from mllm import ctrl_c

    ctrl_c.end_at_once()  # while the imports below run

import logging
import math
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mllm.cli.programs import parse, run_program, typed_command
from mllm.errors import FieldmarkError
from mllm.models import cpu_kernels
from mllm.pocket import clip, clip_checks
from mllm.pocket.clip_training import BAG, Bags, PatchHead, losses, write_caption
from mllm.pocket.pretraining_run import SavedState, share_of_peak

log = logging.getLogger("pretrain_clip")
SEEDS = {"scorer": 1, "judge": 2}


@dataclass(frozen=True)
class ClipSettings:
    """Everything the weights depend on, besides which of the two encoders they are."""

    RENAMED: ClassVar = {"--batch": "--batch-size"}

    bags: int = 500
    """bags of four images to draw"""
    steps: int = 1200
    """optimizer steps"""
    batch_size: int = 8
    """bags in a step"""
    learning_rate: float = 1.5e-3
    """peak learning rate"""


@dataclass(frozen=True)
class Options:
    out: Path = Path("runs/pretrain_clip")
    """folder of the states; the finished weights go into OUT/weights"""
    which: tuple[Literal["scorer", "judge"], ...] = ()
    """encoder to train; default: both"""
    checks: int = 60
    """held-out bags of every size and level"""
    threads: int = 1
    """threads"""
    settings: ClipSettings = ClipSettings()


class ClipRun:
    """Model, throwaway head, optimizer and the number of steps taken."""

    def __init__(self, which: str, settings: ClipSettings, out: Path) -> None:
        self.which, self.settings, self.seed = which, settings, SEEDS[which]
        self.recorded = {"which": which, "seed": self.seed, **asdict(settings)}
        self.model, self.tokenizer, self.image_processor = clip.build(which, self.seed)
        self.model.set_attn_implementation(cpu_kernels.ATTENTION)  # bfloat16 SDPA has a slow backward pass on a CPU
        torch.manual_seed(self.seed)
        self.head = PatchHead(self.model.config.vision_config.hidden_size)
        self.weights = [*self.model.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(self.weights, settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
        parts = {"model": self.model, "head": self.head, "optimizer": self.optimizer}
        self.state = SavedState(out / f"{which}.pt", parts, self.recorded)
        if self.state.step:
            log.info("%s: resuming at step %d", which, self.state.step)

    def learn(self, loss: torch.Tensor) -> None:
        """Take one optimizer step.

        Raises:
            FieldmarkError: the loss is NaN or infinite.
        """
        step = self.state.step
        if not torch.isfinite(loss):
            raise FieldmarkError(
                f"step {step}: the loss is {loss.item()}; lower --learning-rate and remove {self.state.file}"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * share_of_peak(step, self.settings.steps, warmup=80)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=math.log(100.0))
        self.state.step += 1


def train(run: ClipRun, bags: Bags) -> None:
    """Train to the end; the state is saved every 50 steps and when the run is stopped."""
    settings, state = run.settings, run.state
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        bar = progress.add_task(run.which, total=settings.steps, completed=state.step)
        smooth: list[float] = []
        while state.step < settings.steps:
            rng = random.Random(f"{run.seed}/{state.step}")
            chosen = rng.sample(range(len(bags)), settings.batch_size)
            views = [bags.view(bag * BAG + place, rng) for bag in chosen for place in range(BAG)]
            texts = [write_caption(view.scene, rng) for view in views]
            parts = losses(run.model, run.tokenizer, run.head, bags, views, texts)
            run.learn(parts[0] + 0.5 * parts[1] + parts[2])
            now = [part.item() for part in parts]
            smooth = [0.95 * old + 0.05 * new for old, new in zip(smooth or now, now, strict=True)]
            averages = "  ".join(f"{value:.3f}" for value in smooth)
            progress.update(bar, advance=1, description=f"{run.which}  {averages}")
            if state.step % 50 == 0:
                state.save()
                log.info("%s step %d: pooled, late, dense loss %s", run.which, state.step, averages)
    state.save()


def make(run: ClipRun, weights: Path, checks: int, command: str) -> None:
    """Train one encoder, write it in float16, score what was written, and add its model card."""
    try:
        if run.state.step < run.settings.steps:
            train(run, Bags(run.seed, run.settings.bags))
    except KeyboardInterrupt:
        run.state.save()
        log.info("saved step %d of %s", run.state.step, run.which)
        raise
    run.model.set_attn_implementation("sdpa")
    clip.save(run.model.to(torch.float16), run.tokenizer, run.image_processor, weights)
    scores = clip_checks.check(weights, checks)
    clip_checks.write_model_card(weights, command, run.recorded, scores, checks)
    for name, score in scores.items():
        log.info("%-60s %.3f", name, score)


def main(argv: list[str] | None = None) -> None:
    """Pre-train the pocket CLIPs."""
    options = parse(Options, argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(options.threads)
    cpu_kernels.keep_memory()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.which or SEEDS:
        command = f"{typed_command('recipes/pretrain_clip.py', options.settings)} --which {name}"
        run = ClipRun(name, options.settings, options.out)
        make(run, options.out / "weights" / name, options.checks, command)


if __name__ == "__main__":
    run_program(main)

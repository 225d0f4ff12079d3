"""Pre-train the pocket CLIPs: two small dual encoders of the pocket world, one for rewards and one to judge captions.

    python recipes/pretrain_clip.py                  # both, into runs/pretrain_clip; resumes where it stopped
    python recipes/pretrain_clip.py --which judge --steps 50 --bags 60 --out /tmp/trial

Bags of look-alikes are drawn once. Each step takes some of them, writes a caption for every image, with all marks or
with some left out, and trains to match them: CLIP's loss over pooled vectors, FILIP's over tokens and patches, and a
throwaway head that predicts what is at every patch (without it such a small tower does not learn to see in minutes).
Images that a caption also fits are not used as negatives. The two encoders differ in seed, width and scenes. At the
end the weights are rounded to float16, scored on held-out bags and written with a model card.
"""

from __future__ import annotations

import logging
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mllm.models import cpu_kernels
from mllm.pocket import clip, clip_checks
from mllm.pocket.clip_training import BAG, Bags, PatchHead, losses, write_caption
from mllm.pocket.pretraining_run import SavedState, command_line, share_of_peak

log = logging.getLogger("pretrain_clip")
SEEDS = {"scorer": 1, "judge": 2}


@dataclass(frozen=True)
class Settings:
    """Everything the weights depend on."""

    which: str
    seed: int
    bags: int = 500
    steps: int = 1200
    batch: int = 8
    """Bags per step, of four images each."""
    learning_rate: float = 1.5e-3


class ClipRun:
    """Model, throwaway head, optimizer and the number of steps taken."""

    def __init__(self, settings: Settings, out: Path) -> None:
        self.settings = settings
        self.model, self.tokenizer, self.image_processor = clip.build(settings.which, settings.seed)
        self.model.set_attn_implementation(cpu_kernels.ATTENTION)  # bfloat16 SDPA has a slow backward pass on a CPU
        torch.manual_seed(settings.seed)
        self.head = PatchHead(self.model.config.vision_config.hidden_size)
        self.weights = [*self.model.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(self.weights, settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
        parts = {"model": self.model, "head": self.head, "optimizer": self.optimizer}
        self.state = SavedState(out / f"{settings.which}.pt", parts, asdict(settings))
        if self.state.step:
            log.info("%s: resuming at step %d", settings.which, self.state.step)

    def learn(self, loss: torch.Tensor) -> None:
        """Take one optimizer step.

        Raises:
            SystemExit: the loss is NaN or infinite.
        """
        step = self.state.step
        if not torch.isfinite(loss):
            sys.exit(f"step {step}: the loss is {loss.item()}; lower --learning-rate and remove {self.state.file}")
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
        bar = progress.add_task(settings.which, total=settings.steps, completed=state.step)
        smooth: list[float] = []
        while state.step < settings.steps:
            rng = random.Random(f"{settings.seed}/{state.step}")
            chosen = rng.sample(range(len(bags)), settings.batch)
            views = [bags.view(bag * BAG + place, rng) for bag in chosen for place in range(BAG)]
            texts = [write_caption(view, rng) for view in views]
            parts = losses(run.model, run.tokenizer, run.head, bags, views, texts)
            run.learn(parts[0] + 0.5 * parts[1] + parts[2])
            now = [part.item() for part in parts]
            smooth = [0.95 * old + 0.05 * new for old, new in zip(smooth or now, now, strict=True)]
            averages = "  ".join(f"{value:.3f}" for value in smooth)
            progress.update(bar, advance=1, description=f"{settings.which}  {averages}")
            if state.step % 50 == 0:
                state.save()
                log.info("%s step %d: pooled, late, dense loss %s", settings.which, state.step, averages)
    state.save()


def make(settings: Settings, out: Path, weights: Path, checks: int, command: str) -> None:
    """Train one encoder, write it in float16, score what was written, and add its model card."""
    run = ClipRun(settings, out)
    try:
        if run.state.step < settings.steps:
            train(run, Bags(settings.seed, settings.bags))
    except KeyboardInterrupt:
        run.state.save()
        sys.exit(f"stopped at step {run.state.step} of {settings.which}; the same command continues")
    run.model.set_attn_implementation("sdpa")
    clip.save(run.model.to(torch.float16), run.tokenizer, run.image_processor, weights)
    scores = clip_checks.check(weights, checks)
    clip_checks.write_model_card(weights, command, asdict(settings), scores, checks)
    for name, score in scores.items():
        log.info("%-60s %.3f", name, score)


def main(
    out: Annotated[Path, typer.Option(help="states, and the finished weights in OUT/weights")] = Path(
        "runs/pretrain_clip"
    ),
    which: Annotated[list[str] | None, typer.Option(help="scorer or judge; both by default")] = None,
    bags: int = Settings.bags,
    steps: int = Settings.steps,
    batch: int = Settings.batch,
    learning_rate: float = Settings.learning_rate,
    checks: Annotated[int, typer.Option(help="held-out bags of every size and level")] = 60,
    threads: int = 1,
) -> None:
    """Pre-train the pocket CLIPs."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(threads)
    cpu_kernels.keep_memory()
    out.mkdir(parents=True, exist_ok=True)
    for name in _known(which or list(SEEDS)):
        settings = Settings(name, SEEDS[name], bags, steps, batch, learning_rate)
        command = command_line(f"recipes/pretrain_clip.py --which {name}", settings, Settings(name, SEEDS[name]))
        make(settings, out, out / "weights" / name, checks, command)


def _known(names: Sequence[str]) -> Sequence[str]:
    for name in names:
        if name not in SEEDS:
            sys.exit(f"--which {name}: there are {', '.join(SEEDS)}")
    return names


if __name__ == "__main__":
    typer.run(main)

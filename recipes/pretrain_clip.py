"""Make the pocket CLIPs: two small dual encoders of the pocket world, one to reward captions with, one to judge them.

    python recipes/pretrain_clip.py                  # both, into runs/pretrain_clip; goes on where it was stopped
    python recipes/pretrain_clip.py --which judge --steps 50 --bags 60 --out /tmp/trial

Look-alike bags are drawn once. Each step takes some of them, writes a caption for every image, with all marks or with
some left out, and learns to match them: CLIP's loss over pooled vectors, FILIP's over tokens and patches, and, while it
trains, a throwaway head that asks every patch what stands on it (without it so small a tower does not learn to see in
minutes). Images that a caption happens to fit as well are no negatives. The two differ in seed, width and scenes.
In the end the weights are rounded to float16, scored on held-out bags and written with a card.
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
from mllm.pocket.clip_training import BAG, Bags, DenseHead, losses, write_caption

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
    """Bags in a step, of four images each."""
    learning_rate: float = 1.5e-3


class Run:
    """Model, head, optimizer and step; saved together, so that a stopped run goes on."""

    def __init__(self, settings: Settings, out: Path) -> None:
        self.settings, self.state, self.step = settings, out / f"{settings.which}.pt", 0
        self.model, self.tokenizer, self.image_processor = clip.build(settings.which, settings.seed)
        self.model.set_attn_implementation(cpu_kernels.ATTENTION)  # bfloat16 attention goes backward slowly on a CPU
        torch.manual_seed(settings.seed)
        self.head = DenseHead(self.model.config.vision_config.hidden_size)
        self.weights = [*self.model.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(self.weights, settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
        if self.state.is_file():
            saved = torch.load(self.state, weights_only=True)
            if saved["settings"] != asdict(settings):
                sys.exit(f"{self.state} is of a run with {saved['settings']}; choose another --out or remove it")
            for part in ("model", "head", "optimizer"):
                getattr(self, part).load_state_dict(saved[part])
            self.step = saved["step"]
            log.info("%s: going on at step %d", settings.which, self.step)

    def save(self) -> None:
        """Write the state beside the old one, then swap: a kill never leaves half a state."""
        parts = {part: getattr(self, part).state_dict() for part in ("model", "head", "optimizer")}
        torch.save(parts | {"step": self.step, "settings": asdict(self.settings)}, self.state.with_suffix(".new"))
        self.state.with_suffix(".new").replace(self.state)

    def learn(self, loss: torch.Tensor) -> None:
        """One optimizer step; stops on a loss that is no number."""
        if not torch.isfinite(loss):
            sys.exit(f"step {self.step}: the loss is {loss.item()}; lower --learning-rate and remove {self.state}")
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * share_of_peak(self.step, self.settings.steps)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=math.log(100.0))
        self.step += 1


def share_of_peak(step: int, total: int) -> float:
    """Linear over the first 80 steps, then a cosine down to 2 %."""
    if step < 80:
        return (step + 1) / 80
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - 80) / max(1, total - 80))))


def train(run: Run, bags: Bags) -> None:
    """Steps until the end; the state is saved every 50 and when the run is stopped."""
    settings = run.settings
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        bar = progress.add_task(settings.which, total=settings.steps, completed=run.step)
        smooth: list[float] = []
        while run.step < settings.steps:
            rng = random.Random(f"{settings.seed}/{run.step}")
            chosen = rng.sample(range(len(bags)), settings.batch)
            views = [bags.view(bag * BAG + place, rng) for bag in chosen for place in range(BAG)]
            texts = [write_caption(view, rng) for view in views]
            parts = losses(run.model, run.tokenizer, run.head, bags, views, texts)
            run.learn(parts[0] + 0.5 * parts[1] + parts[2])
            now = [part.item() for part in parts]
            smooth = [0.95 * old + 0.05 * new for old, new in zip(smooth or now, now, strict=True)]
            told = "  ".join(f"{value:.3f}" for value in smooth)
            progress.update(bar, advance=1, description=f"{settings.which}  {told}")
            if run.step % 50 == 0:
                run.save()
                log.info("%s step %d: pooled, late, dense loss %s", settings.which, run.step, told)
    run.save()


def make(settings: Settings, out: Path, weights: Path, checks: int, command: str) -> None:
    """Train one encoder, write it in float16, score what was written, and add its card."""
    run = Run(settings, out)
    try:
        if run.step < settings.steps:
            train(run, Bags(settings.seed, settings.bags))
    except KeyboardInterrupt:
        run.save()
        sys.exit(f"stopped at step {run.step} of {settings.which}; the same command goes on from there")
    run.model.set_attn_implementation("sdpa")
    clip.save(run.model.to(torch.float16), run.tokenizer, run.image_processor, weights)
    scores = clip_checks.check(weights, checks)
    clip_checks.write_card(weights, command, asdict(settings), scores, checks)
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
        make(settings, out, out / "weights" / name, checks, _command(settings))


def _known(names: Sequence[str]) -> Sequence[str]:
    for name in names:
        if name not in SEEDS:
            sys.exit(f"--which {name}: there are {', '.join(SEEDS)}")
    return names


def _command(settings: Settings) -> str:
    """The command that makes these weights, as a person would type it."""
    default = Settings(settings.which, settings.seed)
    changed = {key: value for key, value in asdict(settings).items() if value != getattr(default, key)}
    flags = [f"--{key.replace('_', '-')} {value}" for key, value in changed.items()]
    return " ".join(["python recipes/pretrain_clip.py", f"--which {settings.which}", *flags])


if __name__ == "__main__":
    typer.run(main)

"""Make the pocket CLIPs: two small dual encoders of the pocket world, one to reward captions with, one to judge them.

    python recipes/pretrain_clip.py                  # both, into runs/pretrain_clip; continues a stopped run
    python recipes/pretrain_clip.py --which judge --steps 50 --bags 60 --out /tmp/trial

Look-alike bags are drawn once. Each step takes some of them, writes a caption for every image, with all marks or with
some left out, and learns to match them: CLIP's loss over pooled vectors, FILIP's over tokens and patches, and, while it
trains, a throwaway head that asks every patch what stands on it (without it so small a tower does not learn to see in
minutes). Images that a caption also fits are not negatives. The two differ in seed, width and scenes.
At the end the weights are rounded to float16, scored on held-out bags and written with a card.
"""

from __future__ import annotations

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
from mllm.pocket.clip_training import BAG, Bags, DenseHead, losses, write_caption

log = logging.getLogger("pretrain_clip")
SEEDS = {"scorer": 1, "judge": 2}


@dataclass(frozen=True)
class ClipSettings:
    """Everything the weights depend on, besides which of the two they are."""

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
    """which encoder to train; default: both"""
    checks: int = 60
    """held-out bags of every size and level"""
    threads: int = 1
    """threads"""
    settings: ClipSettings = ClipSettings()


class ClipRun:
    """Model, head, optimizer and step, saved together so that a stopped run can continue."""

    def __init__(self, which: str, settings: ClipSettings, out: Path) -> None:
        self.which, self.settings, self.seed = which, settings, SEEDS[which]
        self.state, self.step = out / f"{which}.pt", 0
        self.model, self.tokenizer, self.image_processor = clip.build(which, self.seed)
        self.model.set_attn_implementation(cpu_kernels.ATTENTION)  # bfloat16 attention goes backward slowly on a CPU
        torch.manual_seed(self.seed)
        self.head = DenseHead(self.model.config.vision_config.hidden_size)
        self.weights = [*self.model.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(self.weights, settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
        if self.state.is_file():
            saved = torch.load(self.state, weights_only=True)
            if saved["settings"] != self.recorded():
                raise FieldmarkError(
                    f"{self.state} is from a run with {saved['settings']}; choose another --out or remove it"
                )
            for part in ("model", "head", "optimizer"):
                getattr(self, part).load_state_dict(saved[part])
            self.step = saved["step"]
            log.info("%s: continuing at step %d", which, self.step)

    def recorded(self) -> dict[str, object]:
        """Return everything the weights depend on."""
        return {"which": self.which, "seed": self.seed, **asdict(self.settings)}

    def save(self) -> None:
        """Write the state beside the old one, then replace it, so that a kill never leaves half a state."""
        parts = {part: getattr(self, part).state_dict() for part in ("model", "head", "optimizer")}
        torch.save(parts | {"step": self.step, "settings": self.recorded()}, self.state.with_suffix(".new"))
        self.state.with_suffix(".new").replace(self.state)

    def learn(self, loss: torch.Tensor) -> None:
        """Take an optimizer step; stop if the loss is NaN or infinite."""
        if not torch.isfinite(loss):
            raise FieldmarkError(
                f"step {self.step}: the loss is {loss.item()}; lower --learning-rate and remove {self.state}"
            )
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
    """Return the learning rate's share of its peak: linear for 80 steps, then a cosine down to 2 %."""
    if step < 80:
        return (step + 1) / 80
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - 80) / max(1, total - 80))))


def train(run: ClipRun, bags: Bags) -> None:
    """Train to the end; save the state every 50 steps."""
    settings = run.settings
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        bar = progress.add_task(run.which, total=settings.steps, completed=run.step)
        smooth: list[float] = []
        while run.step < settings.steps:
            rng = random.Random(f"{run.seed}/{run.step}")
            chosen = rng.sample(range(len(bags)), settings.batch_size)
            views = [bags.view(bag * BAG + place, rng) for bag in chosen for place in range(BAG)]
            texts = [write_caption(view, rng) for view in views]
            parts = losses(run.model, run.tokenizer, run.head, bags, views, texts)
            run.learn(parts[0] + 0.5 * parts[1] + parts[2])
            now = [part.item() for part in parts]
            smooth = [0.95 * old + 0.05 * new for old, new in zip(smooth or now, now, strict=True)]
            shown = "  ".join(f"{value:.3f}" for value in smooth)
            progress.update(bar, advance=1, description=f"{run.which}  {shown}")
            if run.step % 50 == 0:
                run.save()
                log.info("%s step %d: pooled, late, dense loss %s", run.which, run.step, shown)
    run.save()


def make(run: ClipRun, weights: Path, checks: int, command: str) -> None:
    """Train one encoder, write it in float16, score what was written, and add its card."""
    try:
        if run.step < run.settings.steps:
            train(run, Bags(run.seed, run.settings.bags))
    except KeyboardInterrupt:
        run.save()
        log.info("saved step %d of %s", run.step, run.which)
        raise
    run.model.set_attn_implementation("sdpa")
    clip.save(run.model.to(torch.float16), run.tokenizer, run.image_processor, weights)
    scores = clip_checks.check(weights, checks)
    clip_checks.write_card(weights, command, run.recorded(), scores, checks)
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

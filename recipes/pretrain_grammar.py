"""Train a grammar head: a text tower that tells captions written by people from perturbed ones.

    python recipes/pretrain_grammar.py                    # the pocket head, in a few minutes
    python recipes/pretrain_grammar.py --captions train.jsonl --encoder openai/clip-vit-base-patch32 --out heads/coco

Starts from a copy of the encoder's text tower. Each step takes captions and a copy of each, perturbed in one of five
ways (mllm/models/perturbations.py). At the end the weights are rounded to float16, scored on held-out captions, and
written with a model card. It is too short to resume: a stopped run starts over.
Name the folder in a recipe: `rewards: {grammar: {head: FOLDER}}`.
"""

from __future__ import annotations

import logging
import math
import random
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mllm.io.jsonl import read_jsonl
from mllm.models import cpu_kernels, perturbations
from mllm.models import grammar as grammars
from mllm.models.grammar import Grammar
from mllm.pocket.pretraining_run import write_card
from mllm.records import Sample

log = logging.getLogger("pretrain_grammar")
_CARD = """---
license: apache-2.0
library_name: transformers
---
# Grammar head

How much a caption reads like one that a person wrote: a text tower of CLIP's kind with a head of two linear layers
(Cho et al. 2022, arXiv 2205.13115), for the reward `grammar`. It says nothing of whether a caption is true.

Made by

    {command}

from {captions} captions, the last {held} of them held out. Scores of these very weights on those, as rounded to
float16:

{rows}

Words replaced by words of the same kind, and words left out, may leave a caption that reads well; nothing can tell
those.
"""


def captions_of(files: Sequence[Path]) -> list[str]:
    """Read captions from sample files, or from text files with one per line; without files, of the pocket world."""
    if not files:
        from mllm.pocket.captions import varied_corpus

        return varied_corpus(20_000)
    found: list[str] = []
    for file in files:
        if file.suffix == ".jsonl":
            rows = read_jsonl(file, Sample, unique="id")
            found += [text for row in rows for text in (*row.captions, *row.human_captions)]
        else:
            found += file.read_text(encoding="utf-8").splitlines()
    return [" ".join(text.split()) for text in found if text.strip()]


def train(grammar: Grammar, captions: Sequence[str], steps: int, batch: int, rate: float, seed: int) -> None:
    """Train with AdamW and a cosine schedule down to zero; stops if the loss is NaN or infinite."""
    vocabulary, rng = perturbations.vocabulary_of(captions), random.Random(f"grammar/{seed}")
    optimizer = torch.optim.AdamW(grammar.model.parameters(), rate, weight_decay=0.01, eps=1e-6)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        bar, smooth = progress.add_task("grammar", total=steps), math.log(2)
        grammar.model.train()
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps)) * min(1.0, (step + 1) / 50)
            loss = grammars.loss(grammar, rng.sample(captions, min(batch, len(captions))), rng, vocabulary)
            if not torch.isfinite(loss):
                sys.exit(f"step {step}: the loss is {loss.item()}; lower --learning-rate")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(grammar.model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            smooth = 0.95 * smooth + 0.05 * loss.item()
            progress.update(bar, advance=1, description=f"grammar  {smooth:.3f}")


def scores_of(grammar: Grammar, held: Sequence[str], vocabulary: Sequence[str]) -> dict[str, float]:
    """Return the share judged right of held-out captions, and of copies perturbed in each way."""
    kinds = {"as people wrote them": None} | {f"spoiled by {way}": way for way in perturbations.WAYS}
    longer = [
        caption for caption in held if len(set(caption.split())) > 2
    ]  # shorter ones cannot be perturbed in all ways
    return {name: grammars.accuracy(grammar, longer, random.Random(7), vocabulary, way) for name, way in kinds.items()}


def main(
    captions: Annotated[list[Path] | None, typer.Option(help="sample files (.jsonl) or text, a caption a line")] = None,
    encoder: Annotated[
        str, typer.Option(help="pocket, a folder or a Hub name: where the text tower comes from")
    ] = "pocket",
    out: Annotated[Path, typer.Option(help="folder of the finished head")] = Path("runs/pretrain_grammar"),
    steps: int = 1500,
    batch: int = 48,
    learning_rate: float = 1e-3,
    held: Annotated[int, typer.Option(help="captions held out for the scores")] = 500,
    seed: int = 0,
    threads: int = 1,
) -> None:
    """Train a grammar head."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(threads)
    cpu_kernels.keep_memory()
    texts = captions_of(captions or [])
    if len(texts) < 2 * held:
        sys.exit(f"--captions: {len(texts)} captions are too few to hold {held} out; give more, or lower --held")
    kept, aside = texts[:-held], texts[-held:]
    torch.manual_seed(seed)
    grammar = grammars.from_encoder(encoder, "cuda" if torch.cuda.is_available() else "cpu")
    train(grammar, kept, steps, batch, learning_rate, seed)
    grammar.model.to(torch.float16).to(torch.float32)
    scores = scores_of(grammar, aside, perturbations.vocabulary_of(kept))
    grammar.model.to(torch.float16)
    grammar.save(out)
    command = shlex.join(["python", "recipes/pretrain_grammar.py", *sys.argv[1:]])
    facts = {"command": command, "captions": len(texts), "held": held}
    record = {"command": command, "captions": len(texts), "held_out": held}
    write_card(out, _CARD, facts, record, ("captions", "judged right, %"), scores)
    for name, score in scores.items():
        log.info("%-24s %.3f", name, score)


if __name__ == "__main__":
    typer.run(main)

"""Train a grammar head: a text tower that tells captions written by people from perturbed ones.

    python recipes/pretrain_grammar.py                    # the pocket head, in a few minutes
    python recipes/pretrain_grammar.py --captions train.jsonl --encoder openai/clip-vit-base-patch32 --out heads/coco

Starts from a copy of the encoder's text tower. Each step takes captions and a copy of each, perturbed in one of five
ways (mllm/models/perturbations.py). At the end the weights are rounded to float16, scored on held-out captions, and
written with a model card. It is too short to resume: a stopped run starts over.
Name the folder in a recipe: `rewards: {grammar: {head: FOLDER}}`.
"""

if __name__ == "__main__":
    from mllm import ctrl_c

    ctrl_c.end_at_once()  # while the imports below run

import logging
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mllm.cli.programs import parse, run_program, typed_command
from mllm.errors import FieldmarkError
from mllm.io.jsonl import read_jsonl
from mllm.models import cpu_kernels, perturbations
from mllm.models import grammar as grammars
from mllm.models.grammar import Grammar
from mllm.pocket.pretraining_run import write_card
from mllm.records import Sample

log = logging.getLogger("pretrain_grammar")


@dataclass(frozen=True)
class Options:
    RENAMED: ClassVar = {"--batch": "--batch-size"}

    captions: tuple[Path, ...] = ()
    """sample files (.jsonl) or text files with one caption a line; default: captions of the pocket world"""
    encoder: str = "pocket"
    """where the text tower comes from: pocket, a folder or a Hub name"""
    out: Path = Path("runs/pretrain_grammar")
    """folder of the finished head"""
    steps: int = 1500
    """optimizer steps"""
    batch_size: int = 48
    """captions in a step"""
    learning_rate: float = 1e-3
    """peak learning rate"""
    held: int = 500
    """captions to hold out for the scores"""
    seed: int = 0
    """random seed"""
    threads: int = 1
    """threads"""


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


def train(grammar: Grammar, captions: Sequence[str], options: Options) -> None:
    """Train with AdamW and a cosine schedule down to zero; stops if the loss is NaN or infinite."""
    steps, rate = options.steps, options.learning_rate
    vocabulary, rng = perturbations.vocabulary_of(captions), random.Random(f"grammar/{options.seed}")
    optimizer = torch.optim.AdamW(grammar.model.parameters(), rate, weight_decay=0.01, eps=1e-6)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        bar, smooth = progress.add_task("grammar", total=steps), math.log(2)
        grammar.model.train()
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps)) * min(1.0, (step + 1) / 50)
            loss = grammars.loss(grammar, rng.sample(captions, min(options.batch_size, len(captions))), rng, vocabulary)
            if not torch.isfinite(loss):
                raise FieldmarkError(f"step {step}: the loss is {loss.item()}; lower --learning-rate")
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


def main(argv: list[str] | None = None) -> None:
    """Train a grammar head."""
    options = parse(Options, argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(options.threads)
    cpu_kernels.keep_memory()
    texts, held, out = captions_of(options.captions), options.held, options.out
    if len(texts) < 2 * held:
        raise FieldmarkError(
            f"--captions: {len(texts)} captions are too few to hold {held} out; give more, or lower --held"
        )
    kept, aside = texts[:-held], texts[-held:]
    torch.manual_seed(options.seed)
    grammar = grammars.from_encoder(options.encoder, "cuda" if torch.cuda.is_available() else "cpu")
    train(grammar, kept, options)
    grammar.model.to(torch.float16).to(torch.float32)
    scores = scores_of(grammar, aside, perturbations.vocabulary_of(kept))
    grammar.model.to(torch.float16)
    grammar.save(out)
    command = typed_command("recipes/pretrain_grammar.py", options)
    facts = {"command": command, "captions": len(texts), "held": held}
    record = {"command": command, "captions": len(texts), "held_out": held}
    write_card(out, _CARD, facts, record, ("captions", "judged right, %"), scores)
    for name, score in scores.items():
        log.info("%-24s %.3f", name, score)


if __name__ == "__main__":
    run_program(main)

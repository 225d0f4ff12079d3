"""RD100: retrieve each caption's image among a hundred random ones, R@1 and R@5 (No Detail Left Behind, DiscriTune).

    python eval/random_distractors.py --captions captions.json --images folder --scorer FOLDER
    python eval/random_distractors.py --captions outputs.jsonl --samples test.jsonl

Images are shuffled once by the seed and split into batches of a hundred; the rest is left out, as published. The
interval is over batches. Easier than look-alike bags: it measures whether a caption fits its image, not whether it
tells it from similar ones.
"""

from __future__ import annotations

if __name__ == "__main__":
    from mllm import ctrl_c

    ctrl_c.end_at_once()  # while the imports below run

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from mllm.cli.options import CaptionsOptions, JudgeOptions
from mllm.cli.programs import Range, parse, run_program
from mllm.data import caption_stats
from mllm.errors import FieldmarkError
from mllm.io.files import write_json
from mllm.metrics import retrieval
from mllm.models import encoders
from mllm.records import image_path, load_samples


@dataclass(frozen=True)
class Options:
    scored: CaptionsOptions
    samples: Path | None = None
    """samples file of the images"""
    images: Path | None = None
    """folder of images named after the captions' keys, if there is no samples file"""
    size: Annotated[int, Range(2)] = 100
    """images in a batch"""
    seed: int = 0
    """random seed of the shuffling"""
    judge: JudgeOptions = JudgeOptions()


def main(argv: list[str] | None = None) -> None:
    """Score captions."""
    options = parse(Options, argv)
    captions = caption_stats.read_captions(options.scored.captions)
    samples = load_samples(options.samples) if options.samples is not None else []
    if options.samples is not None:
        files = {sample.id: image_path(options.samples, sample) for sample in samples}
    elif options.images is not None:
        found = sorted(options.images.iterdir())
        keys = ((key, file) for file in found for key in (file.stem, caption_stats.image_key(file.stem)))
        files = {key: file for key, file in keys if key in captions}
    else:
        raise FieldmarkError("name the images: --samples FILE, or --images FOLDER with files like NAME.jpg")
    made = batches(sorted(name for name in captions if name in files), options.size, options.seed)
    judge = options.judge
    encoder = encoders.load(judge.scorer, cache=judge.cache, device=judge.device)
    matches = retrieval.match(encoder, retrieval.bag_queries(made, captions), files)
    table: dict[str, Any] = {"benchmark": f"rd{options.size}", "scorer": judge.scorer, "seed": options.seed}
    table |= {"batches": len(made), **retrieval.retrieval_scores(matches)}
    asked = {name for batch in made for name in batch}
    table["text"] = caption_stats.caption_scores({k: v for k, v in captions.items() if k in asked}, samples)
    print(f"R@1 {100 * table['r1']['value']:.1f}  R@5 {100 * table['r5']['value']:.1f}  ", end="")
    print(f"published rule {100 * table['published_r1']:.1f}  ({len(made)} batches of ", end="")
    print(f"{options.size}, {table['text']['words']:.1f} words a caption, {table['cut']:.1%} truncated by the judge)")
    if options.scored.out is not None:
        write_json(options.scored.out, table)


def batches(names: list[str], size: int, seed: int) -> list[list[str]]:
    """Split shuffled names into batches of `size`; an incomplete last batch is left out."""
    if len(names) < size:
        raise FieldmarkError(f"{len(names)} images with captions do not fill one batch of {size}; lower --size")
    random.Random(seed).shuffle(names)
    return [names[start : start + size] for start in range(0, len(names) - size + 1, size)]


if __name__ == "__main__":
    run_program(main)

"""RD100: every caption among a hundred images drawn at random, R@1 and R@5 (No Detail Left Behind, DiscriTune).

    python eval/random_distractors.py --captions captions.json --images folder --scorer FOLDER
    python eval/random_distractors.py --captions outputs.jsonl --samples test.jsonl

Images are shuffled once by a fixed seed and cut into batches of a hundred; what is left over is not asked, as
published. The interval is over batches. Easier than look-alike bags: it says whether a caption fits, not whether it
singles out.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from mllm.cli.programs import run_main
from mllm.data import caption_stats
from mllm.errors import FieldmarkError
from mllm.io.files import atomic_write
from mllm.metrics import retrieval
from mllm.models import encoders
from mllm.records import image_path, load_samples


def main(argv: list[str] | None = None) -> None:
    """Measure captions and write the scores."""
    options = _parser().parse_args(argv)
    captions = caption_stats.read_captions(options.captions)
    samples = load_samples(options.samples) if options.samples else []
    if samples:
        files = {sample.id: image_path(options.samples, sample) for sample in samples}
    elif options.images is not None:
        files = {file.stem: file for file in sorted(options.images.iterdir()) if file.stem in captions}
    else:
        raise FieldmarkError("name the images: --samples, or --images, a folder of <name>.jpg")
    made = batches(sorted(name for name in captions if name in files), options.size, options.seed)
    encoder = encoders.load(options.scorer, cache=options.cache, device=options.device)
    matches = retrieval.match(encoder, retrieval.bag_queries(made, captions), files)
    table: dict[str, Any] = {"benchmark": f"rd{options.size}", "scorer": options.scorer, "seed": options.seed}
    table |= {"batches": len(made), **retrieval.retrieval_scores(matches)}
    asked = {name for batch in made for name in batch}
    table["text"] = caption_stats.caption_scores({k: v for k, v in captions.items() if k in asked}, samples)
    print(
        f"R@1 {100 * table['r1']['value']:.1f}  R@5 {100 * table['r5']['value']:.1f}  ({len(made)} batches of ", end=""
    )
    print(f"{options.size}, {table['text']['words']:.1f} words a caption, {table['cut']:.1%} cut by the judge)")
    if options.out:
        with atomic_write(options.out) as file:
            json.dump(table, file, indent=1)


def batches(names: list[str], size: int, seed: int) -> list[list[str]]:
    """Cut shuffled names into batches; the rest that fills none is left out."""
    if len(names) < size:
        raise FieldmarkError(f"{len(names)} images with captions do not fill one batch of {size}; lower --size")
    random.Random(seed).shuffle(names)
    return [names[start : start + size] for start in range(0, len(names) - size + 1, size)]


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="random_distractors", description=__doc__, formatter_class=plain)
    parser.add_argument("--captions", type=Path, required=True, help="{image: caption} (json), or completions (jsonl)")
    parser.add_argument("--samples", type=Path, help="samples file of ours")
    parser.add_argument("--images", type=Path, help="folder of images called like the captions' keys")
    parser.add_argument("--size", type=int, default=100, help="images in a batch")
    parser.add_argument("--seed", type=int, default=0, help="of the one shuffling")
    parser.add_argument("--scorer", default="pocket-judge", help="judge: pocket-judge, a folder, a Hub name")
    parser.add_argument("--cache", help="folder that keeps the images' vectors")
    parser.add_argument("--device", help="default: a GPU where there is one")
    parser.add_argument("--out", type=Path, help="write the scores to this json file")
    return parser


if __name__ == "__main__":
    run_main(main)

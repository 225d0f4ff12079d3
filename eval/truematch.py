"""TrueMatch: captions written without seeing the look-alikes have to find their own image among them.

    python eval/truematch.py --captions captions.json --official benchmark --images truematch_images --scorer FOLDER
    python eval/truematch.py --captions outputs.jsonl --samples test.jsonl --bags bags-3-hard.jsonl

R@1 within bags of 3, 5 and 7 images (No Detail Left Behind), with a 95 % interval over bags; ties are shared, the
published script counts them as hits. `--official` is the folder with 3.json, 5.json, 7.json (lists of bags of COCO
ids) and --images that of COCO_{train,val}2014_*.jpg; else bags and images are ours. The judge (`--scorer`) must not
be the encoder that captions were rewarded with: by default it is the pocket judge. Beside every number: length,
variety, and where the marks are known how many claims are true. `--out` also holds who was retrieved by each caption.
eval/captions.py writes a model's captions (outputs.jsonl).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from mllm.cli.programs import run_main
from mllm.data import caption_stats
from mllm.data.bags import Bag, check
from mllm.errors import FieldmarkError
from mllm.io import strict_json
from mllm.io.files import atomic_write
from mllm.io.jsonl import read_jsonl
from mllm.io.tables import interval, markdown, percent, percent_interval
from mllm.metrics import retrieval
from mllm.models import encoders
from mllm.records import Sample, image_path, load_samples

SIZES = (3, 5, 7)


def main(argv: list[str] | None = None) -> None:
    """Measure captions and write the scores."""
    options = _parser().parse_args(argv)
    captions = caption_stats.read_captions(options.captions)
    samples, bags, files = official(options) if options.official else ours(options)
    used = {name for made in bags.values() for bag in made for name in bag}
    encoder = encoders.load(
        options.scorer, late=options.late, pool=options.pool, cache=options.cache, device=options.device
    )
    table: dict[str, Any] = {"benchmark": "truematch", "captions": str(options.captions), "scorer": options.scorer}
    table |= {"late": options.late, "sizes": {}, "matches": {}}
    for size, made in sorted(bags.items()):
        found = retrieval.match(encoder, retrieval.bag_queries(made, captions, f"bags of {size}"), files)
        table["sizes"][str(size)] = retrieval.retrieval_scores(found)
        table["matches"][str(size)] = [
            {"bag": one.query.group, "image": one.query.candidates[one.query.own], "found": one.found, "hit": one.hit}
            for one in found
        ]
    table["text"] = caption_stats.caption_scores({k: v for k, v in captions.items() if k in used}, samples)
    show(table)
    if options.out:
        with atomic_write(options.out) as file:
            json.dump(table, file, indent=1)


def official(options: argparse.Namespace) -> tuple[list[Sample], dict[int, list[list[str]]], dict[str, Path]]:
    """Read the published bags: `<size>.json`, lists of lists of COCO ids."""
    bags: dict[int, list[list[str]]] = {}
    for size in options.sizes or SIZES:
        bags[size] = bags_of(options.official / f"{size}.json", size)
    if options.images is None:
        raise FieldmarkError("--official needs --images, the folder of the COCO images")
    names = {name for made in bags.values() for bag in made for name in bag}
    return [], bags, {name: coco_file(options.images, name) for name in names}


def bags_of(file: Path, size: int) -> list[list[str]]:
    """Read one published file of bags. Raises FieldmarkError naming file and bag."""
    rows = strict_json.read(file)
    if not isinstance(rows, list) or not rows:
        raise FieldmarkError(f"{file}: a list of bags is needed")
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != size or len(set(map(str, row))) != size:
            raise FieldmarkError(f"{file}: bag {number} does not hold {size} different ids: {row!r:.200}")
    return [[str(one) for one in row] for row in rows]


def coco_file(folder: Path, name: str) -> Path:
    """Where the image of a COCO id lies: `COCO_train2014_` or `COCO_val2014_` and twelve digits."""
    if not name.isdecimal():
        raise FieldmarkError(f"{name!r} is no COCO id")
    tried = [folder / f"COCO_{part}2014_{int(name):012d}.jpg" for part in ("val", "train")]
    for file in tried:
        if file.is_file():
            return file
    raise FieldmarkError(f"{tried[0]}: no such image (nor {tried[1].name})")


def ours(options: argparse.Namespace) -> tuple[list[Sample], dict[int, list[list[str]]], dict[str, Path]]:
    """Read bags of ours and the samples they name."""
    if not options.samples or not options.bags:
        raise FieldmarkError("name --samples and --bags, or the published ones with --official and --images")
    samples = load_samples(options.samples)
    bags: dict[int, list[list[str]]] = {}
    for file in options.bags:
        read = list(read_jsonl(file, Bag, unique="id"))
        check(read, [sample.id for sample in samples])
        for bag in read:
            if options.sizes is None or len(bag.members) in options.sizes:
                bags.setdefault(len(bag.members), []).append(list(bag.members))
    if not bags:
        raise FieldmarkError(f"{', '.join(map(str, options.bags))}: no bag of the sizes asked for")
    return samples, bags, {sample.id: image_path(options.samples, sample) for sample in samples}


def show(table: dict[str, Any]) -> None:
    """Print one line a size, then what the captions are like."""
    print(f"\n{table['captions']}, judged by {table['scorer']}\n")
    rows: list[tuple[Any, ...]] = [("bag size", "R@1, %", "95 %", "chance", "bags", "truncated by the judge, %")]
    for size, row in table["sizes"].items():
        r1 = row["r1"]
        shares = percent(r1["value"]), interval(r1), percent(row["chance"])
        rows.append((size, *shares, r1["groups"], percent(row["cut"])))
    print(markdown(rows))
    text = table["text"]
    print(f"\n{text['captions']} captions, {text['words']:.1f} words, distinct-1 {text['distinct1']:.3f}, ", end="")
    print(f"distinct-2 {text['distinct2']:.3f}")
    for name in ("precision", "recall"):
        if name in text:
            print(f"marks, {name}: {percent_interval(text[name])}")


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="truematch", description=__doc__, formatter_class=plain)
    parser.add_argument("--captions", type=Path, required=True, help="{image: caption} (json), or completions (jsonl)")
    parser.add_argument("--official", type=Path, help="folder of the published bags, <size>.json")
    parser.add_argument("--images", type=Path, help="folder of the COCO images, with --official")
    parser.add_argument("--samples", type=Path, help="samples file of ours")
    parser.add_argument("--bags", type=Path, nargs="+", help="bag files of ours (data_synth/bags.py)")
    parser.add_argument("--sizes", type=int, nargs="+", help="bag sizes; 3, 5, 7 of the published ones, all of ours")
    parser.add_argument("--scorer", default="pocket-judge", help="judge: pocket-judge, a folder, a Hub name")
    parser.add_argument("--late", action="store_true", help="compare words with patches instead of whole vectors")
    parser.add_argument("--pool", default="mean", choices=("mean", "max", "truncate"), help="captions that do not fit")
    parser.add_argument("--cache", help="folder that keeps the images' vectors")
    parser.add_argument("--device", help="default: a GPU where there is one")
    parser.add_argument("--out", type=Path, help="write the scores to this json file")
    return parser


if __name__ == "__main__":
    run_main(main)

"""TrueMatch: retrieve each caption's image among look-alikes that the caption's writer did not see.

    python eval/truematch.py --captions captions.json --official benchmark --images truematch_images --scorer FOLDER
    python eval/truematch.py --captions outputs.jsonl --samples test.jsonl --bags bags-3-hard.jsonl

R@1 within bags of 3, 5 and 7 images (No Detail Left Behind), with a 95 % interval over bags; ties are shared.
Beside it R@1 by the published script's rule: a caption is cut at the judge's 77 tokens, and a tie is a hit.
`--official` is the folder with 3.json, 5.json, 7.json (lists of bags of COCO ids), and --images the folder of
COCO_{train,val}2014_*.jpg; otherwise give our own bags and samples. The judge (`--scorer`) must not be the encoder that
captions were rewarded with. Also reports length, diversity and, where marks are known, the precision of claims.
`--out` also lists the image that each caption retrieved. eval/captions.py writes a model's captions (outputs.jsonl).
"""

from __future__ import annotations

if __name__ == "__main__":
    from mllm import ctrl_c

    ctrl_c.end_at_once()  # while the imports below run

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mllm.cli.options import CaptionsOptions, JudgeOptions
from mllm.cli.programs import parse, run_program
from mllm.data import caption_stats
from mllm.data.bags import Bag, check
from mllm.errors import FieldmarkError
from mllm.io import strict_json
from mllm.io.files import write_json
from mllm.io.jsonl import read_jsonl
from mllm.io.tables import interval, markdown, percent, percent_interval
from mllm.metrics import retrieval
from mllm.models import encoders
from mllm.records import Sample, image_path, load_samples

SIZES = (3, 5, 7)


@dataclass(frozen=True)
class Options:
    scored: CaptionsOptions
    official: Path | None = None
    """folder of the published bags, <size>.json"""
    images: Path | None = None
    """folder of the COCO images, with --official"""
    samples: Path | None = None
    """samples file of our own images"""
    bags: tuple[Path, ...] = ()
    """our own bag files (data_synth/bags.py)"""
    sizes: tuple[int, ...] = ()
    """bag sizes; default: 3, 5 and 7 of the published bags, all of ours"""
    late: bool = False
    """compare words with patches instead of whole vectors"""
    pool: Literal["mean", "max", "truncate"] = "mean"
    """how to score captions that are too long for the judge"""
    judge: JudgeOptions = JudgeOptions()


def main(argv: list[str] | None = None) -> None:
    """Score captions."""
    options = parse(Options, argv)
    captions, judge = caption_stats.read_captions(options.scored.captions), options.judge
    samples, bags, files = official_bags(options, options.official) if options.official else own_bags(options)
    used = {name for made in bags.values() for bag in made for name in bag}
    encoder = encoders.load(judge.scorer, late=options.late, pool=options.pool, cache=judge.cache, device=judge.device)
    table: dict[str, Any] = {"benchmark": "truematch", "captions": str(options.scored.captions), "scorer": judge.scorer}
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
    if options.scored.out is not None:
        write_json(options.scored.out, table)


def official_bags(options: Options, folder: Path) -> tuple[list[Sample], dict[int, list[list[str]]], dict[str, Path]]:
    """Read the published bags: `<size>.json`, lists of lists of COCO ids. Returns as `own_bags`."""
    bags = {size: read_bags(folder / f"{size}.json", size) for size in options.sizes or SIZES}
    if options.images is None:
        raise FieldmarkError("--official needs --images, the folder of the COCO images")
    names = {name for made in bags.values() for bag in made for name in bag}
    return [], bags, {name: coco_file(options.images, name) for name in names}


def read_bags(file: Path, size: int) -> list[list[str]]:
    """Read one published file of bags. Raises FieldmarkError naming file and bag."""
    rows = strict_json.read(file)
    if not isinstance(rows, list) or not rows:
        raise FieldmarkError(f"{file}: a list of bags is needed")
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != size or len(set(map(str, row))) != size:
            raise FieldmarkError(f"{file}: bag {number} does not hold {size} different ids: {row!r:.200}")
    return [[str(one) for one in row] for row in rows]


def coco_file(folder: Path, name: str) -> Path:
    """Return the image file of a COCO id: `COCO_train2014_` or `COCO_val2014_` and twelve digits."""
    if not name.isdecimal():
        raise FieldmarkError(f"{name!r} is not a COCO id")
    tried = [folder / f"COCO_{part}2014_{int(name):012d}.jpg" for part in ("val", "train")]
    for file in tried:
        if file.is_file():
            return file
    raise FieldmarkError(f"{tried[0]}: no such image (nor {tried[1].name})")


def own_bags(options: Options) -> tuple[list[Sample], dict[int, list[list[str]]], dict[str, Path]]:
    """Read our own bags and the samples they name. Returns samples, bags and images."""
    if options.samples is None or not options.bags:
        raise FieldmarkError("name --samples and --bags, or the published ones with --official and --images")
    samples = load_samples(options.samples)
    bags: dict[int, list[list[str]]] = {}
    for file in options.bags:
        read = list(read_jsonl(file, Bag, unique="id"))
        check(read, [sample.id for sample in samples])
        for bag in read:
            if not options.sizes or len(bag.members) in options.sizes:
                bags.setdefault(len(bag.members), []).append(list(bag.members))
    if not bags:
        raise FieldmarkError(f"{', '.join(map(str, options.bags))}: no bag of the requested --sizes")
    return samples, bags, {sample.id: image_path(options.samples, sample) for sample in samples}


def show(table: dict[str, Any]) -> None:
    """Print one row per size, then the captions' statistics."""
    print(f"\n{table['captions']}, judged by {table['scorer']}\n")
    rows: list[tuple[Any, ...]] = [
        ("bag size", "R@1, %", "95 %", "chance", "published rule, %", "bags", "truncated, %")
    ]
    for size, row in table["sizes"].items():
        r1 = row["r1"]
        shares = percent(r1["value"]), interval(r1), percent(row["chance"]), percent(row["published_r1"])
        rows.append((size, *shares, r1["groups"], percent(row["cut"])))
    print(markdown(rows))
    text = table["text"]
    print(f"\n{text['captions']} captions, {text['words']:.1f} words, distinct-1 {text['distinct1']:.3f}, ", end="")
    print(f"distinct-2 {text['distinct2']:.3f}")
    for name in ("precision", "recall"):
        if name in text:
            print(f"marks, {name}: {percent_interval(text[name])}")


if __name__ == "__main__":
    run_program(main)

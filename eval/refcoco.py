"""Referring expressions, measured: the box that a sentence describes, or that there is none.

    python eval/refcoco.py --annotations refcoco_val.json --images COCO --model DIR --out DIR
    python eval/refcoco.py --rescore --out DIR                             # from the saved answers, without the model

Annotations are json or jsonl in VLM-R1's form (`image`, `problem`, `solution` in pixels; mllm/data/formats/vlm_r1.py), as
RefCOCO, RefCOCO+, RefCOCOg and their descendants are passed round. `solution: null` is a sentence that fits nothing in
the image: answering `none` is right there, and any box is wrong.

The story: read -> ask (answers are written down at once; a stopped run goes on) -> Acc@0.5 by our rule (>= 0.5, the
one answer's last box), and by VLM-R1's (> 0.5), for all, for present and absent things, and for each category that the
file gives (hops, type, occluded, distractors), with 95 % intervals over images.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

from mllm.cli.programs import run_main
from mllm.data import formats
from mllm.errors import FieldmarkError
from mllm.evaluation import generate_missing, runs, scores
from mllm.evaluation.scores import Case
from mllm.io import provenance, tables
from mllm.io.jsonl import check_unique
from mllm.metrics import stats
from mllm.prompting.tasks.ground import HIT, is_above

VERSION = "1"


def main(argv: list[str] | None = None) -> None:
    options = parser().parse_args(argv)
    if not options.rescore:
        answer(options)
    run = runs.load(options.out)
    table = runs.write_scores(run, categories=categories(run.cases), above_half=above_half(run.cases))
    show(table)
    print(f"\nwritten: {Path(options.out) / 'scores.json'}")


def answer(options: argparse.Namespace) -> None:
    """Read the annotations and ask."""
    if not options.annotations:
        raise FieldmarkError("name what is asked: --annotations FILE (or --rescore --out DIR)")
    file = Path(options.annotations)
    root = Path(options.images) if options.images else file.parent
    checkpoint = generate_missing.open_for(options)
    rows = formats.load("vlm_r1").read(file, checkpoint.family)
    samples = check_unique(rows)[: options.limit]
    for number, sample in enumerate(samples, 1):
        if not (root / sample.image).is_file():
            raise FieldmarkError(
                f"{file}:{number}: field image: no such file {root / sample.image}; --images names the folder that "
                "paths are relative to"
            )
    source = {"file": str(file), "hash": provenance.file_hash(file), "count": len(samples)}
    generate_missing.ask(
        options, checkpoint, samples, root, generate_missing.settings(options, checkpoint, "refcoco", VERSION, source)
    )


def categories(cases: list[Case]) -> dict[str, Any]:
    """Measure each value of each category that the annotations give."""
    parts: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        for name, value in case.sample.categories.items():
            for one in value if isinstance(value, list) else [value]:
                parts[f"{name} {one}"].append(case)
    return {name: scores.measure(part) for name, part in sorted(parts.items())}


def above_half(cases: list[Case]) -> dict[str, Any] | None:
    """Acc@0.5 of present things as VLM-R1 counts it: IoU strictly above 0.5."""
    present = [case for case in cases if case.sample.boxes]
    if not present:
        return None
    hits = [float(is_above(case.iou, HIT)) for case in present]
    return stats.mean(hits, [case.sample.group for case in present]).as_dict()


def show(table: dict[str, Any]) -> None:
    """Print the slices, VLM-R1's count, and the categories."""
    print(f"\n{table['model']}  style {table['style']}  {table['samples']['file']}\n")
    print(scores.text_table(table))
    if acc := table.get("above_half"):
        print(f"\npresent things, IoU > 0.5 as VLM-R1 counts: {tables.percent_interval(acc)}")
    if table["categories"]:
        print("\n" + scores.text_table({"slices": table["categories"]}))
    for problem, count in sorted(table["problems"].items(), key=lambda item: -item[1]):
        print(f"could not be read, {problem}: {count}")


def parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    built = argparse.ArgumentParser(prog="refcoco", description=__doc__, formatter_class=plain)
    for flag, about in generate_missing.FLAGS.items():
        built.add_argument(flag, **about)
    built.add_argument("--annotations", help="json or jsonl of referring expressions")
    built.add_argument("--images", help="folder that the images' paths are relative to; default: the file's own")
    built.add_argument("--out", default="runs/refcoco", help="folder of answers and scores")
    built.add_argument("--max-new-tokens", type=int, default=512)
    return built


if __name__ == "__main__":
    run_main(main)

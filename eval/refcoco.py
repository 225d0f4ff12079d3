"""Referring expressions: find the box that a sentence describes, or say that there is none.

    python eval/refcoco.py --annotations refcoco_val.json --images COCO --model DIR --out DIR
    python eval/refcoco.py --rescore --out DIR                             # from the saved answers, without the model

Annotations are json or jsonl in VLM-R1's form (`image`, `problem`, `solution` in pixels; mllm/data/formats/vlm_r1.py),
in which RefCOCO, RefCOCO+, RefCOCOg and their descendants are distributed. `solution: null` is a sentence that fits
nothing in the image: there the answer `none` is right, and any box is wrong.

Answers are saved as they come, and the same command continues a stopped run. Reports Acc@0.5 by our rule (IoU >= 0.5
of the answer's last box) and by VLM-R1's (> 0.5), for all, for present and absent things, and for each category in the
file (hops, type, occluded, distractors), with 95 % intervals over images.
"""

from __future__ import annotations

if __name__ == "__main__":
    from mllm import ctrl_c

    ctrl_c.end_at_once()  # while the imports below run

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm.cli.options import BenchmarkOptions
from mllm.cli.programs import parse, run_program
from mllm.data import formats
from mllm.errors import FieldmarkError
from mllm.evaluation import generate_missing, runs, scores
from mllm.evaluation.scores import Case
from mllm.io import provenance, tables
from mllm.io.jsonl import check_unique
from mllm.metrics import stats
from mllm.prompting.tasks.ground import HIT, is_above

VERSION = "1"


@dataclass(frozen=True)
class Options:
    annotations: Path | None = None
    """json or jsonl of referring expressions"""
    images: Path | None = None
    """folder that the images' paths are relative to; default: the folder of the annotations"""
    benchmark: BenchmarkOptions = BenchmarkOptions(out=Path("runs/refcoco"), max_new_tokens=512)


def main(argv: list[str] | None = None) -> None:
    """Ask what is missing, then score all answers."""
    options = parse(Options, argv)
    if not options.benchmark.rescore:
        if options.annotations is None:
            raise FieldmarkError("name the annotations: --annotations FILE (or --rescore --out DIR)")
        answer(options.annotations, options.images or options.annotations.parent, options.benchmark)
    run = runs.load(options.benchmark.out)
    show(runs.write_scores(run, categories=categories(run.cases), above_half=above_half(run.cases)))
    print(f"\nwritten: {options.benchmark.out / 'scores.json'}")


def answer(file: Path, root: Path, benchmark: BenchmarkOptions) -> None:
    """Read the annotations and ask every sentence that has no answer yet."""
    checkpoint = generate_missing.open_for(benchmark)
    rows = formats.load("vlm_r1").read(file, checkpoint.family)
    samples = check_unique(rows)[: benchmark.limit]
    for number, sample in enumerate(samples, 1):
        if not (root / sample.image).is_file():
            raise FieldmarkError(
                f"{file}:{number}: field image: no such file {root / sample.image}; give the folder that paths are "
                "relative to with --images"
            )
    source = {"file": str(file), "hash": provenance.file_hash(file), "count": len(samples)}
    info = generate_missing.settings(benchmark, checkpoint, "refcoco", VERSION, source)
    generate_missing.ask(benchmark, checkpoint, samples, root, info)


def categories(cases: list[Case]) -> dict[str, Any]:
    """Score each value of each category in the annotations."""
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


if __name__ == "__main__":
    run_program(main)

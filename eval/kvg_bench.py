"""Knowledge-intensive visual grounding, measured: Acc@0.5 of one named thing among its look-alikes.

    python eval/kvg_bench.py                                          # the pocket example
    python eval/kvg_bench.py --model DIR --samples FILE --out DIR     # any samples file of ours
    python eval/kvg_bench.py --model DIR --official kvg-bench.parquet --out DIR
    python eval/kvg_bench.py --rescore --out DIR                      # from the saved outputs, without the model
    python eval/kvg_bench.py --rescore --out DIR --mastery mastery.json   # with what the model knows (eval/mastery.py)
    python eval/kvg_bench.py compare DIR_A DIR_B                      # paired test: is B above A?

The story: read the samples -> ask the model (outputs are written down as they come; a stopped run goes on) -> read the
boxes -> IoU by the function that the reward uses -> Acc@0.5 for each slice with a 95 % interval over images -> where
the samples know their marks, the links of the reasoning. `scores.json` holds all of it with the settings that made it.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from mllm.cli.programs import run_main
from mllm.errors import FieldmarkError
from mllm.evaluation import generate_missing, kvg_published, quadrants, runs, scores
from mllm.io import provenance, tables
from mllm.knowledge.mastery import load_mastery
from mllm.metrics import reasoning
from mllm.records import Sample, load_samples

VERSION = "1"
"""Raised whenever the same outputs would get another number."""


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark, or `compare` two runs."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["compare"]:
        compare(_compare_parser().parse_args(argv[1:]))
        return
    options = _parser().parse_args(argv)
    if not options.rescore:
        answer(options)
    run = runs.load(options.out)
    known = load_mastery(options.mastery) if options.mastery else None
    table = runs.write_scores(run, knowledge=quadrants.measure(run.cases, known) if known is not None else None)
    show(table)
    print(f"\nwritten: {Path(options.out) / 'scores.json'}")


def answer(options: argparse.Namespace) -> None:
    """Ask the model every sample that has no output yet."""
    samples, root = read_samples(options)
    checkpoint = generate_missing.open_for(options)
    source = {
        "file": str(options.official or options.samples),
        "hash": provenance.file_hash(options.official or options.samples),
        "count": len(samples),
        "trained": provenance.file_hash(options.train) if options.train else None,
    }
    info = {
        **generate_missing.settings(options, checkpoint, "kvg", VERSION, source),
        "official": bool(options.official),
    }
    if not generate_missing.ask(options, checkpoint, samples, root, info):
        print(f"all {len(samples)} samples are answered already in {options.out}")


def read_samples(options: argparse.Namespace) -> tuple[list[Sample], Path]:
    """Read what is asked, and the folder its images are relative to. `--train` marks the entities trained on."""
    if options.official:
        root = Path(options.out)
        samples = kvg_published.read_parquet(options.official, root / "images", limit=options.limit)
    else:
        if not Path(options.samples).is_file():
            raise FieldmarkError(
                f"{options.samples}: no such samples file; name one with --samples, or make the pocket example's with "
                "`python data_synth/grounding.py`"
            )
        root = Path(options.samples).parent
        samples = load_samples(options.samples)[: options.limit]
    if options.train:
        trained = {sample.entity for sample in load_samples(options.train, images=False)}
        samples = [replace(sample, seen=sample.entity in trained) for sample in samples]
    return samples, root


def show(table: dict[str, Any]) -> None:
    """Print the scores, then what could not be read, then knowledge, links, and what others published."""
    print(f"\n{table['model']}  style {table['style']}  {table['samples']['file']}\n")
    print(scores.text_table(table))
    every = table["slices"]["all"]
    for problem, count in sorted(table["problems"].items(), key=lambda item: -item[1]):
        print(f"could not be read, {problem}: {count}")
    if every["truncated"]:
        print(f"cut off by --max-new-tokens: {tables.percent(every['truncated'])} %")
    if table.get("official"):
        show_published(table)
    if table.get("knowledge"):
        show_knowledge(table["knowledge"])
    show_links(table["links"])


def show_published(table: dict[str, Any]) -> None:
    """Print both rules side by side, then the published rows with ours among them."""
    parts = table["slices"]
    if "published_acc" not in parts["all"]:
        print("\nby the published scorer's own rule: does not apply, this family does not write on 1000 x 1000")
        return
    print("\nthe same outputs by the published scorer's rule and by ours (Acc@0.5, 95 % interval over images)\n")
    rows: list[tuple[str, ...]] = [
        ("slice", "n", "published rule", "95 %", "ours", "95 %", "IoU, published", "IoU, ours")
    ]
    for name, row in parts.items():
        both = [
            cell
            for acc in (row["published_acc"], row["acc"])
            for cell in (tables.percent(acc["value"]), tables.interval(acc))
        ]
        ious = (tables.percent(row["published_iou"]), tables.percent(row["iou"]["value"]))
        rows.append((name, str(row["samples"]), *both, *ious))
    print(tables.markdown(rows))
    columns = [*kvg_published.SEEN_DOMAINS, "seen", *kvg_published.UNSEEN_DOMAINS, "unseen", "all"]
    own = {"seen": "seen domains", "unseen": "unseen domains", "all": "all"}
    rows = [("model", *columns)]
    for rule, key in (("published rule", "published_acc"), ("our rule", "acc")):
        found = [parts.get(own.get(name, f"domain {name}")) for name in columns]
        rows.append((f"this run, {rule}", *(tables.percent(row[key]["value"]) if row else "–" for row in found)))
    for row in kvg_published.published_rows():
        rows.append((row["model"] + ("*" if "note" in row else ""), *(f"{row['acc'][name]:.1f}" for name in columns)))
    print("\npublished results (arXiv 2503.12797; one sampled run each, about 2.5 points either way)\n")
    print(tables.markdown(rows))
    for row in kvg_published.published_rows():
        if "note" in row:
            print(f"* {row['model']}: {row['note']}")


def show_knowledge(found: dict[str, Any]) -> None:
    """Print the quadrants and the accuracy by mastery."""
    print(f"\nknowing and grounding ({found['file']})\n")
    print(
        tables.markdown([("quadrant", "% of cases"), *((k, tables.percent(v)) for k, v in found["quadrants"].items())])
    )
    rows = [("mastery", "n", "Acc@0.5", "95 %")]
    for name, row in found["levels"].items():
        rows.append((name, str(row["samples"]), tables.percent(row["acc"]["value"]), tables.interval(row["acc"])))
    print("\n" + tables.markdown(rows))
    if found["unknown"]:
        few = ", ".join(found["unknown"][:5])
        print(f"left out: {found['left_out']} cases of {len(found['unknown'])} entities not in the file ({few}, ...)")


def show_links(found: dict[str, list[dict[str, Any]]]) -> None:
    """Print one row for each link, a column for each slice; nothing where no thought was in the measured form."""
    if not found or not any(row["right"] for row in found["all"] if row["name"] == "form"):
        return
    print("\nwhere the reasoning holds, % (of n)\n")
    rows = [("link", *found)]
    for k, name in enumerate(reasoning.STEPS):
        rows.append((name, *(f"{tables.percent(part[k]['share'])} ({part[k]['of']})" for part in found.values())))
    print(tables.markdown(rows))


def compare(options: argparse.Namespace) -> None:
    """Print B minus A for each slice, sample by sample, and write it where asked."""
    a, b = runs.load(options.a), runs.load(options.b)
    table = scores.compare(a.cases, b.cases, seed=options.seed)
    rows: list[tuple[Any, ...]] = [("slice", "n", "B - A, Acc@0.5", "95 %", "p", "B right only", "A right only")]
    for name, row in table.items():
        d = row["acc"]
        change = tables.percent(d["value"], sign=True)
        rows.append((name, d["samples"], change, tables.interval(d), f"{d['p']:.3f}", d["wins"], d["losses"]))
    print(f"A = {a.info['model']} ({options.a})\nB = {b.info['model']} ({options.b})\n")
    print(tables.markdown(rows))
    every = table["all"]["acc"]
    verdict = f"B is {'above' if every['value'] > 0 else 'below'} A" if every["clear"] else "no order can be claimed"
    zero = "leaves zero out" if every["clear"] else "holds zero"
    print(f"\n{verdict}: the 95 % interval over {every['groups']} images {zero}")
    if options.out:
        Path(options.out).write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="kvg_bench", description=__doc__, formatter_class=plain)
    for flag, about in generate_missing.FLAGS.items():
        parser.add_argument(flag, **about)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--samples", default="runs/pocket/data/test.jsonl", help="samples file (jsonl)")
    what.add_argument("--official", help="the official kvg-bench.parquet")
    parser.add_argument(
        "--train", help="the samples file that the model was trained on: its entities are the seen ones"
    )
    parser.add_argument("--mastery", help="mastery file (eval/mastery.py): quadrants, and accuracy by mastery")
    parser.add_argument("--out", default="runs/pocket/eval", help="folder of outputs and scores")
    parser.add_argument("--max-new-tokens", type=int, default=512)
    return parser


def _compare_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kvg_bench compare", description="Is run B above run A? Paired by sample.")
    parser.add_argument("a", help="folder of run A")
    parser.add_argument("b", help="folder of run B")
    parser.add_argument("--out", help="write the differences to this json file")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    return parser


if __name__ == "__main__":
    run_main(main)

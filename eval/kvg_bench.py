"""Knowledge-intensive visual grounding: Acc@0.5 of finding one named thing among its look-alikes.

    python eval/kvg_bench.py                                          # the pocket example
    python eval/kvg_bench.py --model DIR --samples FILE --out DIR     # any samples file of ours
    python eval/kvg_bench.py --model DIR --official kvg-bench.parquet --out DIR
    python eval/kvg_bench.py --rescore --out DIR                      # from the saved outputs, without the model
    python eval/kvg_bench.py --rescore --out DIR --mastery mastery.json   # with what the model knows (eval/mastery.py)
    python eval/kvg_bench.py compare DIR_A DIR_B                      # paired test: is B above A?

Outputs are saved as they come, and the same command continues a stopped run. Boxes are scored by the IoU function that
the reward uses: Acc@0.5 for each slice with a 95 % interval over images and, for samples with marks, the steps of the
reasoning. `scores.json` holds all of it, with the settings that made it.
"""

from __future__ import annotations

if __name__ == "__main__":
    from mllm import ctrl_c

    ctrl_c.end_at_once()  # while the imports below run

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from mllm.cli.options import BenchmarkOptions
from mllm.cli.programs import parse, run_program
from mllm.errors import FieldmarkError
from mllm.evaluation import generate_missing, kvg_published, quadrants, runs, scores
from mllm.io import provenance, tables
from mllm.io.files import no_such, write_json
from mllm.knowledge.mastery import load_masteries
from mllm.metrics import reasoning
from mllm.records import Sample, load_samples

VERSION = "1"
"""Raised whenever the same outputs would get other numbers."""
SAMPLES = Path("runs/pocket/data/test.jsonl")


@dataclass(frozen=True)
class Options:
    samples: Path | None = None
    """samples file (jsonl); default: runs/pocket/data/test.jsonl"""
    official: Path | None = None
    """the official kvg-bench.parquet, instead of --samples"""
    train: Path | None = None
    """samples file that the model was trained on: its entities count as seen"""
    mastery: tuple[Path, ...] = ()
    """mastery file (eval/mastery.py), or KARL's three: adds quadrants, and accuracy by mastery"""
    benchmark: BenchmarkOptions = BenchmarkOptions(out=Path("runs/pocket/eval"), max_new_tokens=512)


@dataclass(frozen=True)
class CompareOptions:
    a: Positional[Path]
    """folder of run A"""
    b: Positional[Path]
    """folder of run B"""
    out: Path | None = None
    """write the differences to this json file"""
    seed: int = 0
    """random seed of the bootstrap"""


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark, or `compare` two runs."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["compare"]:
        compare(parse(CompareOptions, argv[1:], prog="eval/kvg_bench.py compare"))
        return
    options = parse(Options, argv)
    if not options.benchmark.rescore:
        answer(options, options.benchmark)
    run = runs.load(options.benchmark.out)
    known = load_masteries(options.mastery) if options.mastery else None
    show(runs.write_scores(run, knowledge=quadrants.measure(run.cases, known) if known is not None else None))
    print(f"\nwritten: {options.benchmark.out / 'scores.json'}")


def answer(options: Options, benchmark: BenchmarkOptions) -> None:
    """Ask the model every sample that has no output yet."""
    if options.samples is not None and options.official is not None:
        raise FieldmarkError("--samples and --official exclude each other")
    file = options.official or options.samples or SAMPLES
    checkpoint = generate_missing.open_for(benchmark)  # before minutes of reading a parquet
    left_out: list[str] = []
    samples, root = read_samples(options, file, left_out)
    source = {
        "file": str(file),
        "hash": provenance.file_hash(file),
        "count": len(samples),
        "trained": provenance.file_hash(options.train) if options.train else None,
    }
    info = generate_missing.settings(benchmark, checkpoint, "kvg", VERSION, source)
    info |= {"official": options.official is not None, "left_out": left_out}
    if not generate_missing.ask(benchmark, checkpoint, samples, root, info):
        print(f"all {len(samples)} samples are answered already in {benchmark.out}")


def read_samples(options: Options, file: Path, left_out: list[str]) -> tuple[list[Sample], Path]:
    """Return the samples and the folder that their images are relative to; `--train` marks the entities trained on.

    Official cases without a usable gold box are named in `left_out`.
    """
    if options.official is not None:
        root = options.benchmark.out
        samples = kvg_published.read_parquet(file, root / "images", limit=options.benchmark.limit, left_out=left_out)
    else:
        if not file.is_file():
            raise FieldmarkError(
                f"{no_such(file, 'samples file')}; name it with --samples, or make the pocket example's with "
                "`python data_synth/grounding.py`"
            )
        root = file.parent
        samples = [sample for sample in load_samples(file) if sample.task != "name"][: options.benchmark.limit]
        if not samples:
            raise FieldmarkError(f"{file}: every sample asks for a name; eval/naming.py --samples measures those")
    if options.train is not None:
        trained = {sample.entity for sample in load_samples(options.train, images=False)}
        samples = [replace(sample, seen=sample.entity in trained) for sample in samples]
    return samples, root


def show(table: dict[str, Any]) -> None:
    """Print the scores, the unreadable outputs, published results, knowledge, and the steps of the reasoning."""
    print(f"\n{table['model']}  style {table['style']}  {table['samples']['file']}\n")
    print(scores.text_table(table))
    every = table["slices"]["all"]
    for problem, count in sorted(table["problems"].items(), key=lambda item: -item[1]):
        print(f"could not be read, {problem}: {count}")
    if every["truncated"]:
        print(f"truncated at --max-new-tokens: {tables.percent(every['truncated'])} %")
    if table.get("official"):
        show_published(table)
    if table.get("knowledge"):
        show_knowledge(table["knowledge"])
    show_links(table["links"])


def show_published(table: dict[str, Any]) -> None:
    """Print the rules side by side, then this run among the published rows."""
    parts = table["slices"]
    for reason in table.get("left_out", ())[:3]:
        print(f"left out (the published scorers count a miss): {reason}")
    if "published_acc" not in parts["all"]:
        print("\nthe published rule does not apply: this family does not write boxes on 1000 x 1000")
        return
    print("\nthe same outputs by the published rules and by ours (Acc@0.5, 95 % interval over images)\n")
    print("published: KARL's scorer (2026). first: DeepPerception's (2025), which ignores tags and JSON blocks.\n")
    rules = {"published": "published_acc", "first": "first_published_acc", "ours": "acc"}
    heads = [head for rule in rules for head in (rule, "95 %")]
    rows: list[tuple[str, ...]] = [("slice", "n", *heads, "IoU, published", "IoU, ours")]
    for name, row in parts.items():
        accs = [row[key] for key in rules.values()]
        each = [cell for acc in accs for cell in (tables.percent(acc["value"]), tables.interval(acc))]
        ious = (tables.percent(row["published_iou"]), tables.percent(row["iou"]["value"]))
        rows.append((name, str(row["samples"]), *each, *ious))
    print(tables.markdown(rows))
    columns = [*kvg_published.SEEN_DOMAINS, "seen", *kvg_published.UNSEEN_DOMAINS, "unseen", "all"]
    own = {"seen": "seen domains", "unseen": "unseen domains", "all": "all"}
    rows = [("model", *columns)]
    for rule, key in rules.items():
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
    columns = {"ours, %": "quadrants", "as KARL counts, %": "published_quadrants"}
    columns = {head: found[key] for head, key in columns.items() if found.get(key)}
    names = ((name, *(tables.percent(part[name]) for part in columns.values())) for name in quadrants.QUADRANTS)
    print(tables.markdown([("quadrant", *columns), *names]))
    rows = [("mastery", "n", "Acc@0.5", "95 %")]
    for name, row in found["levels"].items():
        rows.append((name, str(row["samples"]), tables.percent(row["acc"]["value"]), tables.interval(row["acc"])))
    print("\n" + tables.markdown(rows))
    if found["unknown"]:
        few = ", ".join(found["unknown"][:5])
        print(f"left out: {found['left_out']} cases of {len(found['unknown'])} entities not in the file ({few}, ...)")


def show_links(found: dict[str, list[dict[str, Any]]]) -> None:
    """Print one row for each link and a column for each slice; nothing if no thought had the form that is measured."""
    if not found or not any(row["right"] for row in found["all"] if row["name"] == "form"):
        return
    print("\nwhere the reasoning holds, % (of n)\n")
    rows = [("link", *found)]
    for k, name in enumerate(reasoning.STEPS):
        rows.append((name, *(f"{tables.percent(part[k]['share'])} ({part[k]['of']})" for part in found.values())))
    print(tables.markdown(rows))


def compare(options: CompareOptions) -> None:
    """Print B minus A for each slice, paired by sample; write it to `--out`."""
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
    verdict = f"B is {'above' if every['value'] > 0 else 'below'} A" if every["clear"] else "no clear difference"
    zero = "excludes zero" if every["clear"] else "contains zero"
    print(f"\n{verdict}: the 95 % interval over {every['groups']} images {zero}")
    if options.out is not None:
        write_json(options.out, table)


if __name__ == "__main__":
    run_program(main)

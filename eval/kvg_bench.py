"""Knowledge-intensive visual grounding, measured: Acc@0.5 of one named thing among its look-alikes.

    python eval/kvg_bench.py                                          # the pocket example
    python eval/kvg_bench.py --model DIR --samples FILE --out DIR     # any samples file of ours
    python eval/kvg_bench.py --model DIR --official kvg-bench.parquet --out DIR
    python eval/kvg_bench.py --rescore --out DIR                      # from the saved outputs, without the model
    python eval/kvg_bench.py compare DIR_A DIR_B                      # paired test: is B above A?

The story: read the samples -> ask the model (outputs are written down as they come; a stopped run goes on) -> read the
boxes -> IoU by the function that the reward uses -> Acc@0.5 for each slice with a 95 % interval over pictures -> where
the samples know their marks, the links of the reasoning. `scores.json` holds all of it with the settings that made it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mllm import kvg, links, provenance, runs, scores
from mllm.errors import FieldmarkError
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
    table = runs.write_scores(runs.load(options.out))
    show(table)
    print(f"\nwritten: {Path(options.out) / 'scores.json'}")


def answer(options: argparse.Namespace) -> None:
    """Ask the model every sample that has no output yet."""
    samples, root = read_samples(options)
    from mllm.models import load, open_checkpoint

    checkpoint = open_checkpoint(options.model, adapter=options.adapter, family=options.family, style=options.style)
    info = settings(options, checkpoint, samples, root)
    done = runs.begin(options.out, info, samples, root, fresh=options.fresh)
    if len(done) == len(samples):
        print(f"all {len(samples)} samples are answered already in {options.out}")
        return
    loaded = load(checkpoint, dtype=options.dtype, device=options.device)
    from rich import progress

    from mllm.generate import generate

    columns = (progress.MofNCompleteColumn(), progress.TimeElapsedColumn(), progress.TimeRemainingColumn())
    with progress.Progress(*progress.Progress.get_default_columns()[:2], *columns) as bar:
        task = bar.add_task("answering", total=len(samples), completed=len(done))
        completions = generate(
            loaded,
            samples,
            root,
            skip=done,
            batch_size=options.batch_size,
            progress=lambda n, _: bar.update(task, completed=n),
            **info["generation"],
        )
        for completion in completions:
            runs.append(options.out, completion)


def read_samples(options: argparse.Namespace) -> tuple[list[Sample], Path]:
    """Read what is asked, and the folder its pictures are relative to. `--train` marks the entities trained on."""
    if options.official:
        root = Path(options.out)
        samples = kvg.read_parquet(options.official, root / "pictures", limit=options.limit)
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


def settings(options: argparse.Namespace, checkpoint: Any, samples: Sequence[Sample], root: Path) -> dict[str, Any]:
    """Everything that decides the outputs, and where they came from."""
    weights = [provenance.fingerprint(folder) for folder in (checkpoint.base, checkpoint.adapter) if folder]
    return {
        "benchmark": "kvg",
        "version": VERSION,
        "model": str(options.model) if options.adapter is None else f"{options.model} + {options.adapter}",
        "weights": "+".join(weights),
        "style": checkpoint.convention.prompt,
        "convention": asdict(checkpoint.convention),
        "samples": {
            "file": str(options.official or options.samples),
            "hash": provenance.file_hash(options.official or options.samples),
            "count": len(samples),
            "trained": provenance.file_hash(options.train) if options.train else None,
        },
        "official": bool(options.official),
        "generation": {
            "max_new_tokens": options.max_new_tokens,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "seed": options.seed,
        },
        "batch_size": options.batch_size if options.temperature > 0 else None,  # greedy answers do not hang on it
        "dtype": options.dtype,
        "commit": provenance.git_commit(),
        "versions": provenance.versions(),
    }


def show(table: dict[str, Any]) -> None:
    """Print the scores, then what could not be read, then the links."""
    print(f"\n{table['model']}  style {table['style']}  {table['samples']['file']}\n")
    print(scores.text_table(table))
    every = table["slices"]["all"]
    if "published_acc" in every:
        acc = every["published_acc"]
        print(f"\nby the published scorer's own rule: Acc@0.5 {scores.percent(acc['value'])}", end="")
        print(f" ({scores.interval(acc)}), mean IoU {scores.percent(every['published_iou'])}")
    elif table["official"]:
        print("\nby the published scorer's own rule: does not apply, this family does not write on 1000 x 1000")
    for problem, count in sorted(table["problems"].items(), key=lambda item: -item[1]):
        print(f"could not be read, {problem}: {count}")
    if every["clipped"]:
        print(f"cut off by --max-new-tokens: {scores.percent(every['clipped'])} %")
    show_links(table["links"])


def show_links(found: dict[str, list[dict[str, Any]]]) -> None:
    """Print one row for each link, a column for each slice; nothing where no thought was in the measured form."""
    if not found or not any(row["right"] for row in found["all"] if row["name"] == "form"):
        return
    print("\nwhere the reasoning holds, % (of n)\n")
    rows = [("link", *found)]
    for k, name in enumerate(links.LINKS):
        rows.append((name, *(f"{scores.percent(part[k]['share'])} ({part[k]['of']})" for part in found.values())))
    print(scores.markdown(rows))


def compare(options: argparse.Namespace) -> None:
    """Print B minus A for each slice, sample by sample, and write it where asked."""
    a, b = runs.load(options.a), runs.load(options.b)
    table = scores.compare(a.cases, b.cases, seed=options.seed)
    rows = [("slice", "n", "B - A, Acc@0.5", "95 %", "p", "B right only", "A right only")]
    for name, row in table.items():
        d = row["acc"]
        counts = (str(d["wins"]), str(d["losses"]))
        rows.append((name, str(d["samples"]), f"{100 * d['value']:+.1f}", scores.interval(d), f"{d['p']:.3f}", *counts))
    print(f"A = {a.info['model']} ({options.a})\nB = {b.info['model']} ({options.b})\n")
    print(scores.markdown(rows))
    every = table["all"]["acc"]
    verdict = f"B is {'above' if every['value'] > 0 else 'below'} A" if every["clear"] else "no order can be claimed"
    zero = "leaves zero out" if every["clear"] else "holds zero"
    print(f"\n{verdict}: the 95 % interval over {every['groups']} pictures {zero}")
    if options.out:
        Path(options.out).write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="kvg_bench", description=__doc__, formatter_class=plain)
    parser.add_argument("--model", default="pocket", help="checkpoint folder, adapter folder, Hub name, or pocket")
    parser.add_argument("--adapter", help="adapter folder to put on --model, unmerged")
    parser.add_argument("--family", help="model family, where no fieldmark.json lies beside the weights")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--samples", default="runs/pocket/data/test.jsonl", help="samples file (jsonl)")
    what.add_argument("--official", help="the official kvg-bench.parquet")
    parser.add_argument(
        "--train", help="the samples file that the model was trained on: its entities are the seen ones"
    )
    parser.add_argument("--out", default="runs/pocket/eval", help="folder of outputs and scores")
    parser.add_argument("--style", help="prompt style; default: the one saved beside the weights")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-new-tokens", type=int, default=512)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0, help="of the sampling")
    parser.add_argument("--limit", type=int, help="only the first N samples")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rescore", action="store_true", help="score the saved outputs anew, without the model")
    parser.add_argument("--fresh", action="store_true", help="throw the folder's old outputs away")
    return parser


def _compare_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kvg_bench compare", description="Is run B above run A? Paired by sample.")
    parser.add_argument("a", help="folder of run A")
    parser.add_argument("b", help="folder of run B")
    parser.add_argument("--out", help="write the differences to this json file")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    return parser


if __name__ == "__main__":
    try:
        main()
    except FieldmarkError as error:
        sys.exit(f"kvg_bench: {error}")

"""Fine-grained recognition, measured: which of four names is it? Any labelled photos, whole images, four options.

    python eval/fgvr.py --source image_folder --input ROOT --domain bird --model DIR --out DIR     # ROOT/<class>/*.jpg
    python eval/fgvr.py --source csv --input photos.csv --domain bird --model DIR --out DIR
    python eval/fgvr.py --rescore --out DIR                                # from the saved answers, without the model

The story: photos -> one question each, with three wrong names of the same domain (with `--knowledge`, those whose marks
are most alike) in an order drawn by seed -> answers are written down as they come; a stopped run goes on -> share of
right choices with a 95 % interval over images, over classes, and for each domain. It is the form in which
DeepPerception reports Stanford Dogs, CUB, FGVC-Aircraft, Oxford Flowers, Pets and Stanford Cars (arXiv 2503.12797,
after FOCI); its wrong names are not published, so numbers compare within one seed.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

from mllm.cli.programs import run_main
from mllm.data import sources
from mllm.errors import FieldmarkError
from mllm.evaluation import generate_missing, knowledge_probe, runs
from mllm.io import provenance, tables
from mllm.knowledge.cards import load_cards
from mllm.metrics import stats

VERSION = "1"


def main(argv: list[str] | None = None) -> None:
    options = parser().parse_args(argv)
    if not options.rescore:
        answer(options)
    table = measure(options.out)
    runs.write_json(options.out, "scores.json", table)
    show(table)
    print(f"\nwritten: {Path(options.out) / 'scores.json'}")


def answer(options: argparse.Namespace) -> None:
    """Write a question for each photo and ask it."""
    if not options.input:
        raise FieldmarkError("name the photos: --input FOLDER or FILE (or --rescore --out DIR)")
    asked_for = sources.PhotoRequest(Path(options.input), options.domain, whole_image_boxes=True)
    photos = list(sources.photos(options.source, asked_for))
    pool = knowledge_probe.items(photos)
    entities, chosen = knowledge_probe.by_domain(pool), knowledge_probe.one_an_image(pool)
    if options.per_class:
        chosen = knowledge_probe.draw(chosen, options.per_class, options.seed)
    chosen = chosen[: options.limit]
    alike = None
    if options.knowledge:
        cards = load_cards(Path(options.knowledge))
        alike = {
            item.entity: knowledge_probe.nearest_cards(item.entity, entities[item.domain], cards) for item in chosen
        }
    asked = knowledge_probe.choices(chosen, entities, options.seed, alike=alike)
    checkpoint = generate_missing.open_for(options)
    source = {
        "file": str(options.input),
        "source": options.source,
        "photos": len(photos),
        "count": len(asked),
        "seed": options.seed,
        "knowledge": provenance.file_hash(options.knowledge) if options.knowledge else None,
    }
    generate_missing.ask(
        options, checkpoint, asked, Path(), generate_missing.settings(options, checkpoint, "fgvr", VERSION, source)
    )


def measure(out: str | Path) -> dict[str, Any]:
    """Grade the saved answers: all, each domain, and the mean over classes."""
    info, asked, said = runs.read_whole(out)
    right = [value for _, value in knowledge_probe.grade_choices(asked, said)]
    parts: dict[str, list[int]] = defaultdict(list)
    for k, sample in enumerate(asked):
        parts["all"].append(k)
        parts[f"domain {sample.domain}"].append(k)
    classes: dict[str, list[float]] = defaultdict(list)
    for sample, value in zip(asked, right, strict=True):
        classes[sample.entity].append(value)
    unread = [knowledge_probe.read_choice(said[s.id].text, s.options) is None for s in asked]
    slices = {}
    for name, rows in parts.items():
        acc = stats.mean([right[k] for k in rows], [asked[k].group for k in rows])
        slices[name] = {
            "samples": len(rows),
            "acc": acc.as_dict(),
            "unreadable": sum(unread[k] for k in rows) / len(rows),
        }
    means = {name: sum(values) / len(values) for name, values in sorted(classes.items())}
    over = sum(means.values()) / len(means)
    return {**info, "slices": slices, "over_classes": over, "classes": means, "chance": knowledge_probe.CHANCE}


def show(table: dict[str, Any]) -> None:
    """Print the shares."""
    print(f"\n{table['model']}  style {table['style']}  {table['samples']['file']}\n")
    rows = [("slice", "n", "right, %", "95 %", "unreadable")]
    for name, row in table["slices"].items():
        shown = (tables.percent(row["acc"]["value"]), tables.interval(row["acc"]), tables.percent(row["unreadable"]))
        rows.append((name, str(row["samples"]), *shown))
    print(tables.markdown(rows))
    print(f"\nmean over {len(table['classes'])} classes: {tables.percent(table['over_classes'])} %; chance: 25.0 %")


def parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    built = argparse.ArgumentParser(prog="fgvr", description=__doc__, formatter_class=plain)
    for flag, about in generate_missing.FLAGS.items():
        built.add_argument(flag, **about)
    built.add_argument("--source", default="image_folder", help="how the photos are labelled (mllm/sources)")
    built.add_argument("--input", help="folder or file of labelled photos")
    built.add_argument("--domain", help="domain of all photos, where the input does not say it")
    built.add_argument("--per-class", type=int, help="at most so many photos of a class, drawn by seed")
    built.add_argument("--knowledge", help="card file: wrong names are those with the most similar marks")
    built.add_argument("--out", default="runs/fgvr", help="folder of answers and scores")
    built.add_argument("--max-new-tokens", type=int, default=64)
    return built


if __name__ == "__main__":
    run_main(main)

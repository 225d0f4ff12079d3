"""Fine-grained recognition: which of four names fits the photo? For any labelled photos, one question per photo.

    python eval/fgvr.py --source image_folder --input ROOT --domain bird --model DIR --out DIR     # ROOT/<class>/*.jpg
    python eval/fgvr.py --source csv --input photos.csv --domain bird --model DIR --out DIR
    python eval/fgvr.py --rescore --out DIR                                # from the saved answers, without the model

Each photo gets a question with its name and three wrong names of the same domain (with `--knowledge`, those with the
most similar marks), in an order drawn by the seed. Answers are saved as they come, and the same command continues a
stopped run. Reports the share of right choices with a 95 % interval over images, over classes, and for each domain.
DeepPerception reports Stanford Dogs, CUB, FGVC-Aircraft, Oxford Flowers, Pets and Stanford Cars in this form (arXiv
2503.12797, after FOCI); its wrong names are not published, so compare numbers of the same seed only.
"""

from __future__ import annotations

if __name__ == "__main__":
    from mllm import ctrl_c

    ctrl_c.end_at_once()  # while the imports below run

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from mllm.cli.options import BenchmarkOptions
from mllm.cli.programs import Range, parse, run_program
from mllm.data import sources
from mllm.errors import FieldmarkError
from mllm.evaluation import generate_missing, knowledge_probe, runs
from mllm.io import provenance, tables
from mllm.knowledge.cards import load_cards
from mllm.metrics import stats

VERSION = "1"


@dataclass(frozen=True)
class Options:
    source: str = "image_folder"
    """how the photos are labelled: a module of mllm/data/sources"""
    input: Path | None = None
    """folder or file of labelled photos"""
    domain: str | None = None
    """domain of all photos, if the input does not name it"""
    per_class: Annotated[int | None, Range(1)] = None
    """most photos of a class, drawn by the seed"""
    knowledge: Path | None = None
    """card file: wrong names are those with the most similar marks"""
    benchmark: BenchmarkOptions = BenchmarkOptions(out=Path("runs/fgvr"), max_new_tokens=64)


def main(argv: list[str] | None = None) -> None:
    """Ask what is missing, then grade all answers."""
    options = parse(Options, argv)
    if not options.benchmark.rescore:
        answer(options, options.benchmark)
    table = measure(options.benchmark.out)
    path = runs.write_json(options.benchmark.out, "scores.json", table)
    show(table)
    print(f"\nwritten: {path}")


def answer(options: Options, benchmark: BenchmarkOptions) -> None:
    """Make a question for each photo and ask it."""
    if options.input is None:
        raise FieldmarkError("name the photos: --input FOLDER or FILE (or --rescore --out DIR)")
    request = sources.PhotoRequest(options.input, options.domain, out=benchmark.out, whole_image_boxes=True)
    photos = list(sources.photos(options.source, request))
    pool = knowledge_probe.items(photos)
    entities, chosen = knowledge_probe.by_domain(pool), knowledge_probe.one_an_image(pool)
    if options.per_class is not None:
        chosen = knowledge_probe.draw(chosen, options.per_class, benchmark.seed)
    chosen = chosen[: benchmark.limit]
    alike = None
    if options.knowledge is not None:
        cards = load_cards(options.knowledge)
        alike = {
            item.entity: knowledge_probe.nearest_cards(item.entity, entities[item.domain], cards) for item in chosen
        }
    questions = knowledge_probe.choices(chosen, entities, benchmark.seed, alike=alike)
    checkpoint = generate_missing.open_for(benchmark)
    source = {
        "file": str(options.input),
        "source": options.source,
        "photos": len(photos),
        "count": len(questions),
        "seed": benchmark.seed,
        "knowledge": provenance.file_hash(options.knowledge) if options.knowledge else None,
    }
    info = generate_missing.settings(benchmark, checkpoint, "fgvr", VERSION, source)
    generate_missing.ask(benchmark, checkpoint, questions, benchmark.out, info)


def measure(out: str | Path) -> dict[str, Any]:
    """Grade the saved answers: all, each domain, and the mean over classes."""
    info, questions, answers = runs.read_whole(out)
    right = [value for _, value in knowledge_probe.grade_choices(questions, answers)]
    parts: dict[str, list[int]] = defaultdict(list)
    for k, sample in enumerate(questions):
        parts["all"].append(k)
        parts[f"domain {sample.domain}"].append(k)
    classes: dict[str, list[float]] = defaultdict(list)
    for sample, value in zip(questions, right, strict=True):
        classes[sample.entity].append(value)
    unread = [knowledge_probe.read_choice(answers[s.id].text, s.options) is None for s in questions]
    slices = {}
    for name, rows in parts.items():
        acc = stats.mean([right[k] for k in rows], [questions[k].group for k in rows])
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


if __name__ == "__main__":
    run_program(main)

"""Naming: what species is this? Top-1, genus, each kind, and which kinds are taken for which.

    python eval/naming.py --source image_folder --input ROOT --domain bird --model DIR --out DIR   # ROOT/<class>/*.jpg
    python eval/naming.py --source csv --input photos.csv --domain bird --knowledge cards.yaml --model DIR --out DIR
    python eval/naming.py --samples runs/birds/data/test.jsonl --model DIR --out DIR      # its questions for a name
    python eval/naming.py --options 4 ...                              # four names to choose from
    python eval/naming.py --rescore --out DIR                          # from the saved answers, without the model

Each photo is asked about once: as a whole, or with `--boxed` the thing at each of its boxes. The question is open
unless `--options` lists names: the right one and look-alikes (with `--knowledge` those with the most similar marks), in
an order drawn by the seed. Answers are saved as they come, and the same command continues a stopped run.

An open answer is graded as the reward `name` grades it. Reports for all, for seen and unseen kinds, and for each domain
the share of right names with a 95 % interval over images, the share with the right genus, and the graded score; then
each kind, and the pairs that are confused most often. The genus comes from the source, the samples or the cards.
DeepPerception reports Stanford Dogs, CUB, FGVC-Aircraft, Oxford Flowers, Pets and Stanford Cars with four names (arXiv
2503.12797, after FOCI); its wrong names are not published, so compare numbers of the same seed only.
"""

from __future__ import annotations

if __name__ == "__main__":
    from mllm import ctrl_c

    ctrl_c.end_at_once()  # while the imports below run

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from mllm.cli.options import BenchmarkOptions, DomainOptions
from mllm.cli.programs import Range, parse, run_program
from mllm.data import sources
from mllm.errors import FieldmarkError
from mllm.evaluation import generate_missing, knowledge_probe, naming_scores, runs
from mllm.io import provenance, tables
from mllm.knowledge.cards import Cards, load_cards
from mllm.prompting.questions import MOST_LETTERS
from mllm.records import Sample, load_samples

VERSION = "2"
SHOWN = 10
"""Confused pairs that are printed; scores.json has all."""


@dataclass(frozen=True)
class Options:
    source: str = "image_folder"
    """how the photos are labelled: a module of mllm/data/sources"""
    input: Path | None = None
    """folder or file of labelled photos"""
    samples: Path | None = None
    """samples file, instead of photos: its questions for a name (data_synth/grounding.py --naming)"""
    domain: DomainOptions = DomainOptions()
    per_class: Annotated[int | None, Range(1)] = None
    """most photos of a class, drawn by the seed"""
    options: Annotated[int | None, Range(2, MOST_LETTERS)] = None
    """names to choose from; default: the question is open"""
    boxed: bool = False
    """ask about the thing at each box, not about the whole photo"""
    knowledge: Path | None = None
    """card file: genera, synonyms, and look-alikes by their marks"""
    benchmark: BenchmarkOptions = BenchmarkOptions(out=Path("runs/naming"), max_new_tokens=512)


def main(argv: list[str] | None = None) -> None:
    """Ask what is missing, then grade all answers."""
    options = parse(Options, argv)
    if not options.benchmark.rescore:
        answer(options, options.benchmark)
    table = naming_scores.measure(options.benchmark.out)
    path = runs.write_json(options.benchmark.out, "scores.json", table)
    show(table)
    print(f"\nwritten: {path}")


def answer(options: Options, benchmark: BenchmarkOptions) -> None:
    """Make the questions and ask those that have no answer yet."""
    cards = load_cards(options.knowledge) if options.knowledge is not None else None
    if options.samples is not None:
        if options.input is not None or options.options is not None:
            raise FieldmarkError("--samples brings its own questions: leave out --input and --options")
        questions, root = from_samples(options.samples, benchmark.limit), options.samples.parent
        questions = naming_scores.with_taxonomy(questions, {}, cards)
        about: dict[str, Any] = {"file": str(options.samples), "hash": provenance.file_hash(options.samples)}
    else:
        questions, about = from_photos(options, benchmark, cards)
        root = benchmark.out
    checkpoint = generate_missing.open_for(benchmark)
    source = {**about, "count": len(questions)}
    info = generate_missing.settings(benchmark, checkpoint, "naming", VERSION, source)
    generate_missing.ask(benchmark, checkpoint, questions, root, info)


def from_samples(file: Path, limit: int | None) -> list[Sample]:
    """Return the questions for a name of a samples file."""
    questions = [sample for sample in load_samples(file) if sample.task == "name"][:limit]
    if not questions:
        raise FieldmarkError(f"{file}: no sample of task 'name'; data_synth/grounding.py makes them with --naming")
    return questions


def from_photos(
    options: Options, benchmark: BenchmarkOptions, cards: Cards | None
) -> tuple[list[Sample], dict[str, Any]]:
    """Make a question for each labelled photo or box; return them and what describes their source."""
    if options.input is None:
        raise FieldmarkError("name the photos: --input FOLDER or FILE, or --samples FILE (or --rescore --out DIR)")
    request = sources.PhotoRequest(
        options.input, options.domain.name, out=benchmark.out, whole_image_boxes=not options.boxed
    )
    photos = list(sources.photos(options.source, request))
    pool = knowledge_probe.items(photos)
    entities, chosen = knowledge_probe.by_domain(pool), pool if options.boxed else knowledge_probe.one_an_image(pool)
    if options.per_class is not None:
        chosen = knowledge_probe.draw(chosen, options.per_class, benchmark.seed)
    if not chosen:
        raise FieldmarkError(
            f"{options.input}: each of the {len(photos)} photos shows several kinds: ask about their boxes with --boxed"
        )
    chosen = chosen[: benchmark.limit]
    alike = None
    if cards is not None:
        alike = {one.entity: knowledge_probe.nearest_cards(one.entity, entities[one.domain], cards) for one in chosen}
    if options.options is None:
        questions = knowledge_probe.open_questions(chosen, entities, boxed=options.boxed)
    else:
        settings: dict[str, Any] = {"alike": alike, "count": options.options, "boxed": options.boxed}
        questions = knowledge_probe.choices(chosen, entities, benchmark.seed, **settings)
    genera = {thing.entity: thing.genus for photo in photos for thing in photo.things if thing.genus}
    source = {
        "file": str(options.input),
        "source": options.source,
        "photos": len(photos),
        "seed": benchmark.seed,
        "knowledge": provenance.file_hash(options.knowledge) if options.knowledge else None,
    }
    if options.boxed or options.options != knowledge_probe.OPTIONS:  # folders of eval/fgvr.py can be continued
        source |= {"options": options.options, "boxed": options.boxed}
    return naming_scores.with_taxonomy(questions, genera, cards), source


def show(table: dict[str, Any]) -> None:
    """Print the slices, and the pairs confused most often."""
    print(f"\n{table['model']}  style {table['style']}  {table['samples']['file']}\n")
    rows: list[tuple[str, ...]] = [("slice", "n", "right, %", "95 %", "genus, %", "score", "chance", "unreadable")]
    for name, row in table["slices"].items():
        genus = tables.percent(row["genus"]["value"]) if row["genus"] else tables.MISSING
        shares = (genus, *(tables.percent(row[key]) for key in ("score", "chance", "unreadable")))
        acc = (tables.percent(row["acc"]["value"]), tables.interval(row["acc"]))
        rows.append((name, str(row["samples"]), *acc, *shares))
    print(tables.markdown(rows))
    chance = tables.percent(table["chance"])
    print(f"\nmean over {len(table['classes'])} classes: {tables.percent(table['over_classes'])} %; chance: {chance} %")
    pairs = [(pair["name"], pair["answered"], str(pair["times"])) for pair in table["confusions"][:SHOWN]]
    if pairs:
        print("\n" + tables.markdown([("name", "answered", "times"), *pairs]))


if __name__ == "__main__":
    run_program(main)

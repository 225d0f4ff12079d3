"""Measure what a model knows of each entity: a mastery file for rewards, weights on advantages, and quadrants.

    python eval/mastery.py --samples FILE --by marks --out DIR              # the pocket base: it was not taught letters
    python eval/mastery.py --model DIR --samples FILE --out DIR             # four names to choose from, cut-out things
    python eval/mastery.py --rescore --out DIR                              # from the saved answers, without the model

Draws up to `--per-entity` things of each entity from the samples' images, and asks for each one's name among those of
three look-alikes (first those in the same image). Answers are saved as they come, and the same command continues a
stopped run. Writes `mastery.json`: the right answers and the questions of each entity, with KARL's five levels.

KARL estimates once, on the untrained base (up to 50 images an entity); `advantage.mastery.refresh` in a recipe asks
the same questions again while training. See docs/mastery.md.
"""

from __future__ import annotations

if __name__ == "__main__":
    from mllm import ctrl_c

    ctrl_c.end_at_once()  # while the imports below run

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from mllm.boxes import Box, Frame
from mllm.cli.options import BenchmarkOptions
from mllm.cli.programs import Range, parse, run_program
from mllm.errors import FieldmarkError
from mllm.evaluation import generate_missing, knowledge_probe, runs
from mllm.evaluation.knowledge_probe import Item
from mllm.io import provenance, tables
from mllm.io.images import open_image, save_image
from mllm.knowledge.cards import load_cards, normalize_name, one_spelling
from mllm.knowledge.mastery import MasteryTable
from mllm.prompting import prompts
from mllm.records import load_samples

VERSION = "1"
MARGIN = 0.05
"""Share of a box's sides to add around a thing when cutting it out."""


@dataclass(frozen=True)
class Options:
    samples: Path | None = None
    """samples file (jsonl) of the things to ask about"""
    by: Literal["choices", "marks"] = "choices"
    """how to ask: a choice of four names, or (for models that were not taught letters) by marks"""
    per_entity: Annotated[int, Range(1)] = 8
    """most questions about one entity (KARL: 50)"""
    knowledge: Path | None = None
    """card file: wrong names are drawn among those with the most similar marks"""
    benchmark: BenchmarkOptions = BenchmarkOptions(out=Path("runs/pocket/mastery"), max_new_tokens=32)


def main(argv: list[str] | None = None) -> None:
    """Ask what is missing, then grade all answers."""
    options = parse(Options, argv)
    if not options.benchmark.rescore:
        answer(options, options.benchmark)
    show(options.benchmark.out)


def answer(options: Options, benchmark: BenchmarkOptions) -> None:
    """Make the questions and ask them."""
    file = options.samples
    if file is None:
        raise FieldmarkError("name the samples to ask about: --samples FILE (or --rescore --out DIR)")
    rows = load_samples(file)[: benchmark.limit]
    pool = knowledge_probe.items(rows)
    one_spelling((item.entity for item in pool), str(file))  # now, not after all questions have been answered
    chosen = knowledge_probe.draw(pool, options.per_entity, benchmark.seed)
    entities, alike = knowledge_probe.by_domain(pool), None
    if options.knowledge is not None:
        cards = load_cards(options.knowledge)
        alike = {
            item.entity: knowledge_probe.nearest_cards(item.entity, entities[item.domain], cards) for item in chosen
        }
    checkpoint = generate_missing.open_for(benchmark)
    root = file.parent
    if options.by == "choices":
        chosen = cut_out(chosen, root, benchmark.out / "images")
        questions, root = knowledge_probe.choices(chosen, entities, benchmark.seed, alike=alike), benchmark.out
    else:
        budget = checkpoint.convention.budget
        questions = knowledge_probe.marks(chosen, entities, benchmark.seed, checkpoint.family, budget, alike=alike)
    source = {
        "file": str(file),
        "hash": provenance.file_hash(file),
        "count": len(rows),
        "by": options.by,
        "per_entity": options.per_entity,
        "knowledge": provenance.file_hash(options.knowledge) if options.knowledge else None,
        "seed": benchmark.seed,
    }
    info = generate_missing.settings(benchmark, checkpoint, "mastery", VERSION, source)
    style = None if options.by == "choices" else prompts.PLAIN
    generate_missing.ask(benchmark, checkpoint, questions, root, info, style=style)


def cut_out(chosen: list[Item], root: Path, folder: Path) -> list[Item]:
    """Give each thing that shares its image an image of its own: its box with a small margin."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for item in chosen:
        x, y = MARGIN * item.box.width, MARGIN * item.box.height
        window = Box(
            max(0.0, item.box.x1 - x), max(0.0, item.box.y1 - y), min(1.0, item.box.x2 + x), min(1.0, item.box.y2 + y)
        )
        left, top, right, bottom = (round(number) for number in window.to_xyxy(item.size))
        size = Frame(max(1, right - left), max(1, bottom - top))
        path = folder / f"{normalize_name(item.id).replace(' ', '-')}.png"
        if not path.is_file():
            image = open_image(root / item.image)
            save_image(image.crop((left, top, left + int(size.width), top + int(size.height))), path)
        found.append(replace(item, image=f"images/{path.name}", size=size, box=Box(0, 0, 1, 1)))
    return found


def show(out: str | Path) -> None:
    """Grade the saved answers, write `mastery.json` and print the levels."""
    info, questions, answers = runs.read_whole(out)
    grade = knowledge_probe.grade_choices if info["samples"]["by"] == "choices" else knowledge_probe.grade_marks
    graded = grade(questions, answers)
    table = MasteryTable.counted(graded, str(out))
    path = table.save(Path(out) / "mastery.json", {k: info[k] for k in ("model", "weights", "samples", "commit")})
    right = sum(value for _, value in graded) / len(graded)
    print(f"\n{info['model']}: {len(graded)} questions about {len(table)} entities, {tables.percent(right)} % right")
    print(f"(chance: {tables.percent(knowledge_probe.CHANCE)} %; asked by {info['samples']['by']})\n")
    rows = [("level", "entities", "%")]
    counts = [entry.level for entry in table.values()]
    rows += [(name, str(counts.count(name)), tables.percent(share)) for name, share in table.shares().items()]
    print(tables.markdown(rows))
    print(f"\nwritten: {path}")


if __name__ == "__main__":
    run_program(main)

"""What a model knows of each entity, measured: a mastery file for rewards, weights on advantages, and quadrants.

    python eval/mastery.py --samples FILE --by marks --out DIR              # the pocket base: it knows no letters
    python eval/mastery.py --model DIR --samples FILE --out DIR             # four names to choose from, cut-out things
    python eval/mastery.py --rescore --out DIR                              # from the saved answers, without the model

The story: every thing of the samples' images can be asked about -> at most `--per-entity` of each entity, by seed ->
its name among three look-alikes' (those beside it in its image first) -> the model answers (written down as it comes;
a stopped run goes on) -> `mastery.json`: right and asked for each entity, with KARL's five levels.

KARL estimates once, on the untrained base (up to 50 images an entity); `advantage.mastery.refresh` in a recipe asks
the same questions anew while training. See docs/mastery.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mllm.boxes import Box, Frame
from mllm.cli.programs import run_main
from mllm.errors import FieldmarkError
from mllm.evaluation import generate_missing, knowledge_probe, runs
from mllm.evaluation.knowledge_probe import Item
from mllm.io import provenance, tables
from mllm.io.images import open_image, save_image
from mllm.knowledge.cards import load_cards, normalize_name
from mllm.knowledge.mastery import MasteryTable
from mllm.prompting import styles
from mllm.records import Sample, load_samples

VERSION = "1"
MARGIN = 0.05
"""Share of a box's sides that is left around a thing that is cut out."""


def main(argv: list[str] | None = None) -> None:
    options = parser().parse_args(argv)
    if not options.rescore:
        answer(options)
    show(options.out)


def answer(options: argparse.Namespace) -> None:
    """Write the questions and ask them."""
    if not options.samples:
        raise FieldmarkError("name what the model shall be asked about: --samples FILE (or --rescore --out DIR)")
    file = Path(options.samples)
    rows = load_samples(file)[: options.limit]
    pool = knowledge_probe.items(rows)
    chosen = knowledge_probe.draw(pool, options.per_entity, options.seed)
    entities, alike = knowledge_probe.by_domain(pool), None
    if options.knowledge:
        cards = load_cards(Path(options.knowledge))
        alike = {
            item.entity: knowledge_probe.nearest_cards(item.entity, entities[item.domain], cards) for item in chosen
        }
    checkpoint = generate_missing.open_for(options)
    root, out = file.parent, Path(options.out)
    if options.by == "choices":
        chosen = cut_out(chosen, root, out / "images")
        asked, root = knowledge_probe.choices(chosen, entities, options.seed, alike=alike), out
    else:
        budget = checkpoint.convention.budget
        asked = knowledge_probe.marks(chosen, entities, options.seed, checkpoint.family, budget, alike=alike)
    source = {
        "file": str(file),
        "hash": provenance.file_hash(file),
        "count": len(rows),
        "by": options.by,
        "per_entity": options.per_entity,
        "knowledge": provenance.file_hash(options.knowledge) if options.knowledge else None,
        "seed": options.seed,
    }
    info = generate_missing.settings(options, checkpoint, "mastery", VERSION, source)
    style = None if options.by == "choices" else styles.PLAIN
    generate_missing.ask(options, checkpoint, asked, root, info, style=style)


def cut_out(chosen: list[Item], root: Path, folder: Path) -> list[Item]:
    """Give each thing an image of its own: its box with a small margin, where others share the image."""
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
            picture = open_image(root / item.image)
            save_image(picture.crop((left, top, left + int(size.width), top + int(size.height))), path)
        found.append(knowledge_probe.alone(item, f"images/{path.name}", size))
    return found


def show(out: str | Path) -> None:
    """Grade the saved answers, write `mastery.json` and print the levels."""
    info, asked, said = runs.read_whole(out)
    graded = grade(info, asked, said)
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


def grade(info: dict[str, Any], asked: list[Sample], said: dict[str, Any]) -> list[tuple[str, float]]:
    """Judge the answers in the way in which they were asked for."""
    if info["samples"]["by"] == "choices":
        return knowledge_probe.grade_choices(asked, said)
    return knowledge_probe.grade_marks(asked, said)


def parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    built = argparse.ArgumentParser(prog="mastery", description=__doc__, formatter_class=plain)
    for flag, about in generate_missing.FLAGS.items():
        built.add_argument(flag, **about)
    built.add_argument("--samples", help="samples file (jsonl) whose things are asked about")
    built.add_argument("--out", default="runs/pocket/mastery", help="folder of answers and mastery.json")
    built.add_argument(
        "--by", choices=("choices", "marks"), default="choices", help="marks: for models without letters"
    )
    built.add_argument(
        "--per-entity", type=int, default=8, help="at most so many questions about one entity (KARL: 50)"
    )
    built.add_argument("--knowledge", help="card file: wrong names are drawn among those with the most similar marks")
    built.add_argument("--max-new-tokens", type=int, default=32)
    return built


if __name__ == "__main__":
    run_main(main)

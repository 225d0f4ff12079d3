"""Say what is on each image of a folder: a table with name, genus, confidence, marks and box.

    fieldmark identify PHOTOS --cards cards.yaml --model runs/birds/naming/best --out runs/identified

The answers are saved as they come, and the same command continues a stopped run, also with images added to the folder.
An image that cannot be opened is listed in the table with the reason, and the exit code is 1. The columns of names.csv:

    name        the card's name that the answer gives, by its name or a synonym; without cards the answer itself
    genus       that of the card, or the one that the answer names alone
    confidence  exp of the mean log-probability of the answer's tokens (mllm/inference/confidence.py); not calibrated
    marks       marks of the cards that the thought says of the image, in sentences that name no kind
    box         where the model finds the thing it named, in pixels: x1 y1 x2 y2
    problem     why no name is given
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from mllm.cli.options import AnswerOptions, DomainOptions
from mllm.errors import ExitCode, FieldmarkError

if TYPE_CHECKING:
    from mllm.knowledge.cards import Cards
    from mllm.models.checkpoint import Checkpoint, Loaded
    from mllm.records import Completion, Sample

TABLE = "names.csv"
COLUMNS: tuple[str, ...] = ("image", "name", "genus", "confidence", "marks", "box", "problem")
VERSION = "1"
Row = dict[str, str]


@dataclass(frozen=True)
class Options:
    folder: Positional[Path]
    """folder of images, with those in folders below it"""
    cards: tuple[Path, ...] = ()
    """file or folder of knowledge cards: the names to tell apart (may be repeated)"""
    domain: DomainOptions = DomainOptions()
    closed: bool = False
    """list the cards' names in the question, with letters (26 at most)"""
    boxes: bool = True
    """do not ask where the thing is"""
    answers: AnswerOptions = AnswerOptions(out=Path("runs/identify"), max_new_tokens=512)


def command(options: Options) -> int:
    from mllm.evaluation import generate_missing
    from mllm.knowledge.cards import Cards, load_cards
    from mllm.models.checkpoint import LoadOptions, load

    answers, out = options.answers, options.answers.out
    if answers.engine != "transformers":
        raise FieldmarkError("the confidence is read from the weights: leave out --engine")
    cards = load_cards(*options.cards) if options.cards else Cards({})
    questions, broken = ask_about(options, cards)
    checkpoint = generate_missing.open_for(answers)
    loaded = load(checkpoint, LoadOptions(answers.dtype, answers.device, quantize=answers.quantize))
    rows = {name: dict.fromkeys(COLUMNS, "") | {"image": name, "problem": why} for name, why in broken.items()}
    for sample, done in completions(options, checkpoint, loaded, questions, out):
        rows[sample.id] = named_row(sample, done, cards, sure(options, loaded, sample, done))
    if options.boxes:
        found = [places(sample, rows[sample.id]["name"]) for sample in questions if rows[sample.id]["name"]]
        for sample, done in completions(options, checkpoint, loaded, found, out / "boxes"):
            if box := done.answer.box:
                rows[sample.id]["box"] = " ".join(f"{side:.0f}" for side in box.to_xyxy(sample.size))
    write(out / TABLE, [rows[name] for name in sorted(rows)])
    count = sum(bool(row["name"]) for row in rows.values())
    print(f"{out / TABLE}: {count} of {len(rows)} images named")
    for name, why in broken.items():
        print(f"not opened: {why or name}")
    return ExitCode.FAILED if broken else ExitCode.DONE


def ask_about(options: Options, cards: Cards) -> tuple[list[Sample], dict[str, str]]:
    """Return a question for each image, and the images that cannot be opened with the reason."""
    from mllm.boxes import Frame
    from mllm.data.source_files import images_below
    from mllm.io.images import open_image
    from mllm.knowledge import domains
    from mllm.prompting import questions
    from mllm.records import Sample

    if not options.folder.is_dir():
        raise FieldmarkError(f"{options.folder}: no such folder of images")
    stated = {cards.card(name).domain for name in cards} - {""}
    domain = options.domain.name or (stated.pop() if len(stated) == 1 else None)
    if domain is None:
        raise FieldmarkError("say what the images show: --domain bird (or a `domain` in the cards)")
    listed = tuple(cards) if options.closed else ()
    if options.closed and not listed:
        raise FieldmarkError("--closed lists the names of cards: give them with --cards")
    question = questions.naming(domains.load(domain).noun, names=listed)
    asked, broken = [], {}
    for name, path in images_below(options.folder, "**/*"):
        try:
            size = Frame(*open_image(path).size)
        except FieldmarkError as error:
            broken[name] = str(error)
            continue
        asked.append(Sample(name, "name", name, size, domain, "", question, (), split="test", options=listed))
    if not asked:
        why = next(iter(broken.values()), "it is empty")
        raise FieldmarkError(f"{options.folder}: no image that can be opened; {why}")
    return asked[: options.answers.limit], broken


def places(sample: Sample, name: str) -> Sample:
    """Return the question where the named thing is."""
    from mllm.knowledge import domains

    return replace(sample, task="ground", entity=name, question=domains.load(sample.domain).question(name), options=())


def completions(
    options: Options, checkpoint: Checkpoint, loaded: Loaded, questions: Sequence[Sample], out: Path
) -> list[tuple[Sample, Completion]]:
    """Ask what has no answer in a folder yet; return each question with its answer."""
    from mllm.evaluation import generate_missing, runs

    if not questions:
        return []
    about = {"folder": str(options.folder), "asked": questions[0].task, "closed": options.closed}
    if options.closed:
        about["options"] = list(questions[0].options)
    answers = replace(options.answers, out=out)
    info = generate_missing.settings(answers, checkpoint, "identify", VERSION, about)
    generate_missing.ask(answers, checkpoint, questions, options.folder, info, loaded=loaded)
    done = runs.read_whole(out)[2]
    return [(sample, done[sample.id]) for sample in questions]


def sure(options: Options, loaded: Loaded, sample: Sample, done: Completion) -> str:
    """Return the confidence as it stands in the table."""
    from mllm.inference import confidence
    from mllm.io.images import open_image

    value = confidence.of_answer(loaded, sample, open_image(options.folder / sample.image), done, options.answers.style)
    return "" if value is None else f"{value:.4f}"


def named_row(sample: Sample, done: Completion, cards: Cards, confidence: str) -> Row:
    """Return the row of one answer, without the box."""
    from mllm.io import words
    from mllm.prompting.questions import lettered
    from mllm.prompting.tasks.name import mentions, spellings
    from mllm.prompting.tasks.quiz import read_choice

    row: Row = dict.fromkeys(COLUMNS, "") | {"image": sample.id, "confidence": confidence}
    if done.answer.problem is not None:
        return row | {"problem": done.answer.problem}
    text, known = (done.answer.answer or "").strip(), spellings({name: cards.card(name).synonyms for name in cards})
    found = {name for name, _, _ in mentions(text, known)}
    if lettered(sample.question) and (choice := read_choice(text, sample.options)) is not None:
        found = {sample.options[choice]}
    genera = spellings({genus: () for name in found or cards if (genus := cards.card(name).genus)})
    genus = {name for name, _, _ in mentions(text, genera)} if not found else set(genera.values())
    row |= {"genus": genus.pop() if len(genus) == 1 else ""}
    row |= {"marks": seen_marks(done.answer.thought or "", known, cards)}
    if not cards:
        fault = words.fault(text)  # it will be asked for
        return row | ({"problem": fault} if fault else {"name": " ".join(text.split())})
    if len(found) == 1:
        return row | {"name": found.pop()}
    return row | {"problem": f"{'several names' if found else 'no name of the cards'}: {text!r:.100}"}


def seen_marks(thought: str, known: Mapping[str, str], cards: Cards) -> str:
    """Return the marks of any card that a thought says of the image: in sentences that give no name."""
    from mllm.prompting.tasks.name import mentions, spellings

    marks = spellings({mark: () for name in cards for mark in cards[name]})
    sentences = [one for one in re.split(r"(?<=[.!?])\s+", thought) if not any(mentions(one, known))]
    return "; ".join(dict.fromkeys(mark for one in sentences for mark, _, _ in mentions(one, marks)))


def write(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the table, atomically."""
    from mllm.io.files import atomic_write

    with atomic_write(file) as out:
        table = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)

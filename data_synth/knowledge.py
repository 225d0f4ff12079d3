"""Make knowledge cards: the marks of each entity, its look-alikes, and how to tell them apart.

    python data_synth/knowledge.py                       # the pocket world, from its own facts
    python data_synth/knowledge.py --source oxford_pets --input pets --given descriptors_pets.json --out runs/pets/cards
    python data_synth/knowledge.py --given marks.csv --domain bird --teacher openai --out runs/birds/knowledge

Stages; each writes a file and is skipped when it exists:
    1 photos.jsonl     with --source: the entities that need cards, and images to look at
    2 marks.jsonl      a card for each entity: from given files or tables, and from a teacher that knows;
      not_visible.csv  of these, the marks that no photo can show (songs, smells, tempers ...), which are dropped
    3 checked.jsonl    with --eyes: each mark is looked for in images; not seen in most of them, it is dropped
    4 pairs.jsonl      which entities look alike (by cards, by photos), and the marks that tell them apart
    5 cards/DOMAIN.yaml    everything, sorted, one mark per line, for people to read and edit
    6 manifest.json
`data_synth/grounding.py --knowledge runs/.../cards/DOMAIN.yaml` reads the cards. A stopped run resumes where it was;
`accelerate launch` starts several processes.
"""

from __future__ import annotations

if __name__ == "__main__":
    from mllm import ctrl_c

    ctrl_c.end_at_once()  # while the imports below run

import csv
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console

from mllm.cli.options import DomainOptions, FolderOptions, TeacherOptions, named_columns
from mllm.cli.programs import Range, parse, run_program
from mllm.data import descriptors, manifest, sources
from mllm.distributed import World
from mllm.errors import FieldmarkError
from mllm.io.files import atomic_write
from mllm.io.jsonl import read_jsonl, write_jsonl
from mllm.knowledge import card_files, confusables, domains, visible
from mllm.knowledge.card_files import Card, Mark
from mllm.knowledge.cards import Cards, one_spelling, part_of
from mllm.knowledge.confusables import ConfusablePair
from mllm.records import Entity, Photo
from mllm.synthesis import card_making, teachers
from mllm.synthesis.capabilities import Knows, Sees, need
from mllm.synthesis.run import SynthesisRun

echo = partial(Console(stderr=True).print, highlight=False, soft_wrap=True, markup=False)
NOT_VISIBLE = "not_visible.csv"
HEADING = """Knowledge cards of domain {domain}, made by data_synth/knowledge.py; change them as you like.
`verified: true` was seen in most of the images looked at, `false` was not and is used nowhere,
`unverified` no one has checked. `unlike` holds pairs: [its own mark, the other's mark]."""


@dataclass(frozen=True)
class KnowingTeacherOptions(TeacherOptions):
    """The teacher that knows entities."""

    teacher: str | None = None
    """teacher that knows marks and differences; default: none, or pocket for the pocket world"""


@dataclass(frozen=True)
class KnowledgeOptions:
    """What the cards are made from."""

    source: str | None = None
    """where photos come from: pocket, csv, coco, yolo, ... (docs/grounding_data.md)"""
    input: str | None = None
    """folder or file that the source reads"""
    domain: DomainOptions = DomainOptions()
    column: tuple[str, ...] = ()
    """OURS=THEIRS: another name of a column, as entity=scientificName (may be repeated)"""
    given: tuple[str, ...] = ()
    """file of marks: json, yaml or csv (may be repeated)"""
    teacher: KnowingTeacherOptions = KnowingTeacherOptions()
    eyes: str | None = None
    """teacher that looks for the marks in images; default: none, and marks stay unverified"""
    look: Annotated[int, Range(1)] = 5
    """maximum number of images of each entity to look at"""
    alike: Annotated[int, Range(1)] = 3
    """number of look-alikes named for each entity"""
    embeddings: str | None = None
    """vectors of the photos (jsonl: id, vector); default: perceptual hash"""
    photos_per_entity: Annotated[int, Range(2)] = 6
    """photos drawn of each species (pocket)"""
    seed: int = 0
    """random seed of the choice of images to look at"""
    folder: FolderOptions = FolderOptions()

    @property
    def out(self) -> Path:
        """Output folder."""
        return self.folder.out or Path("runs") / (self.source or "given") / "knowledge"


Run = SynthesisRun[KnowledgeOptions]


def with_defaults(options: KnowledgeOptions) -> KnowledgeOptions:
    """Return the options with the pocket world, which knows and sees, where no entities are given."""
    if options.source is not None or options.given:
        return options
    teacher = replace(options.teacher, teacher=options.teacher.teacher or "pocket")
    return replace(options, source="pocket", teacher=teacher, eyes=options.eyes or "pocket")


def make_cards(options: KnowledgeOptions) -> dict[str, Any]:
    """Run all stages, or those that are missing, and return the manifest."""
    run = SynthesisRun(options, options.out, options.folder.workers, World.current())
    files = (options.input, options.domain.domain, options.embeddings, *options.given)
    recorded = teachers.recorded(options, options.teacher.teacher, options.teacher.settings(), files)
    return run.complete(lambda: run_stages(run), recorded, overwrite=options.folder.overwrite)


def run_stages(run: Run) -> None:
    """Run stage after stage, on every process."""
    given = [Cards(descriptors.load(file), file) for file in run.options.given]
    photos = photos_stage(run)
    entities = entities_to_describe(run.options, photos, given)
    with open_teachers(run.options) as (knows, sees):
        cards, dropped = visible_stage(run, marks_stage(run, entities, given, knows))
        if sees is not None:
            cards = check_stage(run, cards, photos, sees)
        pairs = pairs_stage(run, cards, photos, knows)
    if run.world.is_main:
        by_domain: dict[str, list[Card]] = defaultdict(list)
        for card in card_making.with_pairs(cards, pairs):
            by_domain[card.domain].append(card)
        for domain, members in by_domain.items():
            card_files.write(
                run.out / "cards" / f"{domain.partition('/')[0]}.yaml", members, HEADING.format(domain=domain)
            )
        facts = card_making.count_facts(cards, pairs)
        manifest.finish(run.out, {**facts, "marks not visible": dropped}, ["cards"])


@contextmanager
def open_teachers(options: KnowledgeOptions) -> Iterator[tuple[Knows | None, Sees | None]]:
    """Yield who knows and who looks; however the block ends, report their cost and every request that failed."""
    name = options.teacher.teacher
    teacher = teachers.load(name, **options.teacher.settings()) if name else None
    # --teacher-config belongs to --teacher; another teacher is configured by its environment variables.
    looking = teacher if options.eyes in (None, name) else teachers.load(options.eyes)
    with teachers.closing(teacher, looking, report=echo):
        knows = None if name is None else need(teacher, Knows, name)
        sees = None if options.eyes is None else need(looking, Sees, options.eyes)
        yield knows, sees


def photos_stage(run: Run) -> list[Photo]:
    """Stage 1: list the photos, if there is a source; only image headers are read."""
    options, file = run.options, run.out / "photos.jsonl"
    if options.source is None:
        return []
    request = sources.PhotoRequest(
        input=Path(options.input) if options.input else None,
        out=run.out,
        seed=options.seed,
        domain=options.domain.name,
        photos_per_entity=options.photos_per_entity,
        boxes_later=True,
        clip_boxes=True,
        columns=named_columns(options.column),
    )
    source = options.source
    run.list_rows(file, sources.photos(source, request), "photos")
    return list(read_jsonl(file, Photo, unique="id"))


def entities_to_describe(options: KnowledgeOptions, photos: Sequence[Photo], given: Sequence[Cards]) -> list[Entity]:
    """Return the entities that need a card: those on the photos, otherwise those of the given files."""
    if photos:
        found = list(dict.fromkeys(kind for photo in photos for kind in photo.kinds))
    else:
        found, usual = [], options.domain.name or ""
        for place, cards in enumerate(given):  # the first file that names an entity spells it
            for card in (cards.card(name) for name in cards):
                domain = card.domain or usual
                known = [other.card(card.entity) for other in given[:place] if card.entity in other]
                if not any((one.domain or usual) == domain for one in known):
                    found.append((domain, card.entity))
    for domain, name in found:
        if not domain:
            raise FieldmarkError(f"no domain is given for {name!r}: name one with --domain (e.g. bird)")
        domains.check(domain)
    if not found:
        raise FieldmarkError("no entity is named: give photos with --source, or marks with --given FILE")
    for name, count in Counter(name for _, name in found).items():
        if count > 1:
            raise FieldmarkError(f"{name!r} is an entity of two domains; give them different names")
    return sorted(found)


def marks_stage(run: Run, entities: Sequence[Entity], given: Sequence[Cards], teacher: Knows | None) -> list[Card]:
    """Stage 2: one card for each entity, from the files and the teacher."""
    for cards in given:  # "Siamese" and "Siamese cat" must not be two entities
        one_spelling((name for _, name in entities), cards.origin, same=cards.same)

    def make(entity: Entity) -> Card:
        domain, name = entity
        found = [cards.card(name) for cards in given if name in cards]
        if teacher is not None and (marks := teacher.marks(name, domain)):
            origin = str(run.options.teacher.teacher)
            found.append(Card(name, domain, tuple(Mark(one, part_of(one), origin) for one in marks), origin))
        return descriptors.merge(name, domain, found)

    file = run.out / "marks.jsonl"
    return run.map_rows(file, Card, entities, make, title="marks", key="entity", name=itemgetter(1))


def visible_stage(run: Run, cards: Sequence[Card]) -> tuple[list[Card], int]:
    """Drop, list and count the marks that no photo can show; takes seconds, so a resumed run repeats it."""
    kept, dropped = visible.without_unseen(cards)
    if run.world.is_main:
        with atomic_write(run.out / NOT_VISIBLE) as out:
            table = csv.writer(out, lineterminator="\n")
            table.writerow(("entity", "mark", "reason", "source"))
            table.writerows((card.entity, mark.text, reason, mark.source) for card, mark, reason in dropped)
    check_known(run, [(card.domain, card.entity) for card in kept if not card.marks])
    return kept, len(dropped)


def check_known(run: Run, missing: Sequence[Entity]) -> None:
    """Refuse entities without a visible mark, all at once, and write files to describe them in, yaml and csv."""
    if not missing:
        return
    stems = (run.out.with_name(f"{run.out.name}_missing{number}") for number in ("", *range(2, 1000)))
    both = ([stem.with_name(f"{stem.name}{ending}") for ending in (".yaml", ".csv")] for stem in stems)
    files = next(files for files in both if not any(file.exists() for file in files))  # marks may be in those
    run.world.barrier()
    if run.world.is_main:
        for file in files:
            card_files.write_template(file, missing)
    raise FieldmarkError(
        f"nothing that a photo can show is known of {len(missing)} entities: "
        f"{', '.join(name for _, name in missing)}. Write marks into {files[0]} (or {files[1].name}) and add "
        f"--given {files[0]} --overwrite, or name a --teacher that knows them"
    )


def check_stage(run: Run, cards: Sequence[Card], photos: Sequence[Photo], teacher: Sees) -> list[Card]:
    """Stage 3: look for each mark in images."""
    if not photos:
        raise FieldmarkError("--eyes needs images to look at: name them with --source and --input")
    by_entity: dict[Entity, list[Photo]] = defaultdict(list)
    for photo in photos:
        for kind in dict.fromkeys(thing.kind for thing in photo.things):
            by_entity[kind].append(photo)
    options = run.options

    def make(card: Card) -> Card:
        shown = by_entity.get((card.domain, card.entity), [])
        return card_making.check_marks(card, shown, run.out, teacher, most=options.look, seed=options.seed)

    file = run.out / "checked.jsonl"
    return run.map_rows(file, Card, cards, make, title="looked at", key="entity", name=attrgetter("entity"))


def pairs_stage(
    run: Run, cards: Sequence[Card], photos: Sequence[Photo], teacher: Knows | None
) -> list[ConfusablePair]:
    """Stage 4: look-alikes; the marks that tell them apart come from the teacher, otherwise from the cards."""
    by_name = {(card.domain, card.entity): card for card in cards}
    file, nearest, options = run.out / "pairs.jsonl", run.out / "nearest.jsonl", run.options
    if run.world.is_main and not file.exists() and not nearest.exists():
        vector = confusables.by_file(Path(options.embeddings)) if options.embeddings else confusables.by_hash(run.out)
        write_jsonl(nearest, confusables.pairs(cards, confusables.looks(photos, vector), options.alike))
    run.world.barrier()

    def make(pair: ConfusablePair) -> ConfusablePair:
        card, other = by_name[pair.domain, pair.entity], by_name[pair.domain, pair.other]
        return card_making.with_differences(pair, card, other, teacher)

    return run.map_rows(
        file, ConfusablePair, list(read_jsonl(nearest, ConfusablePair, unique="id")), make, title="pairs"
    )


def main(argv: list[str] | None = None) -> None:
    """Run the program."""
    options = with_defaults(parse(KnowledgeOptions, argv))
    made = make_cards(options)
    marks = ", ".join(f"{count} marks {name}" for name, count in made["marks"].items())
    if count := made["marks not visible"]:
        echo(f"{options.out / NOT_VISIBLE}: {count} marks that no photo can show were dropped")
    echo(f"{options.out}/cards: {sum(made['cards'].values())} cards, {marks}, {made['pairs']} pairs")


if __name__ == "__main__":
    run_program(main)

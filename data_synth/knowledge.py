"""Make knowledge cards: what each thing is known by, what it is easily taken for, and what tells the two apart.

    python data_synth/knowledge.py                       # the pocket world, told and looked at by its oracle
    python data_synth/knowledge.py --source oxford_pets --input pets --given descriptors_pets.json --out runs/pets/cards
    python data_synth/knowledge.py --given marks.csv --domain bird --teacher openai --out runs/birds/knowledge

The story, stage by stage; each leaves a file and is passed over when that file is there:
    1 photos.jsonl     with --source: whose cards are wanted, and images to look at
    2 marks.jsonl      a card for each entity: from given files, from a table, from a teacher that knows
    3 checked.jsonl    with --eyes: each mark looked for in images; not seen in most of them, it is dropped
    4 pairs.jsonl      what is easily taken for what (cards alike, photos alike), and the marks that tell them apart
    5 cards/DOMAIN.yaml    all of it, sorted, one mark a line, for people to read and to change
    6 manifest.json
`data_synth/grounding.py --knowledge runs/.../cards/DOMAIN.yaml` reads what comes out. Stopping and many processes: as
there (`accelerate launch`).
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mllm.cli.programs import run_program
from mllm.data import descriptors, manifest, sources
from mllm.distributed import World
from mllm.errors import FieldmarkError
from mllm.io.progress import progress
from mllm.knowledge import card_files, confusables, domains
from mllm.knowledge.card_files import Card, Mark
from mllm.knowledge.cards import normalize_name
from mllm.knowledge.confusables import ConfusablePair
from mllm.knowledge.parts import part_of
from mllm.records import Photo, read_jsonl, write_jsonl
from mllm.synthesis import teachers
from mllm.synthesis.capabilities import Knows, Look, Sees, need
from mllm.synthesis.shards import Shards, once
from mllm.synthesis.stages import Stage, in_order

console = Console(stderr=True)
Entity = tuple[str, str]
"""(domain, name)"""
HEADING = """Knowledge cards of domain {domain}, made by data_synth/knowledge.py; change them as you like.
`verified: true` was seen in most of the images looked at, `false` was not and is used nowhere,
`unverified` nobody has looked for. `unlike` holds pairs: [its own mark, the other's mark]."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the cards depend on."""

    source: str | None
    input: str | None
    domain: str | None
    given: tuple[str, ...]
    teacher: str | None
    eyes: str | None
    look: int
    alike: int
    embeddings: str | None
    photos_per_entity: int
    seed: int
    teacher_config: Mapping[str, Any] = field(default_factory=dict)


def make_cards(settings: Settings, out: Path, workers: int, overwrite: bool = False) -> dict[str, Any]:
    """Run the whole story and return the manifest."""

    def story(world: World) -> None:
        tell_story(settings, out, workers, world)

    files = (settings.input, settings.embeddings, *settings.given)
    if settings.teacher is None:
        said = {**asdict(settings), "digests": manifest.digests(files)}
    else:
        said = teachers.recorded(settings, files)
    return once(out, said, story, overwrite=overwrite)


def tell_story(settings: Settings, out: Path, workers: int, world: World) -> None:
    """Run stage after stage; every process of the world comes through here."""
    told = [descriptors.load(file) for file in settings.given]
    photos = photos_stage(settings, out, world)
    entities = wanted(settings, photos, told)
    with asked(settings) as (knower, eyes):
        cards = marks_stage(settings, entities, told, knower, out, workers, world)
        cards = check_stage(settings, cards, photos, eyes, out, workers, world)
        pairs = pairs_stage(settings, cards, photos, knower, out, workers, world)
    if world.is_main:
        by_domain: dict[str, list[Card]] = defaultdict(list)
        for card in with_pairs(cards, pairs):
            by_domain[card.domain].append(card)
        for domain, members in by_domain.items():
            card_files.write(out / "cards" / f"{domain}.yaml", members, HEADING.format(domain=domain))
        manifest.finish(out, facts(cards, pairs), ["cards"])
    world.barrier()


@contextmanager
def asked(settings: Settings) -> Iterator[tuple[Knows | None, Sees | None]]:
    """Yield who knows and who looks; however the block ends, tell what they cost and every request that failed."""
    teacher = teachers.load(settings.teacher, **settings.teacher_config) if settings.teacher else None
    same = settings.eyes == settings.teacher
    looker = teacher if same or settings.eyes is None else teachers.load(settings.eyes)  # set up by its environment
    with teachers.closing(teacher, looker, tell=lambda text: console.print(text, highlight=False)):
        knows = None if teacher is None else need(teacher, Knows, str(settings.teacher))
        sees = None if settings.eyes is None else need(looker, Sees, settings.eyes)
        yield knows, sees


def photos_stage(settings: Settings, out: Path, world: World) -> list[Photo]:
    """Stage 1: list the photos, if there are any; headers only are read."""
    if settings.source is None:
        return []
    if world.is_main and not (stage := Stage(out / "photos.jsonl", Photo)).finished:
        request = sources.Request(
            Path(settings.input) if settings.input else None, settings.domain, out, settings.seed,
            settings.photos_per_entity, boxes_later=True, clip_boxes=True,
        )  # fmt: skip
        with progress("photos", None, 0) as tick:
            for number, photo in enumerate(sources.photos(settings.source, request)):
                if number >= stage.done:
                    stage.add(photo)
                tick()
        stage.close()
    world.barrier()
    return list(read_jsonl(out / "photos.jsonl", Photo, unique="id"))


def wanted(settings: Settings, photos: Sequence[Photo], told: Sequence[dict[str, Card]]) -> list[Entity]:
    """Return whose cards are to be made: those on the photos, else those of the given files."""
    if photos:
        found = dict.fromkeys((photo.domain, photo.entity) for photo in photos)
    else:
        named = [(card.domain or settings.domain or "", name) for cards in told for name, card in cards.items()]
        found = {(domain, normalize_name(name)): (domain, name) for domain, name in reversed(named)}
        found = dict.fromkeys(found.values())
    for domain, name in found:
        if not domain:
            raise FieldmarkError(f"no domain is given for {name!r}: name one with --domain (e.g. bird)")
        domains.load(domain)
    if not found:
        raise FieldmarkError("no entity is named: give photos with --source, or marks with --given FILE")
    return sorted(found)


def marks_stage(
    settings: Settings,
    entities: Sequence[Entity],
    told: Sequence[dict[str, Card]],
    teacher: Knows | None,
    out: Path,
    workers: int,
    world: World,
) -> list[Card]:
    """Stage 2: what the files and the teacher say of each entity, in one card."""
    given = [{normalize_name(name): card for name, card in cards.items()} for cards in told]

    def make(key: Entity) -> Card:
        domain, name = key
        said = [cards[normalize_name(name)] for cards in given if normalize_name(name) in cards]
        if teacher is not None and (marks := teacher.marks(name, domain)):
            who = str(settings.teacher)
            said.append(Card(name, domain, tuple(Mark(one, part_of(one), who) for one in marks), who))
        if not said:
            raise FieldmarkError(
                f"nothing is known of {name!r}: add it to a --given file, or name a --teacher that knows it"
            )
        return descriptors.merge(name, domain, said)

    return stage_of(
        out / "marks.jsonl", "marks", entities, make, Card, workers, world, key="entity", name=lambda e: e[1]
    )


def check_stage(
    settings: Settings,
    cards: Sequence[Card],
    photos: Sequence[Photo],
    teacher: Sees | None,
    out: Path,
    workers: int,
    world: World,
) -> list[Card]:
    """Stage 3: look for each mark in images, where a teacher that can see is named."""
    if teacher is None:
        return list(cards)
    if not photos:
        raise FieldmarkError("--eyes needs images to look at: name them with --source and --input")
    shown: dict[Entity, list[Photo]] = defaultdict(list)
    for photo in photos:
        shown[photo.domain, photo.entity].append(photo)

    def make(card: Card) -> Card:
        there = shown[card.domain, card.entity]
        rng = random.Random(f"{settings.seed}/look/{card.domain}/{card.entity}")
        texts = [mark.text for mark in card.marks]
        answers = []
        for photo in rng.sample(there, min(settings.look, len(there))):
            box = photo.boxes[0] if photo.boxes else None
            answers.append(teacher.sees(Look(out / photo.image, photo.domain, box, photo.marks), texts))
        rows = list(zip(*answers, strict=True)) or [()] * len(texts)
        return replace(card, marks=tuple(judged(mark, row) for mark, row in zip(card.marks, rows, strict=True)))

    return stage_of(out / "checked.jsonl", "looked at", cards, make, Card, workers, world, key="entity", name=_name_of)


def judged(mark: Mark, answers: Sequence[bool | None]) -> Mark:
    """Mark a mark as verified when most of the images that let one tell show it; unverified where none does."""
    told = [answer for answer in answers if answer is not None]
    if not told:
        return replace(mark, verified=None)
    return replace(mark, verified=2 * sum(told) > len(told), seen=sum(told), looked=len(told))


def pairs_stage(
    settings: Settings,
    cards: Sequence[Card],
    photos: Sequence[Photo],
    teacher: Knows | None,
    out: Path,
    workers: int,
    world: World,
) -> list[ConfusablePair]:
    """Stage 4: what is easily taken for what; the differential marks from the teacher, else read off the cards."""
    by_name = {(card.domain, card.entity): card for card in cards}
    file = out / "pairs.jsonl"
    if world.is_main and not file.exists() and not (out / "nearest.jsonl").exists():
        vector = confusables.by_file(Path(settings.embeddings)) if settings.embeddings else confusables.by_hash(out)
        write_jsonl(out / "nearest.jsonl", confusables.pairs(cards, confusables.looks(photos, vector), settings.alike))
    world.barrier()

    def make(pair: ConfusablePair) -> ConfusablePair:
        card, other = by_name[pair.domain, pair.entity], by_name[pair.domain, pair.other]
        if teacher is None:
            return replace(pair, differences=confusables.differences(card, other))
        told = teacher.differences(pair.entity, pair.other, pair.domain)
        dropped = {mark.text for one in (card, other) for mark in one.marks if mark.verified is False}
        return replace(pair, differences=tuple(two for two in told if two[0] and not dropped & set(two)))

    near = list(read_jsonl(out / "nearest.jsonl", ConfusablePair, unique="id"))
    return stage_of(file, "pairs", near, make, ConfusablePair, workers, world, key="id", name=lambda pair: pair.id)


def with_pairs(cards: Sequence[Card], pairs: Sequence[ConfusablePair]) -> list[Card]:
    """Write the pairs into both cards, each from its own side."""
    unlike: dict[Entity, dict[str, tuple[tuple[str, ...], ...]]] = defaultdict(dict)
    known = {(card.domain, card.entity): card for card in cards}
    for pair in pairs:
        turned = tuple((its, own) for own, its in pair.differences if its)
        if not turned:
            turned = confusables.differences(known[pair.domain, pair.other], known[pair.domain, pair.entity])
        unlike[pair.domain, pair.entity][pair.other] = pair.differences
        unlike[pair.domain, pair.other][pair.entity] = turned
    return [replace(card, unlike=unlike[card.domain, card.entity]) for card in cards]


def facts(cards: Sequence[Card], pairs: Sequence[ConfusablePair]) -> dict[str, Any]:
    """Count cards, marks by whether they were seen, and pairs."""
    names = {True: "verified", False: "dropped: not seen in most images", None: card_files.UNVERIFIED}
    return {
        "cards": dict(sorted(Counter(card.domain for card in cards).items())),
        "marks": dict(sorted(Counter(names[mark.verified] for card in cards for mark in card.marks).items())),
        "pairs": len(pairs),
        "pairs without a differential mark": sum(not pair.differences for pair in pairs),
    }


def stage_of(
    file: Path, what: str, items: Sequence[Any], make: Callable[[Any], Any], cls: type[Any], workers: int, world: World,
    *, key: str, name: Callable[[Any], str],
) -> list[Any]:  # fmt: skip
    """Make a row of each item, shared out over the processes, and return all rows in the items' order."""
    names = [name(item) for item in items]
    if len(set(names)) < len(names):
        twice = next(one for one, count in Counter(names).items() if count > 1)
        raise FieldmarkError(f"{twice!r} is an entity of two domains; give them different names")
    shards = Shards(file, world, key)
    if not shards.finished:
        mine = world.shard([number for number, one in enumerate(names) if one not in shards.done])
        with progress(what, len(mine), world=world) as tick:
            for row in in_order(lambda number: make(items[number]), mine, workers):
                shards.add(row)
                tick()
        place = {one: number for number, one in enumerate(names)}
        shards.close(place.__getitem__)
    return list(read_jsonl(file, cls, unique=key))


def _name_of(card: Card) -> str:
    return card.entity


def command(
    source: Annotated[str | None, typer.Option(help="where photos come from: " + ", ".join(sources.names()))] = None,
    input: Annotated[str | None, typer.Option(help="folder or file that the source reads")] = None,  # noqa: A002
    domain: Annotated[str | None, typer.Option(help="domain of all photos or given marks")] = None,
    given: Annotated[list[str] | None, typer.Option(help="file of marks: json, yaml or csv (may be repeated)")] = None,
    teacher: Annotated[str | None, typer.Option(help="who knows marks and differences")] = None,
    teacher_config: Annotated[Path | None, typer.Option(help="YAML file with the teacher's settings")] = None,
    teacher_option: Annotated[list[str] | None, typer.Option(help="key=value over it (may be repeated)")] = None,
    eyes: Annotated[str | None, typer.Option(help="who looks for the marks in images [nobody: unverified]")] = None,
    look: Annotated[int, typer.Option(min=1, help="images of each entity that are looked at, at most")] = 5,
    alike: Annotated[int, typer.Option(min=1, help="look-alikes named for each entity")] = 3,
    embeddings: Annotated[str | None, typer.Option(help="photo vectors (jsonl: id, vector) [perceptual hash]")] = None,
    photos_per_entity: Annotated[int, typer.Option(min=2, help="photos drawn of each species (pocket)")] = 6,
    seed: Annotated[int, typer.Option(help="which images are looked at")] = 0,
    out: Annotated[Path | None, typer.Option(help="folder of the cards [runs/SOURCE/knowledge]")] = None,
    workers: Annotated[int, typer.Option(min=1, help="threads")] = 2,
    overwrite: Annotated[bool, typer.Option(help="throw away what the folder holds")] = False,
) -> None:  # fmt: skip
    """Make knowledge cards."""
    if source is None and not given:
        source, teacher, eyes = "pocket", teacher or "pocket", eyes or "pocket"
    settings = Settings(
        source, input, domain, tuple(given or ()), teacher, eyes, look, alike, embeddings, photos_per_entity, seed,
        teachers.read_config(teacher_config, teacher_option or ()),
    )  # fmt: skip
    folder = out or Path("runs") / (source or "given") / "knowledge"
    made = make_cards(settings, folder, workers, overwrite)
    told = ", ".join(f"{count} marks {name}" for name, count in made["marks"].items())
    console.print(
        f"{folder}/cards: {sum(made['cards'].values())} cards, {told}, {made['pairs']} pairs", highlight=False
    )


def main(argv: list[str] | None = None) -> None:
    """Run the program."""
    run_program(command, argv)


if __name__ == "__main__":
    main()

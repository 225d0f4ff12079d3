"""Make grounding data: from labelled photos to questions with boxes and reasoning, in one command.

    python data_synth/grounding.py                       # the pocket world, into runs/pocket/data
    python data_synth/grounding.py --source csv --input photos.csv --domain bird --knowledge cards.yaml --out runs/birds
    accelerate launch data_synth/grounding.py ...        # many processes, many nodes: the same bytes

The story, stage by stage; each leaves a file and is passed over when that file is there:
    1 photos.jsonl      what the source yields, each photo looked at once and fingerprinted
    2 boxes.jsonl       with --boxes-from: photos without a box get one where two opinions agree
    3 split.jsonl       each photo's side, by entity and by image; look-alikes stay together, so nothing leaks
    4 knowledge.json    the marks of every entity
    5 images/, train.jsonl, validation.jsonl, test.jsonl   composites, questions, reasoning, all checked
    6 sheets/, README.md    pages of samples to look at, and the data card
    7 manifest.json     what was made, from what, on which terms, what was refused and why, and a hash of it all
A run that was stopped, however hard, goes on where it was and ends with the same bytes.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mllm.cli.programs import run_program
from mllm.data import dataset_card, label_checks, manifest, sources, splits
from mllm.distributed import World
from mllm.errors import FieldmarkError
from mllm.io.images import save_image
from mllm.io.progress import progress
from mllm.knowledge import card_files, domains
from mllm.knowledge.cards import Cards, load_cards, save_cards
from mllm.models import families
from mllm.prompting.questions import Mixture
from mllm.records import SPLITS, Photo, Sample, read_jsonl, write_jsonl
from mllm.synthesis import contact_sheet, lineups, photo_stages, pseudo_boxes, teachers
from mllm.synthesis import samples as questions
from mllm.synthesis.capabilities import Points, Reasons, need
from mllm.synthesis.shards import Shards, once
from mllm.synthesis.stages import in_order

console = Console(stderr=True)
tell = partial(console.print, highlight=False, soft_wrap=True, markup=False)
MOST_TRIES = 20
"""So many line-ups are tried for one image; if all are refused, something is wrong with the data or the settings."""
IMAGES_A_FOLDER = 100_000


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the output depends on (folder and number of workers change nothing)."""

    source: str
    input: str | None
    domain: str | None
    knowledge: tuple[str, ...]
    teacher: str
    train: int
    validation: int
    test: int
    seed: int
    sisters: float
    things: tuple[int, int]
    questions: int
    photos_per_entity: int
    shares: splits.Shares
    max_side: int
    min_box: int
    whole_image_boxes: bool
    clip_boxes: bool
    licence: str
    mixture: Mixture
    boxes_from: str | None
    second_opinion: str | None
    box_agreement: float
    sheet: int
    teacher_config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def drawn(self) -> bool:
        """Whether the photos come from the pocket world: small, lossless, for the pocket model."""
        return self.source == "pocket"

    @property
    def style(self) -> questions.Style:
        family = families.load("pocket" if self.drawn else "qwen3_vl")
        return questions.Style(family, plain=self.drawn, max_side=self.max_side, min_box=self.min_box)


def synthesize(
    settings: Settings, out: Path, workers: int, overwrite: bool = False, spoken: str = ""
) -> dict[str, Any]:
    """Run the whole story and return the manifest; `spoken` is the command, for the data card."""

    def story(world: World) -> None:
        tell_story(settings, out, workers, spoken, world)

    return once(out, _recorded(settings), story, overwrite=overwrite)


def tell_story(settings: Settings, out: Path, workers: int, spoken: str, world: World) -> None:
    """Run stage after stage; every process of the world comes through here."""
    known = load_cards(*settings.knowledge) if settings.knowledge else None
    photos = photos_stage(settings, known, out, workers, world)
    photos, boxless = boxes_stage(settings, photos, out, workers, world)
    divided = split_stage(settings, photos, out, world)
    cards = knowledge_stage(divided.photos, known, out, world)
    with teacher_of(settings) as teacher:
        for side in SPLITS:
            samples_stage(settings, side, divided.photos, cards, teacher, out, workers, world)
    if world.is_main:
        told = facts(settings, divided, boxless, out)
        contact_sheet.write(out, settings.sheet)
        dataset_card.write(out, told, divided.photos, spoken, _recorded(settings))
        data = [*(f"{side}.jsonl" for side in SPLITS), "knowledge.json", "images"]
        manifest.finish(out, told, data)
    world.barrier()


@contextmanager
def teacher_of(settings: Settings) -> Iterator[Reasons]:
    """Yield the teacher; however the block ends, tell what it cost and every request that failed."""
    teacher = teachers.load(settings.teacher, **settings.teacher_config)
    with teachers.closing(teacher, tell=tell):
        yield need(teacher, Reasons, settings.teacher)


def photos_stage(settings: Settings, known: Cards | None, out: Path, workers: int, world: World) -> list[Photo]:
    """Stage 1: list the photos and look at each."""
    asked = {name: getattr(settings, name) for name in sources.Request.__slots__ if hasattr(settings, name)}
    asked["input"] = Path(settings.input) if settings.input else None
    asked["boxes_later"] = settings.boxes_from is not None
    request = sources.Request(**asked, out=out)
    return photo_stages.listed(lambda: label_checks.labelled(settings.source, request, known), out, workers, world)


def boxes_stage(
    settings: Settings, photos: list[Photo], out: Path, workers: int, world: World
) -> tuple[list[Photo], Counter[str]]:
    """Stage 2: have a teacher point at what has no box; returns the photos with boxes, and why others have none."""
    if settings.boxes_from is None:
        return photos, Counter()
    names = (settings.boxes_from, settings.second_opinion or settings.boxes_from)

    def opinions() -> list[Points]:
        config = settings.teacher_config  # of --teacher; another teacher takes its own from the environment
        given = {name: config if name == settings.teacher else {} for name in names}
        return [need(teachers.load(name, **given[name]), Points, name) for name in names]

    boxed = photo_stages.boxed(
        photos, opinions, out, workers, world, seed=settings.seed, agreed_at=settings.box_agreement
    )
    return [photo for photo in boxed if photo.boxes], Counter(
        photo.provenance[pseudo_boxes.FAULT] for photo in boxed if not photo.boxes
    )


def split_stage(settings: Settings, photos: list[Photo], out: Path, world: World) -> splits.Split:
    """Stage 3: put each photo on its side. Seconds, so a run that goes on does it again."""
    prints = [photo.provenance["fingerprint"] for photo in photos]
    divided = splits.split(photos, prints, settings.shares, settings.seed)
    if world.is_main:
        write_jsonl(out / "split.jsonl", divided.photos)
    return divided


def knowledge_stage(photos: list[Photo], known: Cards | None, out: Path, world: World) -> Cards:
    """Stage 4: the card of every entity, from the user's files, else the marks that the source knows."""
    marks = {photo.entity: photo.marks if known is None else known[photo.entity] for photo in photos}
    if world.is_main:
        save_cards(out / "knowledge.json", marks)
    return Cards(marks, str(out / "knowledge.json")) if known is None else known


def samples_stage(
    settings: Settings, side: str, photos: list[Photo], cards: Cards, teacher: teachers.Teacher, out: Path,
    workers: int, world: World,
) -> None:  # fmt: skip
    """Stage 5: the samples of one side, image by image. Each depends on its own number alone."""
    shards, count, each = Shards(out / f"{side}.jsonl", world), getattr(settings, side), settings.questions
    if shards.finished:
        return
    todo = [place // each for place in range(count) if key_of(side, place) not in shards.done]
    mine = world.shard(list(dict.fromkeys(todo)))
    if mine:
        pool = lineups.Pool(photos, side, cards, settings.things)
        with progress(side, len(mine), world=world) as tick:
            for number, samples in in_order(
                lambda number: (number, samples_of(settings, pool, teacher, number, out)), mine, workers
            ):
                for sample in samples[: count - number * each]:
                    shards.add(sample)
                tick()
    shards.close(lambda key: (len(key), key))


def key_of(side: str, place: int) -> str:
    """Name the sample at a place of its file."""
    return f"{side}-{place:06d}"


def image_name(number: int) -> str:
    """Name a side's image, without its suffix; from the 100,000th on they lie in folders of so many."""
    folder = number // IMAGES_A_FOLDER
    return f"{f'{folder:04d}/' if folder else ''}{number:06d}"


def samples_of(
    settings: Settings, pool: lineups.Pool, teacher: teachers.Teacher, number: int, out: Path
) -> list[Sample]:
    """Make image `number` of a side and its samples, trying again with another line-up when one is refused."""
    refused: list[str] = []
    seed = f"{settings.seed}/{pool.side}"
    name = f"images/{pool.side}/{image_name(number)}.{'png' if settings.drawn else 'jpg'}"
    kinds = [settings.mixture.draw(random.Random(f"{seed}/{number}/kind/{k}")) for k in range(settings.questions)]
    for attempt in range(MOST_TRIES):
        rng = random.Random(f"{seed}/{number}/{attempt}")
        try:
            drawn = pool.draw(number, seed, rng, sisters=settings.sisters, questions=settings.questions, kind=kinds[0])
            if len(drawn.targets) < settings.questions:
                raise questions.Refused("fewer things than questions")
            image, blank = questions.compose(drawn, out, settings.style, rng)
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            save_image(image, out / name)  # before the rows that name it, and for teachers that look at it
            told = {**blank.provenance, "source": settings.source, "teacher": settings.teacher}
            samples = []
            for place, target in enumerate(drawn.targets):
                told["refused"] = [] if place else list(refused)  # told once, so that the rows can be counted
                one = replace(blank, id=key_of(pool.side, number * settings.questions + place), image=name, group=name)
                one = replace(one, split=pool.side, provenance=dict(told))
                kind = drawn.kind if place == 0 else lineups.further(kinds[place])
                samples.append(
                    questions.ask(one, target, kind, teacher, pool.cards, settings.style, settings.seed, out / name)
                )
        except questions.Refused as reason:
            refused.append(str(reason))
            continue
        return samples
    raise FieldmarkError(
        f"{pool.side}: {MOST_TRIES} line-ups for image {number} were refused, the last because: {refused[-1]}."
        " Look at --min-things, --max-things, --questions, --min-box and --max-side, or take another teacher"
    )


def facts(settings: Settings, divided: splits.Split, boxless: Counter[str], out: Path) -> dict[str, Any]:
    """Count what was made, what was left out and refused, and name the licences."""
    counts = {side: manifest.tally(read_jsonl(out / f"{side}.jsonl", Sample)) for side in SPLITS}
    refused = sum((refusals for _, refusals in counts.values()), Counter())
    sides = Counter(photo.provenance["side"] for photo in divided.photos)
    return {
        "samples": {side: told for side, (told, _) in counts.items()},
        "photos": dict(sorted(sides.items())),
        "groups of near-duplicate photos": divided.groups_joined,
        "photos left out": dict(sorted((divided.left_out + boxless).items())),
        "line-ups tried": sum(told["images"] for told, _ in counts.values()) + refused.total(),
        "line-ups refused": dict(sorted(refused.items())),
        "licences": dict(sorted(Counter(photo.licence or "not stated" for photo in divided.photos).items())),
        "teachers": {"reasoning": settings.teacher, "boxes": settings.boxes_from or "none was asked"},
    }


def _recorded(settings: Settings) -> dict[str, Any]:
    """Return the settings as the folder keeps them."""
    return teachers.recorded(settings, (settings.input, *settings.knowledge))


def command(
    context: typer.Context,
    source: Annotated[str, typer.Option(help="where photos come from: " + ", ".join(sources.names()))] = "pocket",
    input: Annotated[str | None, typer.Option(help="folder or file that the source reads")] = None,  # noqa: A002
    domain: Annotated[str | None, typer.Option(help="domain of all photos: " + ", ".join(domains.names()))] = None,
    knowledge: Annotated[list[str] | None, typer.Option(help="file or folder of cards (may be repeated)")] = None,
    teacher: Annotated[str | None, typer.Option(help="who reasons [pocket for pocket photos, else cards]")] = None,
    teacher_config: Annotated[Path | None, typer.Option(help="YAML file with the teacher's settings")] = None,
    teacher_option: Annotated[list[str] | None, typer.Option(help="key=value over it (may be repeated)")] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the data [runs/SOURCE/data]")] = None,
    train: Annotated[int, typer.Option(min=0, help="samples to train on")] = 4000,
    validation: Annotated[int, typer.Option(min=0, help="samples to choose checkpoints by")] = 240,
    test: Annotated[int, typer.Option(min=0, help="samples to measure on")] = 600,
    seed: Annotated[int, typer.Option(help="another seed, other data")] = 0,
    sisters: Annotated[float, typer.Option(min=0, max=1, help="share of distractors that are look-alikes")] = 0.5,
    min_things: Annotated[int, typer.Option(min=2, max=6, help="fewest things in an image")] = 2,
    max_things: Annotated[int, typer.Option(min=2, max=6, help="most things in an image")] = 6,
    per_image: Annotated[int, typer.Option("--questions", min=1, max=6, help="questions asked of each image")] = 1,
    photos_per_entity: Annotated[int, typer.Option(min=3, help="photos drawn of each seen species (pocket)")] = 24,
    validation_share: Annotated[float, typer.Option(help="share of a seen entity's photos for validation")] = 0.15,
    test_share: Annotated[float, typer.Option(help="share of a seen entity's photos for the test")] = 0.25,
    unseen_share: Annotated[float, typer.Option(help="share of entities held out: 1/3 validation, 2/3 test")] = 0.25,
    unseen_domain: Annotated[list[str] | None, typer.Option(help="domain held out whole, for the test")] = None,
    max_side: Annotated[int, typer.Option(min=64, help="longest side of an image, pixels")] = 1024,
    min_box: Annotated[int, typer.Option(min=1, help="shortest side of a box, pixels")] = 12,
    whole_image_boxes: Annotated[bool, typer.Option(help="take photos without a box as filled by their thing")] = False,
    clip_boxes: Annotated[bool, typer.Option(help="cut boxes that leave their image")] = False,
    licence: Annotated[str, typer.Option(help="terms of your photos, told in the manifest")] = "",
    descriptions: Annotated[float, typer.Option(help="share of questions that ask by marks, not by name")] = 0.0,
    absent: Annotated[float, typer.Option(help="share of questions for something that is not there")] = 0.0,
    several: Annotated[float, typer.Option(help="share of questions for all of a kind, of more than one")] = 0.0,
    boxes_from: Annotated[str | None, typer.Option(help="teacher that points at things without a box")] = None,
    second_opinion: Annotated[str | None, typer.Option(help="teacher to agree [the same, another seed]")] = None,
    box_agreement: Annotated[float, typer.Option(help="least IoU of the two answers")] = pseudo_boxes.AGREED_AT,
    sheet: Annotated[int, typer.Option(min=0, help="samples of each side drawn on pages to look at")] = 24,
    workers: Annotated[int, typer.Option(min=1, help="threads")] = 2,
    overwrite: Annotated[bool, typer.Option(help="throw away what the folder holds")] = False,
) -> None:  # fmt: skip
    """Make grounding data from labelled photos."""
    if min_things > max_things:
        raise FieldmarkError(f"--min-things {min_things} is above --max-things {max_things}")
    settings = Settings(
        source=source, input=input, domain=domain, knowledge=card_files.files_of(knowledge or ()),
        teacher=teacher or ("pocket" if source == "pocket" else "cards"), train=train, validation=validation, test=test,
        seed=seed, sisters=sisters, things=(min_things, max_things), questions=per_image,
        photos_per_entity=photos_per_entity,
        shares=splits.Shares(validation_share, test_share, unseen_share, tuple(unseen_domain or ())),
        max_side=max_side, min_box=min_box, whole_image_boxes=whole_image_boxes, clip_boxes=clip_boxes, licence=licence,
        mixture=Mixture(descriptions, absent, several), boxes_from=boxes_from, second_opinion=second_opinion,
        box_agreement=box_agreement, sheet=sheet,
        teacher_config=teachers.read_config(teacher_config, teacher_option or ()),
    )  # fmt: skip
    folder = out or Path("runs") / source / "data"
    made = synthesize(settings, folder, workers, overwrite, dataset_card.spoken(context, "data_synth/grounding.py"))
    told = ", ".join(f"{count['samples']} {side}" for side, count in made["samples"].items())
    console.print(f"{folder}: {told}; hash {made['hash'][:12]}", highlight=False)


def main(argv: list[str] | None = None) -> None:
    """Run the program."""
    run_program(command, argv)


if __name__ == "__main__":
    main()

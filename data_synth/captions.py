"""Make caption data: from images with the captions people wrote to captions worth learning, in one command.

    python data_synth/captions.py                                        # the pocket world, into runs/pocket/captions
    python data_synth/captions.py --strategy holistic --out runs/pocket/captions-vcb
    python data_synth/captions.py --source coco --input captions.json --strategy blend --teacher cards --out OUT
    accelerate launch data_synth/captions.py ...                         # many processes, many nodes: the same bytes

The story, stage by stage; each leaves a file and is passed over when that file is there:
    1 images.jsonl    what the source yields, each image on its side; look-alikes stay together, so nothing leaks
    2 captions.jsonl    what the strategy (mllm/boosting) wrote of each, or why it was refused
    3 train.jsonl, validation.jsonl, test.jsonl, and bags/SIDE/bags-SIZE-LEVEL.jsonl where look-alikes are known
    4 sheets/, README.md    pages of images to look at, and the data card
    5 manifest.json     what was made, from what, on which terms, what was refused and why, and a hash of it all
A run that was stopped, however hard, goes on where it was and ends with the same bytes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mllm.cli.programs import run_program
from mllm.data import bags, caption_sources, dataset_card, manifest, splits
from mllm.distributed import World
from mllm.errors import FieldmarkError
from mllm.io.images import open_image
from mllm.io.progress import progress
from mllm.knowledge.cards import load_cards
from mllm.records import SPLITS, Photo, Sample, read_jsonl, write_jsonl
from mllm.synthesis import caption_facts, captioning, contact_sheet, teachers
from mllm.synthesis.captioning import Aid, Boosted, Limits
from mllm.synthesis.shards import Shards, once
from mllm.synthesis.stages import Stage, in_order

console = Console(stderr=True)
tell = partial(console.print, highlight=False, soft_wrap=True, markup=False)
LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the output depends on (folder and number of workers change nothing)."""

    source: str
    input: str | None
    domain: str | None
    licence: str
    strategy: str
    teacher: str
    checker: str | None
    scorer: str
    knowledge: tuple[str, ...]
    counts: Mapping[str, int]
    family: Mapping[str, int]
    level: str
    voices: int
    shares: splits.Shares
    sizes: tuple[int, ...]
    question: str | None
    variants: int
    tries: int
    limits: Limits
    seed: int
    sheet: int
    teacher_config: Mapping[str, Any] = field(default_factory=dict)


def synthesize(settings: Settings, out: Path, workers: int, overwrite: bool, spoken: str) -> dict[str, Any]:
    """Run the whole story and return the manifest; `spoken` is the command, for the data card."""

    def story(world: World) -> None:
        tell_story(settings, out, workers, spoken, world)

    return once(out, _recorded(settings), story, overwrite=overwrite)


def tell_story(settings: Settings, out: Path, workers: int, spoken: str, world: World) -> None:
    """Run stage after stage; every process of the world comes through here."""
    with helpers(settings) as aid:
        captioning.fit(settings.strategy, aid, settings.teacher, settings.checker)  # before anything is drawn or read
        samples = images_stage(settings, out, world)
        captions_stage(settings, samples, aid, out, workers, world)
    if world.is_main:
        boosted = {row.id: row for row in read_jsonl(out / "captions.jsonl", Boosted)}
        made = sides_stage(samples, boosted, out)
        bags_stage(settings, made, out)
        told = caption_facts.facts(made, boosted, settings.strategy, settings.teacher, settings.checker)
        contact_sheet.write(out, settings.sheet)
        every = [sample for rows in made.values() for sample in rows]
        dataset_card.write_captions(out, told, every, spoken, _recorded(settings))
        drawn = ["images"] if (out / "images").is_dir() else []
        manifest.finish(out, told, [*(f"{side}.jsonl" for side in SPLITS), "captions.jsonl", "bags", *drawn])
    world.barrier()


@contextmanager
def helpers(settings: Settings) -> Iterator[Aid]:
    """Yield who writes and who checks; however the block ends, tell what they cost and every request that failed."""
    writer = teachers.load(settings.teacher, **settings.teacher_config)
    checker = None
    if settings.checker is not None:
        same = settings.checker == settings.teacher
        checker = writer if same else teachers.load(settings.checker)  # another one is set up by its environment
    cards = load_cards(*settings.knowledge) if settings.knowledge else {}
    encoder = None
    if settings.strategy == "gist":
        from mllm.models import encoders

        encoder = encoders.load(settings.scorer)
    with teachers.closing(writer, checker, tell=tell):
        yield Aid(writer, checker, cards, encoder, settings.limits)


def images_stage(settings: Settings, out: Path, world: World) -> list[Sample]:
    """Stage 1: list the images, open each once, whole, and put it on its side."""
    if world.is_main and not (out / "images.jsonl").exists():
        stage = Stage(out / "listed.jsonl", Sample)
        if not stage.finished:
            request = caption_sources.Request(
                Path(settings.input) if settings.input else None, out, settings.seed, settings.domain, settings.licence,
                settings.counts, settings.family, settings.level, settings.voices,
            )  # fmt: skip
            with progress("images", None, stage.done) as tick:
                for sample in islice(caption_sources.images(settings.source, request), stage.done, None):
                    stage.add(fingerprinted(settings, sample, out))
                    tick()
            stage.close()
        write_jsonl(out / "images.jsonl", sided(settings, list(read_jsonl(stage.file, Sample))))
        stage.file.unlink()
    world.barrier()
    return list(read_jsonl(out / "images.jsonl", Sample, unique="id"))


def fingerprinted(settings: Settings, sample: Sample, out: Path) -> Sample:
    """Look at an image, whole; those that have no side yet get the prints by which look-alikes are known."""
    picture = open_image(out / sample.image)
    sample = replace(sample, question=settings.question or sample.question)
    if "side" in sample.provenance:
        return sample
    whole = Photo(sample.id, sample.image, sample.size, "any", "any", ())
    return replace(sample, provenance={**sample.provenance, "fingerprint": splits.fingerprint(picture, whole)})


def sided(settings: Settings, samples: Sequence[Sample]) -> Iterator[Sample]:
    """Yield the images with their sides; the source may have decreed them."""
    if all("side" in sample.provenance for sample in samples):
        yield from samples
        return
    prints = [sample.provenance["fingerprint"] for sample in samples]
    sides = splits.by_image([sample.id for sample in samples], prints, settings.shares, settings.seed)
    for sample, side in zip(samples, sides, strict=True):
        kept = {key: value for key, value in sample.provenance.items() if key != "fingerprint"}
        yield replace(sample, split=side, provenance={**kept, "side": side})


def captions_stage(
    settings: Settings, samples: Sequence[Sample], aid: Aid, out: Path, workers: int, world: World
) -> None:
    """Stage 2: the captions of every image. Each depends on its own image alone."""
    shards = Shards(out / "captions.jsonl", world)
    if shards.finished:
        return
    mine = world.shard([number for number, sample in enumerate(samples) if sample.id not in shards.done])

    def make(number: int) -> Boosted:
        sample, how = samples[number], {"variants": settings.variants, "tries": settings.tries}
        return captioning.boost(settings.strategy, sample, out / sample.image, aid, seed=settings.seed, **how)

    with progress("captions", len(mine), world=world) as tick:
        for row in in_order(make, mine, workers):
            shards.add(row)
            tick()
    place = {sample.id: number for number, sample in enumerate(samples)}
    shards.close(place.__getitem__)


def sides_stage(samples: Sequence[Sample], boosted: Mapping[str, Boosted], out: Path) -> dict[str, list[Sample]]:
    """Stage 3: the samples of each side, with the captions that were taken."""
    made: dict[str, list[Sample]] = {side: [] for side in SPLITS}
    for sample in samples:
        if captions := boosted[sample.id].captions:
            told = {**sample.provenance, "given": list(sample.captions)}
            made[sample.split].append(replace(sample, captions=captions, provenance=told))
    if not any(made.values()):
        reasons = Counter(reason for row in boosted.values() for reason in row.refused)
        raise FieldmarkError(f"every caption was refused ({', '.join(reasons)}); take another teacher, or wider limits")
    for side, rows in made.items():
        write_jsonl(out / f"{side}.jsonl", rows)
    return made


def bags_stage(settings: Settings, made: Mapping[str, Sequence[Sample]], out: Path) -> None:
    """Cut families of look-alikes into bags of every size; where there are none, data_synth/bags.py mines them."""
    for side, rows in made.items():
        (out / "bags" / side).mkdir(parents=True, exist_ok=True)
        families: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            if row.bag is not None:
                families[row.bag].append(row.id)
        for size in settings.sizes:
            if cut := bags.chop(families.values(), size, settings.level):
                write_jsonl(out / "bags" / side / f"bags-{size}-{settings.level}.jsonl", cut)


def _recorded(settings: Settings) -> dict[str, Any]:
    """Return the settings as the folder keeps them."""
    return teachers.recorded(settings, (settings.input, *settings.knowledge))


def command(
    context: typer.Context,
    source: Annotated[str, typer.Option(help="where images come from: " + ", ".join(caption_sources.names()))] = "pocket",
    input: Annotated[str | None, typer.Option(help="folder or file that the source reads")] = None,  # noqa: A002
    domain: Annotated[str | None, typer.Option(help="domain of all images [scene; each its own in pocket]")] = None,
    licence: Annotated[str, typer.Option(help="terms of your images, told in the manifest")] = "",
    strategy: Annotated[str, typer.Option(help="what the captions are: " + ", ".join(captioning.names()))] = "human",
    teacher: Annotated[str | None, typer.Option(help="who writes [pocket for pocket scenes, else cards]")] = None,
    teacher_config: Annotated[Path | None, typer.Option(help="YAML file with the teacher's settings")] = None,
    teacher_option: Annotated[list[str] | None, typer.Option(help="key=value over it (may be repeated)")] = None,
    checker: Annotated[str | None, typer.Option(help="teacher that looks, or none [the writer, if it can]")] = None,
    scorer: Annotated[str, typer.Option(help="encoder that matches marks to images (gist)")] = "pocket",
    knowledge: Annotated[list[str] | None, typer.Option(help="file of knowledge cards (gist; may be repeated)")] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the data [runs/SOURCE/captions]")] = None,
    train: Annotated[int, typer.Option(min=0, help="images to train on (pocket)")] = 2000,
    validation: Annotated[int, typer.Option(min=0, help="images to choose checkpoints by (pocket)")] = 210,
    test: Annotated[int, typer.Option(min=0, help="images to measure on (pocket)")] = 700,
    family: Annotated[int, typer.Option(min=1, max=20, help="look-alikes together in training (pocket)")] = 20,
    held_out_family: Annotated[int, typer.Option(min=1, max=20, help="look-alikes together elsewhere (pocket)")] = 7,
    level: Annotated[str, typer.Option(help="how alike: easy, medium, hard (pocket)")] = "hard",
    voices: Annotated[int, typer.Option(min=1, help="people who caption each image (pocket)")] = 5,
    validation_share: Annotated[float, typer.Option(help="share of your images for validation")] = 0.1,
    test_share: Annotated[float, typer.Option(help="share of your images for the test")] = 0.2,
    sizes: Annotated[list[int] | None, typer.Option(help="bag sizes (may be repeated) [2 3 5 7 10 15 20]")] = None,
    question: Annotated[str | None, typer.Option(help="what is asked of an image [the source's own]")] = None,
    variants: Annotated[int, typer.Option(min=1, help="different captions of each image at most")] = 1,
    tries: Annotated[int, typer.Option(min=1, help="attempts at each caption")] = 2,
    least_words: Annotated[int, typer.Option(min=1, help="shortest caption")] = LIMITS.least_words,
    most_words: Annotated[int, typer.Option(min=1, help="longest caption")] = LIMITS.most_words,
    kept: Annotated[float, typer.Option(min=0, max=1, help="share of people's details that stays")] = LIMITS.kept,
    rounds: Annotated[int, typer.Option(min=1, help="rounds of revision at most (iiw)")] = LIMITS.rounds,
    marks: Annotated[int, typer.Option(min=1, help="marks in a caption at most (gist)")] = LIMITS.marks,
    seed: Annotated[int, typer.Option(help="another seed, other data")] = 0,
    sheet: Annotated[int, typer.Option(min=0, help="images of each side on pages to look at")] = 12,
    workers: Annotated[int, typer.Option(min=1, help="threads")] = 2,
    overwrite: Annotated[bool, typer.Option(help="throw away what the folder holds")] = False,
) -> None:  # fmt: skip
    """Make caption data from images that people captioned."""
    writer = teacher or ("pocket" if source == "pocket" else "cards")
    settings = Settings(
        source=source, input=input, domain=domain, licence=licence, strategy=strategy, teacher=writer,
        checker=who_checks(checker, writer), scorer=scorer, knowledge=tuple(knowledge or ()),
        counts={"train": train, "validation": validation, "test": test},
        family={"train": family, "validation": held_out_family, "test": held_out_family}, level=level, voices=voices,
        shares=splits.Shares(validation_share, test_share), sizes=tuple(sizes or (2, 3, 5, 7, 10, 15, 20)),
        question=question, variants=variants, tries=tries,
        limits=Limits(least_words, most_words, kept, rounds, marks), seed=seed, sheet=sheet,
        teacher_config=teachers.read_config(teacher_config, teacher_option or ()),
    )  # fmt: skip
    folder = out or Path("runs") / source / "captions"
    made = synthesize(settings, folder, workers, overwrite, dataset_card.spoken(context, "data_synth/captions.py"))
    told = ", ".join(f"{count['images']} {side}" for side, count in made["samples"].items())
    console.print(f"{folder}: {told}; hash {made['hash'][:12]}", highlight=False)


def who_checks(checker: str | None, writer: str) -> str | None:
    """Return who looks: the one named, nobody for `none`, else the writer where it can see."""
    if checker is None:
        return None if writer == "cards" else writer
    return None if checker == "none" else checker


def main(argv: list[str] | None = None) -> None:
    """Run the program."""
    run_program(command, argv)


if __name__ == "__main__":
    main()

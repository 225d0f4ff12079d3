"""Make grounding data: from labelled photos to questions with boxes and reasoning, in one command.

    python data_synth/grounding.py                       # the pocket world, into runs/pocket/data
    python data_synth/grounding.py --source csv --input photos.csv --domain bird --knowledge cards.yaml --out runs/birds
    accelerate launch data_synth/grounding.py ...        # several processes or nodes: the same bytes

Stages; each writes files and is skipped when they exist:
    1 photos.jsonl      what the source lists, each photo decoded once and fingerprinted
    2 boxes.jsonl       with --boxes-from: photos without a box get one where two opinions agree
    3 split.jsonl       the side of each photo, by entity and by image; look-alikes stay together, so nothing leaks
    4 knowledge.json    the marks of every entity
    5 images/, train.jsonl, validation.jsonl, test.jsonl   composites, questions, reasoning, all checked
    6 sheets/, README.md    pages of samples to look at, and the data card
    7 manifest.json     what was made, from what, on which terms, what was rejected and why, and a hash of everything
A stopped run resumes where it was and ends with the same bytes.
"""

if __name__ == "__main__":
    from mllm import ctrl_c

    ctrl_c.end_at_once()  # while the imports below run

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console

from mllm.cli.options import FolderOptions, TeacherOptions, named_columns
from mllm.cli.programs import Range, parse, run_program, typed_command
from mllm.data import dataset_card, label_checks, manifest, sources, splits
from mllm.distributed import World
from mllm.errors import FieldmarkError
from mllm.io.jsonl import write_jsonl
from mllm.io.progress import progress
from mllm.knowledge import card_files
from mllm.knowledge.cards import Cards, load_cards, save_cards
from mllm.models import families
from mllm.prompting.questions import Mixture
from mllm.records import SPLITS, Photo, Split
from mllm.synthesis import contact_sheet, lineups, photo_stages, teachers
from mllm.synthesis.capabilities import Points, Reasons, need
from mllm.synthesis.run import SynthesisRun, in_order
from mllm.synthesis.samples import CompositionStyle, SampleMaker, ThoughtChecks, sample_id
from mllm.synthesis.shards import Shards

PROGRAM = "data_synth/grounding.py"
echo = partial(Console(stderr=True).print, highlight=False, soft_wrap=True, markup=False)


@dataclass(frozen=True)
class GroundingOptions:
    """What the data is made of and how."""

    source: str = "pocket"
    """where photos come from: pocket, csv, coco, yolo, ... (docs/grounding_data.md)"""
    input: str | None = None
    """folder or file that the source reads"""
    domain: str | None = None
    """domain of all photos: bird, car, ..."""
    column: tuple[str, ...] = ()
    """OURS=THEIRS: another name of a column, as entity=scientificName (may be repeated)"""
    knowledge: tuple[str, ...] = ()
    """file or folder of knowledge cards (may be repeated)"""
    teacher: TeacherOptions = TeacherOptions()
    folder: FolderOptions = FolderOptions()
    train: Annotated[int, Range(0)] = 4000
    """samples to train on"""
    validation: Annotated[int, Range(0)] = 240
    """samples to choose checkpoints by"""
    test: Annotated[int, Range(0)] = 600
    """samples to measure on"""
    seed: int = 0
    """random seed"""
    sisters: Annotated[float, Range(0, 1)] = 0.5
    """share of distractors that are look-alikes"""
    min_things: Annotated[int, Range(2, 6)] = 2
    """fewest things in an image"""
    max_things: Annotated[int, Range(2, 6)] = 6
    """most things in an image"""
    questions: Annotated[int, Range(1, 6)] = 1
    """questions asked about each image"""
    photos_per_entity: Annotated[int, Range(3)] = 24
    """photos drawn of each seen species (pocket)"""
    validation_share: float = 0.15
    """share of a seen entity's photos for validation"""
    test_share: float = 0.25
    """share of a seen entity's photos for the test"""
    unseen_share: float = 0.25
    """share of entities held out: a third for validation, the rest for the test"""
    unseen_domain: tuple[str, ...] = ()
    """domain held out as a whole, for the test (may be repeated)"""
    long_tail: Annotated[int | None, Range(1)] = None
    """thin the training photos, from N of one entity to 1 of another, and ask for each as often as it has photos"""
    max_side: Annotated[int, Range(64)] = 1024
    """longest side of an image, pixels"""
    min_box: Annotated[int, Range(1)] = 12
    """shortest side of a box, pixels"""
    whole_image_boxes: bool = False
    """use the whole photo as the box of a photo without one"""
    clip_boxes: bool = False
    """clip boxes that leave their image"""
    licence: str = ""
    """terms of your photos, recorded in the manifest"""
    descriptions: float = 0.0
    """share of questions that ask by marks, not by name"""
    absent: float = 0.0
    """share of questions about something that is not in the image"""
    several: float = 0.0
    """share of questions about all things of a kind, of which there are several"""
    thought_checks: ThoughtChecks = "all"
    """what is checked of a thought to train on; answer: only that it ends on the right thing, as in the papers"""
    max_tries: Annotated[int, Range(1)] = 20
    """line-ups tried for an image whose thoughts are rejected"""
    boxes_from: str | None = None
    """teacher that points at things without a box"""
    second_opinion: str | None = None
    """teacher that must agree; default: the same one with another seed"""
    box_agreement: float = photo_stages.AGREED_AT
    """least IoU of the two answers"""
    sheet: Annotated[int, Range(0)] = 24
    """samples of each side drawn on pages to look at"""

    @property
    def is_drawn(self) -> bool:
        """Whether the photos come from the pocket world: small, lossless, for the pocket model."""
        return self.source == "pocket"

    @property
    def reasoner(self) -> str:
        """Name of the teacher that writes the reasoning."""
        return self.teacher.teacher or ("pocket" if self.is_drawn else "cards")

    @property
    def out(self) -> Path:
        """Output folder."""
        return self.folder.out or Path("runs") / self.source / "data"

    @property
    def mixture(self) -> Mixture:
        """Shares of the kinds of questions."""
        return Mixture(self.descriptions, self.absent, self.several)

    @property
    def shares(self) -> splits.Shares:
        """How photos and entities are divided among the sides."""
        return splits.Shares(self.validation_share, self.test_share, self.unseen_share, self.unseen_domain)


Run = SynthesisRun[GroundingOptions]


def synthesize(options: GroundingOptions) -> dict[str, Any]:
    """Run all stages, or those that are missing, and return the manifest."""
    _ = options.mixture, options.shares  # impossible ones are an error now, not after the photos
    if options.min_things > options.max_things:
        raise FieldmarkError(f"--min-things {options.min_things} is above --max-things {options.max_things}")
    run = SynthesisRun(options, options.out, options.folder.workers, World.current())
    files = (options.input, *card_files.files_of(options.knowledge))
    recorded = teachers.recorded(options, options.reasoner, options.teacher.settings(), files)
    return run.complete(lambda: run_stages(run, recorded), recorded, overwrite=options.folder.overwrite)


def run_stages(run: Run, recorded: dict[str, Any]) -> None:
    """Run stage after stage, on every process. `recorded`: the settings as the manifest has them."""
    options = run.options
    cards = load_cards(*card_files.files_of(options.knowledge)) if options.knowledge else None
    photos, left_out = boxes_stage(run, photos_stage(run, cards))
    for fault in label_checks.two_labels(photos, [photo.fingerprint for photo in photos]):
        raise FieldmarkError(fault)
    split = split_stage(run, photos)
    cards = knowledge_stage(run, split.photos, cards)
    with reasoning_teacher(options) as writer:
        for side in SPLITS:
            samples_stage(run, side, split.photos, cards, writer if side == "train" else writer.truth())
    if run.world.is_main:
        facts = photo_stages.count_facts(run.out, split, left_out)
        facts["teachers"] = {"reasoning": options.reasoner, "boxes": options.boxes_from or "none was asked"}
        contact_sheet.write(run.out, options.sheet)
        command = typed_command(PROGRAM, options, leave_out=("out", "workers", "overwrite"))
        dataset_card.write(run.out, facts, split.photos, command, recorded)
        manifest.finish(run.out, facts, [*(f"{side}.jsonl" for side in SPLITS), "knowledge.json", "images"])


@contextmanager
def reasoning_teacher(options: GroundingOptions) -> Iterator[teachers.Writer]:
    """Yield the teacher; however the block ends, report what it cost and every request that failed."""
    teacher = teachers.load(options.reasoner, **options.teacher.settings())
    with teachers.closing(teacher, report=echo):
        yield teachers.Writer(options.reasoner, need(teacher, Reasons, options.reasoner))


def photos_stage(run: Run, cards: Cards | None) -> list[Photo]:
    """Stage 1: list the photos and fingerprint each."""
    options = run.options
    request = sources.PhotoRequest(
        input=Path(options.input) if options.input else None,
        out=run.out,
        seed=options.seed,
        domain=options.domain,
        licence=options.licence,
        photos_per_entity=options.photos_per_entity,
        whole_image_boxes=options.whole_image_boxes,
        boxes_later=options.boxes_from is not None,
        clip_boxes=options.clip_boxes,
        columns=named_columns(options.column),
    )
    return photo_stages.list_photos(run, lambda: label_checks.labelled(options.source, request, cards))


def boxes_stage(run: Run, photos: list[Photo]) -> tuple[list[Photo], Counter[str]]:
    """Stage 2: let a teacher point at what has no box; return the photos with boxes, and why others have none."""
    options = run.options
    if options.boxes_from is None:
        return photos, Counter()
    first, second = options.boxes_from, options.second_opinion or options.boxes_from

    def opinion(name: str) -> Points:
        # --teacher-config belongs to --teacher; another teacher is configured by its environment variables.
        settings = options.teacher.settings() if name == options.reasoner else {}
        return need(teachers.load(name, **settings), Points, name)

    found = photo_stages.add_boxes(
        run, photos, lambda: (opinion(first), opinion(second)), seed=options.seed, agreed_at=options.box_agreement
    )
    reasons = Counter(str(photo.rejected) for photo in found if not photo.boxes)
    return [photo for photo in found if photo.boxes], reasons


def split_stage(run: Run, photos: list[Photo]) -> splits.PhotoSplit:
    """Stage 3: assign each photo to a side. Takes seconds, so a resumed run repeats it."""
    split = splits.split(photos, [photo.fingerprint for photo in photos], run.options.shares, run.options.seed)
    if run.options.long_tail is not None:
        split.photos = splits.long_tail(split.photos, run.options.long_tail, run.options.seed)
    if run.world.is_main:
        write_jsonl(run.out / "split.jsonl", split.photos)
    return split


def knowledge_stage(run: Run, photos: list[Photo], cards: Cards | None) -> Cards:
    """Stage 4: the card of every entity, from the user's files, otherwise the marks that the source knows."""
    marks = {photo.entity: photo.marks if cards is None else cards[photo.entity] for photo in photos}
    file = run.out / "knowledge.json"
    if run.world.is_main:
        save_cards(file, marks)
    return Cards(marks, str(file)) if cards is None else cards


def samples_stage(run: Run, side: Split, photos: list[Photo], cards: Cards, writer: teachers.Writer) -> None:
    """Stage 5: the samples of one side, image by image."""
    options = run.options
    count, each = getattr(options, side), options.questions
    shards = Shards(run.out / f"{side}.jsonl", run.world)
    if shards.finished:
        return
    missing = [place // each for place in range(count) if sample_id(side, place) not in shards.done]
    mine = run.world.shard(list(dict.fromkeys(missing)))
    if mine:
        family = families.load("pocket" if options.is_drawn else "qwen3_vl")
        maker = SampleMaker(
            pool=lineups.Pool(
                photos,
                side,
                cards,
                (options.min_things, options.max_things),
                by_photo=side == "train" and options.long_tail is not None,
            ),
            teacher=writer.teacher,
            style=CompositionStyle(family, options.is_drawn, options.max_side, options.min_box),
            out=run.out,
            seed=options.seed,
            look_alikes=options.sisters,
            questions=each,
            mixture=options.mixture,
            provenance={"source": options.source, "teacher": writer.name},
            checks=options.thought_checks if side == "train" else "all",
            max_tries=options.max_tries,
        )
        with progress(side, len(mine), world=run.world) as step:
            for number, made in in_order(lambda number: (number, maker.make(number)), mine, run.workers):
                for sample in made[: count - number * each]:
                    shards.add(sample)
                step()
    shards.close(lambda key: (len(key), key))


def main(argv: list[str] | None = None) -> None:
    """Run the program."""
    options = parse(GroundingOptions, argv)
    made = synthesize(options)
    counts = ", ".join(f"{count['samples']} {side}" for side, count in made["samples"].items())
    echo(f"{options.out}: {counts}; hash {made['hash'][:12]}")


if __name__ == "__main__":
    run_program(main)

"""Make caption data: from images with human captions to captions worth training on, in one command.

    python data_synth/captions.py                                        # the pocket world, into runs/pocket/captions
    python data_synth/captions.py --strategy holistic --out runs/pocket/captions-vcb
    python data_synth/captions.py --source coco --input captions.json --strategy blend --teacher cards --out OUT
    accelerate launch data_synth/captions.py ...                         # several processes or nodes: the same bytes

Stages; each writes files and is skipped when they exist:
    1 images.jsonl    what the source lists, each image on its side; look-alikes stay together, so nothing leaks
    2 captions.jsonl    what the strategy (mllm/synthesis/captioning) wrote for each, or why it was rejected
    3 train.jsonl, validation.jsonl, test.jsonl, and bags/SIDE/bags-SIZE-LEVEL.jsonl where look-alikes are known
    4 sheets/, README.md    pages of images to look at, and the data card
    5 manifest.json     what was made, from what, on which terms, what was rejected and why, and a hash of everything
A stopped run resumes where it was and ends with the same bytes.
"""

from __future__ import annotations

if __name__ == "__main__":
    from mllm import ctrl_c

    ctrl_c.end_at_once()  # while the imports below run

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console

from mllm.cli.options import DomainOptions, FolderOptions, TeacherOptions
from mllm.cli.programs import Range, parse, run_program, typed_command
from mllm.data import bags, caption_sources, dataset_card, manifest, splits
from mllm.distributed import World
from mllm.errors import FieldmarkError
from mllm.io.images import open_image
from mllm.io.jsonl import read_jsonl, write_jsonl
from mllm.knowledge.cards import load_cards
from mllm.records import SPLITS, Sample
from mllm.synthesis import caption_facts, captioning, contact_sheet, teachers
from mllm.synthesis.captioning import CaptionLimits, CaptionResult, Helpers
from mllm.synthesis.run import SynthesisRun

PROGRAM = "data_synth/captions.py"
SIZES = (2, 3, 5, 7, 10, 15, 20)
LIMITS = CaptionLimits()
echo = partial(Console(stderr=True).print, highlight=False, soft_wrap=True, markup=False)


@dataclass(frozen=True)
class CaptionOptions:
    """What the captions are made of and how."""

    source: str = "pocket"
    """where images come from: coco, csv, image_folder or pocket"""
    input: str | None = None
    """folder or file that the source reads"""
    domain: DomainOptions = DomainOptions()
    licence: str = ""
    """terms of your images, recorded in the manifest"""
    strategy: str = "human"
    """how captions are written: blend, gist, holistic, human, iiw or textualize"""
    teacher: TeacherOptions = TeacherOptions()
    checker: str | None = None
    """teacher that checks what is visible, or none; default: the writer, if it can"""
    scorer: str = "pocket"
    """encoder that matches marks to images (gist)"""
    knowledge: tuple[str, ...] = ()
    """file of knowledge cards (gist; may be repeated)"""
    folder: FolderOptions = FolderOptions()
    train: Annotated[int, Range(0)] = 2000
    """images to train on (pocket)"""
    validation: Annotated[int, Range(0)] = 210
    """images to choose checkpoints by (pocket)"""
    test: Annotated[int, Range(0)] = 700
    """images to measure on (pocket)"""
    family: Annotated[int, Range(1, 20)] = 20
    """number of look-alikes in a family, in training (pocket)"""
    held_out_family: Annotated[int, Range(1, 20)] = 7
    """number of look-alikes in a family, elsewhere (pocket)"""
    level: str = "hard"
    """how alike they are: easy, medium or hard (pocket)"""
    voices: Annotated[int, Range(1)] = 5
    """people who caption each image (pocket)"""
    validation_share: float = 0.1
    """share of your images for validation"""
    test_share: float = 0.2
    """share of your images for the test"""
    sizes: tuple[int, ...] = ()
    """bag sizes (may be repeated); default: 2 3 5 7 10 15 20"""
    question: str | None = None
    """question asked about an image; default: the source's own"""
    variants: Annotated[int, Range(1)] = 1
    """maximum number of different captions per image"""
    tries: Annotated[int, Range(1)] = 2
    """attempts at each caption"""
    least_words: Annotated[int, Range(1)] = LIMITS.least_words
    """shortest caption, words"""
    most_words: Annotated[int, Range(1)] = LIMITS.most_words
    """longest caption, words"""
    kept: Annotated[float, Range(0, 1)] = LIMITS.kept
    """share of the human captions' details that must be kept"""
    rounds: Annotated[int, Range(1)] = LIMITS.rounds
    """maximum rounds of revision (iiw)"""
    marks: Annotated[int, Range(1)] = LIMITS.marks
    """maximum marks in a caption (gist)"""
    seed: int = 0
    """random seed"""
    sheet: Annotated[int, Range(0)] = 12
    """images of each side drawn on pages to look at"""

    @property
    def out(self) -> Path:
        """Output folder."""
        return self.folder.out or Path("runs") / self.source / "captions"

    @property
    def writer(self) -> str:
        """Name of the teacher that writes."""
        return self.teacher.teacher or ("pocket" if self.source == "pocket" else "cards")

    @property
    def checker_name(self) -> str | None:
        """Name of the teacher that checks: the one given, none for `none`, otherwise the writer if it can see."""
        default = None if self.writer == "cards" else self.writer
        return default if self.checker is None else None if self.checker == "none" else self.checker

    @property
    def shares(self) -> splits.Shares:
        """How images are divided among the sides."""
        return splits.Shares(self.validation_share, self.test_share)

    @property
    def limits(self) -> CaptionLimits:
        """What every caption must satisfy."""
        return CaptionLimits(self.least_words, self.most_words, self.kept, self.rounds, self.marks)


Run = SynthesisRun[CaptionOptions]


def synthesize(options: CaptionOptions) -> dict[str, Any]:
    """Run all stages, or those that are missing, and return the manifest."""
    _ = options.shares  # impossible ones are an error now, not after the images
    run = SynthesisRun(options, options.out, options.folder.workers, World.current())
    files = (options.input, options.domain.domain, *options.knowledge)
    recorded = teachers.recorded(options, options.writer, options.teacher.settings(), files)
    return run.complete(lambda: run_stages(run, recorded), recorded, overwrite=options.folder.overwrite)


def run_stages(run: Run, recorded: dict[str, Any]) -> None:
    """Run stage after stage, on every process. `recorded`: the settings as the manifest has them."""
    options = run.options
    with open_helpers(options) as helpers:
        captioning.check_helpers(options.strategy, helpers, options.writer, options.checker_name)
        samples = images_stage(run)
        results = {row.id: row for row in captions_stage(run, samples, helpers)}
    if run.world.is_main:
        sides = sides_stage(run, samples, results)
        bags_stage(run, sides)
        facts = caption_facts.facts(sides, results, options.strategy, options.writer, options.checker_name)
        contact_sheet.write(run.out, options.sheet)
        rows = [sample for side in sides.values() for sample in side]
        command = typed_command(PROGRAM, options, leave_out=("out", "workers", "overwrite"))
        dataset_card.write_captions(run.out, facts, rows, command, recorded)
        drawn = ["images"] if (run.out / "images").is_dir() else []
        manifest.finish(run.out, facts, [*(f"{side}.jsonl" for side in SPLITS), "captions.jsonl", "bags", *drawn])


@contextmanager
def open_helpers(options: CaptionOptions) -> Iterator[Helpers]:
    """Yield writer, checker, cards and encoder; however the block ends, report costs and every failed request."""
    writer = teachers.load(options.writer, **options.teacher.settings())
    checker = None
    if options.checker_name is not None:  # another teacher than the writer is configured by its environment variables
        checker = writer if options.checker_name == options.writer else teachers.load(options.checker_name)
    cards = load_cards(*options.knowledge) if options.knowledge else {}
    encoder = None
    if options.strategy == "gist":
        from mllm.models import encoders

        encoder = encoders.load(options.scorer)
    with teachers.closing(writer, checker, report=echo):
        yield Helpers(writer, checker, cards, encoder, options.limits)


def images_stage(run: Run) -> list[Sample]:
    """Stage 1: list the images, decode each once and assign it to a side."""
    options, file, listed = run.options, run.out / "images.jsonl", run.out / "listed.jsonl"
    if not file.exists():
        held_out = options.held_out_family
        request = caption_sources.CaptionRequest(
            input=Path(options.input) if options.input else None,
            out=run.out,
            seed=options.seed,
            domain=options.domain.name,
            licence=options.licence,
            counts={side: getattr(options, side) for side in SPLITS},
            family={"train": options.family, "validation": held_out, "test": held_out},
            level=options.level,
            voices=options.voices,
        )
        images = caption_sources.images(options.source, request)
        run.list_rows(listed, images, "images", partial(fingerprinted, run))
        if run.world.is_main:
            write_jsonl(file, with_sides(run, list(read_jsonl(listed, Sample))))
            listed.unlink()
    run.world.barrier()
    return list(read_jsonl(file, Sample, unique="id"))


def fingerprinted(run: Run, sample: Sample) -> Sample:
    """Decode an image; add the fingerprint that identifies look-alikes, if it has no side yet."""
    image = open_image(run.out / sample.image)
    sample = replace(sample, question=run.options.question or sample.question)
    return sample if sample.drawn else replace(sample, fingerprint=tuple(splits.fingerprint(image)))


def with_sides(run: Run, samples: Sequence[Sample]) -> Iterator[Sample]:
    """Yield the images with their sides; a source that draws images has set them."""
    if all(sample.drawn for sample in samples):
        yield from samples
        return
    prints = [sample.fingerprint for sample in samples]
    sides = splits.by_image([sample.id for sample in samples], prints, run.options.shares, run.options.seed)
    for sample, side in zip(samples, sides, strict=True):
        yield replace(sample, split=side, fingerprint=())


def captions_stage(run: Run, samples: Sequence[Sample], helpers: Helpers) -> list[CaptionResult]:
    """Stage 2: the captions of every image. Each depends on its own image only."""
    options = run.options

    def make(sample: Sample) -> CaptionResult:
        return captioning.write_captions(
            options.strategy, sample, run.out / sample.image, helpers,
            seed=options.seed, variants=options.variants, tries=options.tries,
        )  # fmt: skip

    return run.map_rows(run.out / "captions.jsonl", CaptionResult, samples, make, title="captions")


def sides_stage(run: Run, samples: Sequence[Sample], results: Mapping[str, CaptionResult]) -> dict[str, list[Sample]]:
    """Stage 3: the samples of each side, with the captions that were accepted."""
    sides: dict[str, list[Sample]] = {side: [] for side in SPLITS}
    for sample in samples:
        if captions := results[sample.id].captions:
            sides[sample.split].append(replace(sample, captions=captions, human_captions=sample.captions))
    if not any(sides.values()):
        reasons = Counter(reason for row in results.values() for reason in row.refused)
        raise FieldmarkError(f"every caption was rejected ({', '.join(reasons)}); use another teacher or wider limits")
    for side, rows in sides.items():
        write_jsonl(run.out / f"{side}.jsonl", rows)
    return sides


def bags_stage(run: Run, sides: Mapping[str, Sequence[Sample]]) -> None:
    """Cut families of look-alikes into bags of every size; without families, data_synth/bags.py mines bags."""
    for side, rows in sides.items():
        (run.out / "bags" / side).mkdir(parents=True, exist_ok=True)
        families: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            if row.bag is not None:
                families[row.bag].append(row.id)
        for size in run.options.sizes or SIZES:
            if cut := bags.chop(families.values(), size, run.options.level):
                write_jsonl(run.out / "bags" / side / f"bags-{size}-{run.options.level}.jsonl", cut)


def main(argv: list[str] | None = None) -> None:
    """Run the program."""
    options = parse(CaptionOptions, argv)
    made = synthesize(options)
    counts = ", ".join(f"{count['images']} {side}" for side, count in made["samples"].items())
    echo(f"{options.out}: {counts}; hash {made['hash'][:12]}")


if __name__ == "__main__":
    run_program(main)

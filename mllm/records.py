"""Records: the rows that flow through Fieldmark.

Every record is a frozen dataclass with a `SCHEMA` (name/version) that is written into each row. `mllm.io.jsonl` reads
and writes files of them. In a file a `Box` is `[x1, y1, x2, y2]` in the unit frame, a `Frame` is `[width, height]`, a
`Thing` is an object. Rows of an older schema are upgraded while they are read (`mllm.io.upgrades`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from mllm.boxes import Box, Frame
from mllm.errors import RecordError
from mllm.io import upgrades
from mllm.io.codec import Flag, Int, Number, Record
from mllm.io.files import no_such
from mllm.io.jsonl import numbered

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
TaskName = Literal["ground", "ground_all", "name", "caption", "quiz"]
"""The tasks: the files of `mllm/prompting/tasks`."""
QuestionKind = Literal["name", "description", "absent", "several", "naming"]
"""What is asked: one thing by its name, or by marks; something that is not there; all of a kind; what a thing is."""
Stratum = Literal["seen", "unseen", "unseen domain"]
"""Whether the target's entity, or at least its domain, was in the training set."""
REFERENCE = re.compile(r"<obj:(\d{1,4})>")
"""How a family-neutral thought refers to a box: `<obj:K>` is `sample.things[K]`."""


Entity = tuple[str, str]
"""(domain, name)"""


@dataclass(frozen=True, slots=True)
class PhotoThing(Record):
    """One thing on a photo; `box` is None as long as it is not known.

    `use` is the side that its entity belongs to: `train` entities are seen, the others held out; sources may set it,
    `mllm.data.splits` sets it.
    """

    entity: str
    domain: str
    box: Box | None = None
    marks: tuple[str, ...] = ()
    genus: str | None = None
    use: Split | None = None

    @property
    def kind(self) -> Entity:
        """The name and its domain."""
        return self.domain, self.entity

    @property
    def seen(self) -> bool:
        """Whether its entity is in the training set."""
        return self.use == "train"

    def __post_init__(self) -> None:
        """Refuse a thing without a label."""
        _require_text(self, "entity", "domain")


@dataclass(frozen=True, slots=True)
class Photo(Record):
    """One labelled photo: what is on it and where.

    `size` is in pixels, after EXIF orientation. `things` may be of several kinds; `crowds` are things, often many, that
    have no box of their own: their kinds are there, too, but are not asked about. `mllm.data.splits` sets `split` (the
    photo's side) and `group` (its near-duplicates). `rejected` says why pseudo-boxes were not accepted. `provenance`
    holds notes for people; programs do not read it.
    """

    SCHEMA: ClassVar[str] = "fieldmark.photo/3"
    UPGRADES: ClassVar[upgrades.Upgrades] = {
        "fieldmark.photo/1": lambda row: upgrades.photo_2(upgrades.photo_1(row)),
        "fieldmark.photo/2": upgrades.photo_2,
    }

    id: str
    image: str
    size: Frame
    things: tuple[PhotoThing, ...]
    crowds: tuple[PhotoThing, ...] = ()
    captions: tuple[str, ...] = ()
    licence: str = ""
    drawn: Flag = False
    split: Split | None = None
    group: str = ""
    fingerprint: tuple[str, ...] = ()
    rejected: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The boxes of all things that have one."""
        return tuple(thing.box for thing in self.things if thing.box is not None)

    @property
    def kinds(self) -> tuple[Entity, ...]:
        """The entities on the photo, each once, crowds included."""
        return tuple(dict.fromkeys(thing.kind for thing in (*self.things, *self.crowds)))

    @property
    def is_scene(self) -> bool:
        """Whether it shows several kinds, or a crowd."""
        return bool(self.crowds) or len(self.kinds) > 1

    def of(self, kind: Entity) -> list[PhotoThing]:
        """Return the things of a kind, without crowds."""
        return [thing for thing in self.things if thing.kind == kind]

    def __post_init__(self) -> None:
        """Refuse a photo without a name, an image or a label."""
        _require_text(self, "id", "image")
        if not self.things:
            raise RecordError("field things: at least one is needed")


@dataclass(frozen=True, slots=True)
class Thing(Record):
    """One object in an image: its entity, its box, and the marks that can be seen on it."""

    entity: str
    box: Box
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample(Record):
    """One question about one image, with its answer.

    What is asked: `task`, `question`, `kind`; `asked` holds the marks of a description, `options` the names that an
    answer may choose from. A question of task `name` or `quiz` may refer to a thing as `<obj:K>`, as thoughts do.
    The image: `size` in pixels after EXIF orientation, all known `things`, whether it was `drawn`, its `licence`; its
    `layout` if it is a composite; `group` is the image that samples share, the unit a bootstrap draws (empty means
    `image`), `bag` names its look-alikes, `fingerprint` is used to find near-duplicates.
    The answer: `boxes`, or `captions` (the first is learned; `human_captions` are those that people wrote), or `entity`
    with its `genus` and `synonyms`. `thought` is family-neutral reasoning that refers to boxes as `<obj:K>`, K an index
    into `things`.
    The side: `split`; `seen`: the ENTITY was in the training set (None: unknown); `stratum` says what is measured.
    `refused` lists why earlier attempts at this image were rejected; `categories` are those of an annotation file.
    `provenance` holds notes for people; programs do not read it.
    """

    SCHEMA: ClassVar[str] = "fieldmark.sample/2"
    UPGRADES: ClassVar[upgrades.Upgrades] = {"fieldmark.sample/1": upgrades.sample_1}

    id: str
    task: TaskName
    image: str
    size: Frame
    domain: str
    entity: str
    question: str
    boxes: tuple[Box, ...]
    things: tuple[Thing, ...] = ()
    thought: str | None = None
    captions: tuple[str, ...] = ()
    bag: str | None = None
    split: Split = "train"
    seen: Flag | None = None
    group: str = ""
    kind: QuestionKind | None = None
    stratum: Stratum | None = None
    asked: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    genus: str | None = None
    synonyms: tuple[str, ...] = ()
    human_captions: tuple[str, ...] = ()
    layout: str | None = None
    drawn: Flag = False
    licence: str = ""
    fingerprint: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    categories: Mapping[str, Any] = field(default_factory=dict, hash=False)
    provenance: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Refuse a sample without a name, an unknown side, or a thought about a thing that the sample does not have."""
        _require_text(self, "id", "task", "image")
        if self.split not in SPLITS:
            raise RecordError(f"field split: {self.split!r} is none of {', '.join(SPLITS)}")
        if not self.group:
            object.__setattr__(self, "group", self.image)
        for name in ("thought", "question") if self.task in ("name", "quiz") else ("thought",):
            for match in REFERENCE.finditer(getattr(self, name) or ""):
                if int(match[1]) >= len(self.things):
                    raise RecordError(
                        f"field {name}: {match[0]} refers to no entry of things (it has {len(self.things)})"
                    )


@dataclass(frozen=True, slots=True)
class Answer(Record):
    """What was read from model text.

    `numbers` are the coordinates as they were written, unclipped, on the family's frame (official scorers judge
    those); `boxes` are the valid ones in the unit frame. `problem` is a short stable phrase saying why the text could
    not be read, None when it could. `absent`: the text says that what was asked for is not there (no box, no problem).
    """

    thought: str | None
    answer: str | None
    boxes: tuple[Box, ...]
    numbers: tuple[tuple[Number, ...], ...]
    problem: str | None
    absent: Flag = False

    @property
    def box(self) -> Box | None:
        """The one box that counts where one was asked for, None when the answer could not be read or names none."""
        return self.boxes[-1] if self.boxes and self.problem is None else None


@dataclass(frozen=True, slots=True)
class Completion(Record):
    """What a model wrote for one sample. `tokens` counts the completion; `truncated` says that it ran out of room."""

    SCHEMA: ClassVar[str] = "fieldmark.completion/2"
    UPGRADES: ClassVar[upgrades.Upgrades] = {"fieldmark.completion/1": upgrades.completion_1}

    sample_id: str
    text: str
    answer: Answer
    tokens: Int | None = None
    truncated: Flag = False


@dataclass(frozen=True, slots=True)
class Score(Record):
    """What a reward or a metric gave. `value` None means that it does not apply; `parts` are logged."""

    SCHEMA: ClassVar[str] = "fieldmark.score/1"

    value: Number | None
    parts: Mapping[str, Number] = field(default_factory=dict, hash=False)


def load_samples(path: str | Path, *, images: bool = True) -> list[Sample]:
    """Read a whole samples file and check what the rows cannot know of one another.

    Raises `RecordError`: as `read_jsonl`; a duplicate id; no row at all; with `images`, an image that is not there.
    """
    path = Path(path)
    samples: list[Sample] = []
    if not path.is_file():
        raise RecordError(no_such(path, "record file"))
    for line, sample in numbered(path, Sample, "id"):
        if images and not (file := image_path(path, sample)).is_file():
            raise RecordError(
                f"{path}:{line}: field image: no such file {file} (paths are relative to the samples file's folder)"
            )
        samples.append(sample)
    if not samples:
        raise RecordError(f"{path}: the file holds no sample; was the program that writes it stopped early?")
    return samples


def image_path(file: str | Path, sample: Sample | Photo) -> Path:
    """Return where the image of a row of `file` lies: `image` is relative to that file's folder, or absolute."""
    return Path(file).parent / sample.image


def _require_text(record: Any, *names: str) -> None:
    for name in names:
        value = getattr(record, name)
        if not isinstance(value, str) or not value:
            raise RecordError(f"field {name}: a text that is not empty is needed, got {value!r}")

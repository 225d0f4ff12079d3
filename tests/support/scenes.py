"""Small data for tests: pocket photos side by side with the oracle's kind of thought; look-alikes with captions."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from PIL import Image

from mllm.boxes import Box, Frame
from mllm.io.jsonl import write_jsonl
from mllm.pocket import captions, look_alikes, world
from mllm.pocket.species import NOUNS, species
from mllm.records import Sample, Thing


def make_scene(folder: Path, number: int, split: str, *, across: int = 2, down: int = 2) -> Sample:
    """One image of `across` x `down` pocket photos (96 x 96 each), asking for the first thing's name."""
    draw = random.Random(f"{split} {number}")
    domain = draw.choice(sorted({one.domain for one in species()}))
    chosen = draw.sample(list(species(domain)), across * down)
    canvas = Image.new("RGB", (96 * across, 96 * down), "white")
    things = []
    for k, one in enumerate(chosen):
        img, box = world.photo(one, seed=number * 100 + k)
        x, y = k % across, k // across
        canvas.paste(img, (96 * x, 96 * y))
        window = Box(x / across, y / down, (x + 1) / across, (y + 1) / down)
        things.append(Thing(one.name, box.inside(window), tuple(one.marks)))
    name = f"{split}-{number:03}"
    canvas.save(folder / f"{name}.png")
    target = draw.randrange(len(things))
    marks = ", ".join(things[target].marks)
    seen = " ".join(f"{k + 1} <obj:{k}>: {', '.join(thing.marks)}." for k, thing in enumerate(things))
    return Sample(
        id=name,
        task="ground",
        image=f"{name}.png",
        size=Frame(96 * across, 96 * down),
        domain=domain,
        entity=things[target].entity,
        question=f"Find the {domain} {things[target].entity}.",
        boxes=(things[target].box,),
        things=tuple(things),
        thought=f"{things[target].entity}: {marks}. {seen} So {target + 1}.",
        split=split,
    )


def described(scene: Sample) -> Sample:
    """The same scene, its thing asked for by marks: unlike a name, the pocket base finds it in the image."""
    (target,) = [thing for thing in scene.things if thing.entity == scene.entity]
    return replace(scene, question=f"Find the {NOUNS[scene.domain]} with marks {', '.join(target.marks)}.")


def make_data(folder: Path, train: int = 8, validation: int = 4, *, by_marks: bool = False) -> tuple[Path, Path]:
    """Write `train.jsonl` and `validation.jsonl` with their images; return both files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for split, count in (("train", train), ("validation", validation)):
        file = folder / f"{split}.jsonl"
        scenes = [make_scene(folder, number, split) for number in range(count)]
        write_jsonl(file, [described(scene) for scene in scenes] if by_marks else scenes)
        files.append(file)
    return files[0], files[1]


def make_captions(folder: Path, split: str, families: int, size: int = 5) -> Path:
    """Write `<split>.jsonl`: families of look-alike scenes of one thing, with a rich caption each; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for family in range(families):
        for number, scene in enumerate(look_alikes.look_alikes(f"{split}/{family}", size, "medium", count=1)):
            name = f"{split}-{family}-{number}"
            scene.image.save(folder / f"{name}.png")
            noun, marks = NOUNS[scene.domain], scene.marks
            samples.append(
                Sample(
                    id=name,
                    task="caption",
                    image=f"{name}.png",
                    size=Frame(*scene.image.size),
                    domain=scene.domain,
                    entity=noun,
                    question="Describe this picture.",
                    boxes=(),
                    things=tuple(Thing(noun, thing.box, thing.marks) for thing in scene.things),
                    captions=(captions.rich(scene.domain, marks),),
                    bag=f"{split}-{family}",
                    split=split,
                )
            )
    file = folder / f"{split}.jsonl"
    write_jsonl(file, samples)
    return file

"""Convert LLaMA-Factory sharegpt, ms-swift and VLM-R1 files to samples, and back.

Boxes keep their numbers.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from mllm.cli.options import DomainOptions
from mllm.errors import FieldmarkError


@dataclass(frozen=True)
class Options:
    source: Positional[Path]
    """file to read"""
    target: Positional[Path]
    """file to write"""
    read_as: Annotated[str, arg(name="from")] = "samples"
    """format of SOURCE: samples, sharegpt, swift or vlm_r1"""
    write_as: Annotated[str, arg(name="to")] = "samples"
    """format of TARGET: samples, sharegpt, swift or vlm_r1"""
    family: str = "qwen2_vl"
    """model family whose box notation sharegpt text uses (KVG and KARL: qwen2_vl)"""
    style: str = "think"
    """prompt style of written rows: think or direct"""
    domain: DomainOptions = DomainOptions()
    split: str = "train"
    """split of imported samples"""
    clip_boxes: bool = False
    """boxes that leave their image will be cut"""


def command(options: Options) -> None:
    from mllm.data import formats
    from mllm.io.jsonl import check_unique, write_jsonl
    from mllm.models import families
    from mllm.records import load_samples

    source, target, family = options.source, options.target, families.load(options.family)
    if options.read_as == "samples":
        samples = load_samples(source)
    else:
        domain = options.domain.name
        rows = formats.load(options.read_as).read(source, family, clip=options.clip_boxes)
        samples = check_unique(replace(row, split=options.split, domain=domain or row.domain) for row in rows)
    named = next((one.id for one in samples if one.task == "name"), None)
    if named is not None and options.write_as != "samples":
        raise FieldmarkError(f"{source}: sample {named}: {options.write_as} rows hold boxes, and it asks for a name")
    here, there = target.parent.resolve(), source.parent
    moved = [replace(one, image=os.path.relpath((there / one.image).resolve(), here)) for one in samples]
    if options.write_as == "samples":
        count = write_jsonl(target, moved)
    else:
        count = formats.load(options.write_as).write(target, moved, family, options.style)
    absent = sum(not sample.boxes for sample in samples)
    print(f"{target}: {count} rows, {absent} of them about things that are not in the image")

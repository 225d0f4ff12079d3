"""Check labelled photos and list every fault, before making data from them.

Shows what is wrong with which photo, which photos look the same, and which may be used where. The exit code is 1 when a
photo cannot be used, or when a side is left without images. data_synth/grounding.py takes the same options.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from mllm.cli.programs import Range
from mllm.errors import ExitCode


@dataclass(frozen=True)
class Options:
    input: Positional[Path]
    """folder or file that the source reads"""
    source: str = "image_folder"
    """how the photos are labelled: image_folder, csv, coco, yolo, ..."""
    column: tuple[str, ...] = ()
    """OURS=THEIRS: another name of a column, as entity=scientificName (may be repeated)"""
    domain: str | None = None
    """domain of all photos: bird, car, ..."""
    knowledge: tuple[Path, ...] = ()
    """cards: every kind needs one"""
    template: Path | None = None
    """file to write (.yaml or .csv), in which the marks of kinds without a card are to be filled in"""
    seed: int = 0
    """random seed of the split"""
    unseen_share: Annotated[float, Range(0, 1)] = 0.25
    """share of kinds to hold out"""
    clip_boxes: bool = False
    """boxes that leave their image will be cut"""
    whole_image_boxes: bool = False
    """a photo without a box is filled by its thing"""
    boxes_later: bool = False
    """a teacher will add the missing boxes"""
    most: Annotated[int, Range(1)] = 50
    """most faults to list"""


def command(options: Options) -> int:
    from tempfile import TemporaryDirectory

    from mllm.cli.options import named_columns
    from mllm.data import label_checks
    from mllm.data.sources import PhotoRequest
    from mllm.data.splits import Shares
    from mllm.knowledge import card_files
    from mllm.knowledge.cards import load_cards

    known = load_cards(*options.knowledge) if options.knowledge else None
    if options.template is not None:
        card_files.check_template(options.template)
    with TemporaryDirectory() as out:  # for images that have no file of their own
        request = PhotoRequest(
            options.input,
            options.domain,
            Path(out),
            columns=named_columns(options.column),
            clip_boxes=options.clip_boxes,
            whole_image_boxes=options.whole_image_boxes,
            boxes_later=options.boxes_later,
        )
        found = label_checks.check(options.source, request, known, Shares(unseen=options.unseen_share), options.seed)
    for line in label_checks.summary(found):
        print(line)
    if found.faults:
        print(f"cannot be used: {len(found.faults)}")
        for fault in found.faults[: options.most]:
            print(f"  {fault}")
        if len(found.faults) > options.most:
            print(f"  and {len(found.faults) - options.most} more (--most)")
    if found.lacking:
        print(f"kinds without a card: {len(found.lacking)}, {', '.join(name for _, name in found.lacking)}")
        way = "add --template FILE.csv (or .yaml) to write a file in which to fill in their marks"
        if options.template is not None:
            card_files.write_template(options.template, found.lacking)
            way = f"write their marks into {options.template} and give it with --knowledge {options.template}"
        print(f"  {way}")
    short = list(label_checks.sides_without_images(found))
    for line in short:
        print(line)
    if found.faults or short:
        return ExitCode.FAILED
    print("every photo can be used")
    return ExitCode.DONE

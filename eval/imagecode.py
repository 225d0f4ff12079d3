"""ImageCoDe as a test of captions: ten near-identical images, one caption written for one of them alone.

    python eval/imagecode.py --data valid_data.json --images image-sets --list                # what has to be captioned
    python eval/imagecode.py --data valid_data.json --images image-sets --captions captions.json --scorer FOLDER
    python eval/imagecode.py --data valid_data.json --images image-sets --human --scorer FOLDER

One query for each annotated (set, target) (Krojer et al. 2022, as No Detail Left Behind uses it); R@1 and R@5 of ten,
ties shared, interval over sets. Captions are keyed `<set>/<target>`; --human asks the annotators' own descriptions,
which were written with all ten in view. Images: `<images>/<set>/img<index>.jpg`, numbered as in the data.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mllm.cli.programs import run_main
from mllm.data import caption_stats
from mllm.errors import FieldmarkError
from mllm.io import strict_json
from mllm.io.files import atomic_write
from mllm.metrics import retrieval
from mllm.metrics.retrieval import Query

SIZE = 10
_TARGETS = [str(number) for number in range(SIZE)]
_NUMBER = re.compile(r"(\d+)$")


def main(argv: list[str] | None = None) -> None:
    """Measure captions, or list what has to be captioned."""
    options = _parser().parse_args(argv)
    described = read(options.data)
    if options.list:
        for name, targets in described.items():
            for target in targets:
                print(f"{name}/{target}\t{images_of(options.images, name)[int(target)]}")
        return
    if bool(options.captions) == options.human:
        raise FieldmarkError("name the captions with --captions, or ask the annotators' own with --human")
    captions = None if options.human else caption_stats.read_captions(options.captions)
    asked, files = queries(described, options.images, captions)
    from mllm.models import encoders

    encoder = encoders.load(options.scorer, cache=options.cache, device=options.device)
    found = retrieval.match(encoder, asked, files)
    table: dict[str, Any] = {"benchmark": "imagecode", "scorer": options.scorer, "queries": len(asked)}
    table |= retrieval.retrieval_scores(found)
    table["text"] = caption_stats.caption_scores({f"{k}": query.caption for k, query in enumerate(asked)})
    print(
        f"R@1 {100 * table['r1']['value']:.1f}  R@5 {100 * table['r5']['value']:.1f}  ({len(asked)} captions of ",
        end="",
    )
    print(f"{table['text']['words']:.1f} words, {table['cut']:.1%} cut by the judge; chance 10.0 and 50.0)")
    if options.out:
        with atomic_write(options.out) as file:
            json.dump(table, file, indent=1)


def read(file: Path) -> dict[str, dict[str, str]]:
    """Read `{set: {target index: description}}`.

    Raises:
        FieldmarkError: another shape (the unlabelled test file has lists), or a target outside the set.
    """
    table = strict_json.read(file)
    if not isinstance(table, dict) or not table:
        raise FieldmarkError(f"{file}: an object {{set: {{target: description}}}} is needed")
    for name, targets in table.items():
        if not isinstance(targets, dict):
            raise FieldmarkError(f"{file}: set {name!r} has no targets; the test file without labels cannot be scored")
        for target, text in targets.items():
            if target not in _TARGETS or not isinstance(text, str):
                raise FieldmarkError(f"{file}: set {name!r}: target {target!r} is none of 0..9 with a description")
    return table


def queries(
    described: Mapping[str, Mapping[str, str]], images: Path, captions: Mapping[str, str] | None
) -> tuple[list[Query], dict[str, Path]]:
    """One query for each annotated target, by captions keyed `<set>/<target>` or by the annotators' descriptions."""
    asked: list[Query] = []
    files: dict[str, Path] = {}
    for name, targets in described.items():
        names = tuple(f"{name}/{index}" for index in range(SIZE))
        files |= dict(zip(names, images_of(images, name), strict=True))
        for target, text in targets.items():
            if captions is not None and names[int(target)] not in captions:
                raise FieldmarkError(f"no caption of {names[int(target)]!r}; --list says what has to be captioned")
            caption = text if captions is None else captions[names[int(target)]]
            asked.append(Query(name, caption, names, int(target)))
    return asked, files


def images_of(images: Path, name: str) -> list[Path]:
    """The ten images of a set in order of their numbers (`img10` would sort before `img2`)."""
    folder = images / name
    try:
        files = list(folder.iterdir())
    except (OSError, ValueError) as error:  # not there, or no name that a folder can have
        raise FieldmarkError(f"{str(folder)!r:.300}: no folder of a set's images ({error})") from None
    numbered = [(int(found[1]), file) for file in files if (found := _NUMBER.search(file.stem))]
    if len(numbered) != SIZE:
        raise FieldmarkError(f"{folder}: {len(numbered)} numbered images, a set has {SIZE}")
    return [file for _, file in sorted(numbered)]


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="imagecode", description=__doc__, formatter_class=plain)
    parser.add_argument("--data", type=Path, required=True, help="valid_data.json")
    parser.add_argument("--images", type=Path, required=True, help="folder with a folder of ten images for each set")
    parser.add_argument("--captions", type=Path, help="{<set>/<target>: caption} (json)")
    parser.add_argument("--human", action="store_true", help="ask the annotators' own descriptions")
    parser.add_argument("--list", action="store_true", help="print what has to be captioned, with its image")
    parser.add_argument("--scorer", default="pocket-judge", help="judge: pocket-judge, a folder, a Hub name")
    parser.add_argument("--cache", help="folder that keeps the images' vectors")
    parser.add_argument("--device", help="default: a GPU where there is one")
    parser.add_argument("--out", type=Path, help="write the scores to this json file")
    return parser


if __name__ == "__main__":
    run_main(main)

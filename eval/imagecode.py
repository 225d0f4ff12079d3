"""ImageCoDe as a test of captions: ten nearly identical images, and a caption that describes one of them.

    python eval/imagecode.py --data valid_data.json --images image-sets --list        # list the images to caption
    python eval/imagecode.py --data valid_data.json --images image-sets --captions captions.json --scorer FOLDER
    python eval/imagecode.py --data valid_data.json --images image-sets --human --scorer FOLDER

One query for each annotated (set, target) (Krojer et al. 2022, as No Detail Left Behind uses it); R@1 and R@5 of ten,
ties shared, interval over sets. Captions are keyed `<set>/<target>`; --human scores the annotators' own descriptions,
written with all ten in view. Images: `<images>/<set>/img<index>.jpg`, numbered as in the data.
"""

from __future__ import annotations

if __name__ == "__main__":
    from mllm import ctrl_c

    ctrl_c.end_at_once()  # while the imports below run

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm.cli.options import JudgeOptions
from mllm.cli.programs import parse, run_program
from mllm.data import caption_stats
from mllm.errors import FieldmarkError
from mllm.io import strict_json
from mllm.io.files import write_json
from mllm.metrics import retrieval
from mllm.metrics.retrieval import Query

SIZE = 10
_TARGETS = [str(number) for number in range(SIZE)]
_NUMBER = re.compile(r"(\d+)$")


@dataclass(frozen=True)
class Options:
    data: Path
    """valid_data.json"""
    images: Path
    """folder with one folder of ten images per set"""
    captions: Path | None = None
    """JSON file {<set>/<target>: caption}"""
    human: bool = False
    """score the annotators' own descriptions"""
    list: bool = False
    """print the images to caption"""
    out: Path | None = None
    """write the scores to this JSON file"""
    judge: JudgeOptions = JudgeOptions()


def main(argv: list[str] | None = None) -> None:
    """Score captions, or list the images to caption."""
    options = parse(Options, argv)
    described = read(options.data)
    if options.list:
        for name, targets in described.items():
            for target in targets:
                print(f"{name}/{target}\t{images_of(options.images, name)[int(target)]}")
        return
    if (options.captions is not None) == options.human:
        raise FieldmarkError("give either --captions FILE or --human, to score the annotators' own descriptions")
    captions = caption_stats.read_captions(options.captions) if options.captions is not None else None
    asked, files = queries(described, options.images, captions)
    from mllm.models import encoders

    judge = options.judge
    encoder = encoders.load(judge.scorer, cache=judge.cache, device=judge.device)
    found = retrieval.match(encoder, asked, files)
    table: dict[str, Any] = {"benchmark": "imagecode", "scorer": judge.scorer, "queries": len(asked)}
    table |= retrieval.retrieval_scores(found)
    table["text"] = caption_stats.caption_scores({f"{k}": query.caption for k, query in enumerate(asked)})
    print(f"R@1 {100 * table['r1']['value']:.1f}  R@5 {100 * table['r5']['value']:.1f}  ", end="")
    print(f"published rule {100 * table['published_r1']:.1f}  ({len(asked)} captions of ", end="")
    print(f"{table['text']['words']:.1f} words, {table['cut']:.1%} truncated by the judge; chance 10.0 and 50.0)")
    if options.out is not None:
        write_json(options.out, table)


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
                raise FieldmarkError(f"{file}: set {name!r}: target {target!r} is not one of 0..9 with a description")
    return table


def queries(
    described: Mapping[str, Mapping[str, str]], images: Path, captions: Mapping[str, str] | None
) -> tuple[list[Query], dict[str, Path]]:
    """Return a query for each annotated target, and the image files.

    The texts are `captions`, keyed `<set>/<target>`, or the annotators' descriptions.
    """
    asked: list[Query] = []
    files: dict[str, Path] = {}
    for name, targets in described.items():
        names = tuple(f"{name}/{index}" for index in range(SIZE))
        files |= dict(zip(names, images_of(images, name), strict=True))
        for target, text in targets.items():
            if captions is not None and names[int(target)] not in captions:
                raise FieldmarkError(f"no caption of {names[int(target)]!r}; --list prints the images to caption")
            caption = text if captions is None else captions[names[int(target)]]
            asked.append(Query(name, caption, names, int(target)))
    return asked, files


def images_of(images: Path, name: str) -> list[Path]:
    """Return the ten images of a set, ordered by number (`img10` would sort before `img2`)."""
    folder = images / name
    try:
        files = list(folder.iterdir())
    except (OSError, ValueError) as error:  # missing, or not a possible folder name
        raise FieldmarkError(f"{str(folder)!r:.300}: not a folder of a set's images ({error})") from None
    numbered = [(int(found[1]), file) for file in files if (found := _NUMBER.search(file.stem))]
    if len(numbered) != SIZE:
        raise FieldmarkError(f"{folder}: {len(numbered)} numbered images, a set has {SIZE}")
    return [file for _, file in sorted(numbered)]


if __name__ == "__main__":
    run_program(main)

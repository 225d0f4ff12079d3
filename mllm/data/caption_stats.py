"""Caption files of several formats, and the length, diversity and claim precision of the captions in them."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mllm.captions import caption_of, distinct, words
from mllm.errors import FieldmarkError
from mllm.io import safe_pickle, strict_json
from mllm.io.files import no_such
from mllm.io.jsonl import read_jsonl
from mllm.metrics import stats
from mllm.records import Completion, Sample

_COCO = re.compile(r"COCO_\w+_0*(\d+)")
log = logging.getLogger(__name__)


def caption_scores(captions: Mapping[str, str], samples: Sequence[Sample] = (), seed: int = 0) -> dict[str, Any]:
    """Return length in words, distinct 1- and 2-grams, and precision and recall of marks if `samples` have marks.

    Marks are judged in the pocket world only, whose words are known.
    """
    texts = list(captions.values())
    found: dict[str, Any] = {
        "captions": len(texts),
        "words": float(np.mean([len(words(text)) for text in texts])) if texts else 0.0,
        "distinct1": distinct(texts, 1),
        "distinct2": distinct(texts, 2),
    }
    marked = [s for s in samples if s.id in captions and any(thing.marks for thing in s.things)]
    if marked:
        from mllm.pocket.captions import foreign_mark, judge

        if mark := foreign_mark([thing.marks for one in marked for thing in one.things]):
            log.warning("claims are not judged: they are read in the pocket world's words, and %r is none", mark)
            return found
        judged = [judge(captions[s.id], [thing.marks for thing in s.things if thing.marks]) for s in marked]
        names = [s.id for s in marked]
        found["precision"] = stats.mean([one.precision for one in judged], names, seed=seed).as_dict()
        found["recall"] = stats.mean([one.recall for one in judged], names, seed=seed).as_dict()
    return found


def image_key(stem: str) -> str:
    """Return the id of an image by its file's name without the suffix: COCO's number if it has a COCO name."""
    found = _COCO.fullmatch(stem)
    return found[1] if found else stem


def read_captions(file: Path) -> dict[str, str]:
    """Read captions by image name.

    The file is a json object `{name: caption}`, completions of ours (jsonl), or the pickle of `{COCO id: caption}` that
    TrueMatch's authors publish (`mllm.io.safe_pickle` executes nothing in it). Raises `FieldmarkError`: no such file,
    broken JSON, or a caption that is not a text.
    """
    if not file.is_file():
        raise FieldmarkError(no_such(file, "file of captions"))
    if file.suffix == ".jsonl":
        rows = read_jsonl(file, Completion, unique="sample_id", torn_tail=True)
        return {row.sample_id: caption_of(row) for row in rows}
    table = safe_pickle.load(file) if file.suffix in (".pkl", ".pickle") else strict_json.read(file)
    if not isinstance(table, dict):
        raise FieldmarkError(f"{file}: an object {{image: caption}} is needed")
    for name, caption in table.items():
        if not isinstance(caption, str):
            raise FieldmarkError(f"{file}: the caption of {name!r} is not a text but {type(caption).__name__}")
    return {str(name): caption_of(caption) for name, caption in table.items()}

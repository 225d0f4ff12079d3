"""Held-out checks of a pocket CLIP: R@1 of true captions in bags of look-alikes; its model card."""

import random
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mllm.metrics.stats import hit_share
from mllm.pocket.captions import rich, sparse
from mllm.pocket.look_alikes import LEVELS, look_alikes
from mllm.pocket.pretraining_run import write_card

SIZES = (3, 5, 7)
_CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: zero-shot-image-classification
---
# Fieldmark pocket {which}

A `CLIPModel` of under a million parameters that has seen nothing but the pocket world: drawn scenes of one to three
things and captions of them. It is the {role}. The other of the two was made with another seed, other widths and other
scenes: a caption that only pleases the one that rewards is found out by the one that judges.

Made by

    {command}

(seed {seed}, {bags} bags of four look-alikes drawn, {steps} steps of {batch} bags). Scores of these very weights, as
rounded to float16: R@1 of true captions within {count} held-out bags of each kind, ties shared.

{rows}

At random: 33.3 % of three, 20.0 % of five, 14.3 % of seven. A rich caption names every mark, so a perfect reader scores
100 %; a sparse one leaves most out and often fits several images of its bag. For learning and testing, nothing else.
"""
_ROLES = {"scorer": "retriever that self-retrieval and CLIP rewards ask", "judge": "one that judges, and never rewards"}


def check(folder: Path, count: int) -> dict[str, float]:
    """Return R@1 of the weights in ``folder`` on held-out bags: ``count`` of every size and level."""
    from mllm.models.encoders import load

    scores: dict[str, float] = {}
    for size in SIZES:
        for level in LEVELS:
            for late, kind in ((False, "rich"), (True, "rich"), (False, "sparse")):
                name = f"{kind} captions, {level} bags of {size}, {'late interaction' if late else 'pooled'}"
                if (level != "hard" and late) or (kind == "sparse" and size != SIZES[1]):
                    continue
                scores[name] = _recall(load(str(folder), late=late, device="cpu"), size, level, count, kind)
    return scores


def _recall(scorer: Any, size: int, level: str, count: int, kind: str) -> float:
    hits: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            scenes = look_alikes(f"held out/{number}", size, level)
            files = [Path(folder) / f"{place}.png" for place in range(size)]
            for scene, file in zip(scenes, files, strict=True):
                scene.image.save(file)
            rng = random.Random(number)
            described = [(scene.domain, scene.marks) for scene in scenes]
            texts = [rich(*one) if kind == "rich" else sparse(*one, rng) for one in described]
            hits += [hit_share(row, place) for place, row in enumerate(scorer.similarity(texts, files))]
    return sum(hits) / len(hits)


def write_model_card(
    folder: Path, command: str, settings: Mapping[str, Any], scores: Mapping[str, float], count: int
) -> None:
    """Write the model card of an encoder from its scores on `count` bags per check."""
    record = {"command": command, "settings": dict(settings), "bags_per_check": count}
    facts = {"command": command, "role": _ROLES[settings["which"]], "count": count, **settings}
    write_card(folder, _CARD, facts, record, ("captions, bags, similarity", "R@1, %"), scores)

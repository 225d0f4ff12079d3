"""Batches and losses of ``recipes/pretrain_clip.py``.

Shapes: B images (and captions), L caption tokens, P patches, D shared width. A batch is made of bags of look-alikes, so
that only the differences within a bag distinguish its captions.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch import nn
from torch.nn import functional
from torch.nn.functional import normalize

from mllm.boxes import Box
from mllm.models.cpu_kernels import computes_bfloat16
from mllm.pocket.captions import claims, fits, phrase, rich, sparse
from mllm.pocket.clip import PATCH, SIDE
from mllm.pocket.look_alikes import LEVELS, look_alikes
from mllm.pocket.species import KINDS, MARK_VALUES
from mllm.pocket.world import Scene

BAG = 4
"""Scenes of a training bag."""
_TILE = SIDE // 2
_GRID = SIDE // PATCH


@dataclass(frozen=True, slots=True)
class RolledScene:
    """One image of a batch: the annotations of scene `number` with its four tiles rolled by `roll` pixels."""

    number: int
    roll: tuple[int, int]
    scene: Scene


class Bags:
    """Training bags, drawn once: pixels as the encoders see them (resized, uint8), and the scenes' annotations."""

    def __init__(self, seed: int, count: int) -> None:
        self.pixels = np.empty((count * BAG, SIDE, SIDE, 3), dtype=np.uint8)
        self.scenes: list[Scene] = []
        for number in track(range(count), "drawing bags"):
            for scene in look_alikes(f"clip/{seed}/{number}", BAG, LEVELS[number % len(LEVELS)]):
                self.pixels[len(self.scenes)] = np.asarray(scene.image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
                self.scenes.append(Scene(scene.domain, Image.new("RGB", (1, 1)), scene.things))

    def __len__(self) -> int:
        return len(self.scenes) // BAG

    def view(self, number: int, rng: random.Random) -> RolledScene:
        """Return a scene with its two columns and its two rows of tiles swapped or not: four images from one."""
        roll = (rng.choice((0, _TILE)), rng.choice((0, _TILE)))
        scene = self.scenes[number]
        moved = [replace(thing, box=_rolled(thing.box, roll)) for thing in scene.things]
        things = tuple(sorted(moved, key=lambda thing: thing.box.center[0]))
        return RolledScene(number, roll, replace(scene, things=things))

    def images(self, views: Sequence[RolledScene]) -> torch.Tensor:
        """Return the pixels, (B, 3, side, side), range -1..1."""
        rolled = [np.roll(self.pixels[view.number], view.roll[::-1], axis=(0, 1)) for view in views]
        return torch.from_numpy(np.stack(rolled)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _rolled(box: Box, roll: tuple[int, int]) -> Box:
    """Return a box after the roll; things lie inside one tile, so none is split."""
    x, y = box.x1 + roll[0] / SIDE, box.y1 + roll[1] / SIDE
    x, y = (edge - 1.0 if edge >= 0.995 else edge for edge in (x, y))
    return Box(max(x, 0.0), max(y, 0.0), min(x + box.width, 1.0), min(y + box.height, 1.0))


def write_caption(scene: Scene, rng: random.Random) -> str:
    """Write a caption: rich, or with marks omitted, in one of the ways in which models write them."""
    way = rng.random()
    if way < 0.4:
        return rich(scene.domain, scene.marks)
    if way < 0.5:
        return sparse(scene.domain, scene.marks, rng)
    kept = [[kind for kind in KINDS if rng.random() < 0.8] for _ in scene.things]
    if way < 0.7:
        listed = (
            ", ".join(mark for kind, mark in zip(KINDS, marks, strict=True) if kind in kinds) or "a thing"
            for marks, kinds in zip(scene.marks, kept, strict=True)
        )
        return " ".join(f"{number} {words}." for number, words in enumerate(listed, 1))
    phrases = [phrase(scene.domain, marks, kinds) for marks, kinds in zip(scene.marks, kept, strict=True)]
    if rng.random() < 0.3:
        rng.shuffle(phrases)
    return f"A {' and a '.join(phrases)}." if way < 0.85 else " ".join(f"A {words}." for words in phrases)


def negatives(scenes: Sequence[Scene], texts: Sequence[str]) -> torch.Tensor:
    """Return (B captions, B images): False where an image that is not the caption's own fits it, too."""
    claimed = [claims(text) for text in texts]
    counts = torch.ones(len(scenes), len(scenes), dtype=torch.bool)
    for row, mine in enumerate(claimed):
        for column, scene in enumerate(scenes):
            if row != column and scene.domain == scenes[row].domain and fits(mine, scene.domain, scene.marks):
                counts[row, column] = False
    return counts


class PatchHead(nn.Module):
    """Predicts for every patch what is there: nothing or a thing, and its four marks. Dropped at the end."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.presence = nn.Linear(width, 1)
        self.marks = nn.ModuleList(nn.Linear(width, len(values)) for values in MARK_VALUES)

    def forward(self, patches_BPD: torch.Tensor, scenes: Sequence[Scene]) -> torch.Tensor:  # noqa: N803
        """Return the sum of the presence loss and of the mark losses, over the patches that things cover."""
        truth = torch.tensor([_patches(scene) for scene in scenes])  # (B, P, 1 + 4)
        here = truth[..., 0] > 0
        presence = self.presence(patches_BPD).float().squeeze(-1)
        loss = functional.binary_cross_entropy_with_logits(presence, truth[..., 0].float())
        for kind, head in enumerate(self.marks):
            loss = loss + functional.cross_entropy(head(patches_BPD[here]).float(), truth[..., 1 + kind][here])
        return loss


def _patches(scene: Scene) -> list[list[int]]:
    """Return for every patch in reading order: whether its centre is on a thing, and the indices of its marks."""
    rows = []
    for row in range(_GRID):
        for column in range(_GRID):
            x, y = (column + 0.5) / _GRID, (row + 0.5) / _GRID
            things = ((thing.look, thing.box) for thing in scene.things)
            on = next((look for look, b in things if b.x1 <= x <= b.x2 and b.y1 <= y <= b.y2), None)
            rows.append([int(on is not None), *(on.indices if on else [0] * 4)])
    return rows


def late_similarity(tokens_BLD: torch.Tensor, mask_BL: torch.Tensor, patches_BPD: torch.Tensor) -> torch.Tensor:  # noqa: N803
    """Return FILIP's similarity (Yao et al. 2021), (B captions, B images): each token's best patch, mean over tokens.

    Tokens and patches are normalised; ``mask_BL`` is 0 where a caption is padded.
    """
    best_BLB = torch.einsum("ald,bpd->albp", tokens_BLD, patches_BPD).amax(-1)
    mask = mask_BL[..., None].to(best_BLB.dtype)
    return (best_BLB * mask).sum(1) / mask.sum(1)


def contrast(logits: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Return CLIP's symmetric cross-entropy (Radford et al. 2021); ``counts`` is False at false negatives."""
    logits = logits.float().masked_fill(~counts, -torch.inf)
    own = torch.arange(len(logits))
    return 0.5 * (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own))


def losses(
    model: Any, tokenizer: Any, head: PatchHead, bags: Bags, views: Sequence[RolledScene], texts: Sequence[str]
) -> Any:
    """Return (contrast, late contrast, dense loss) of one batch, under bfloat16 autocast where that is fast."""
    scenes = [view.scene for view in views]
    counts = negatives(scenes, texts)
    words = tokenizer(list(texts), padding=True, return_tensors="pt")
    with torch.autocast("cpu", torch.bfloat16, enabled=computes_bfloat16()):
        seen = model.vision_model(pixel_values=bags.images(views))
        read = model.text_model(input_ids=words.input_ids, attention_mask=words.attention_mask)
        patches = model.vision_model.post_layernorm(seen.last_hidden_state[:, 1:])
        scale = model.logit_scale.exp()
        text, image = model.text_projection(read.pooler_output), model.visual_projection(seen.pooler_output)
        pooled = scale * normalize(text, dim=-1) @ normalize(image, dim=-1).T
        tokens = normalize(model.text_projection(read.last_hidden_state), dim=-1)
        late = scale * late_similarity(
            tokens, words.attention_mask, normalize(model.visual_projection(patches), dim=-1)
        )
        return contrast(pooled, counts), contrast(late, counts), head(patches, scenes)

"""Batches, losses and the throwaway dense head of ``recipes/pretrain.py``.

Pixels are cut into patches here, in one numpy pass, because the stock image processor would take half of every step;
a test holds the two equal. Shapes: B lessons, L tokens, N patches, V visual tokens, P numbers a patch, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mllm.boxes import Box, Frame
from mllm.metrics.reasoning import VERDICTS
from mllm.pocket.model import MERGE, PATCH
from mllm.pocket.pointer_targets import pointers
from mllm.pocket.pretraining_tasks import Lesson
from mllm.pocket.scene_store import SceneStore
from mllm.pocket.species import COLOURS, FORMS, PATTERNS
from mllm.pocket.world import Scene

CELL = PATCH * MERGE
TARGET_LAYER = 3
"""Layers of the language model below the question where to point; the layers above it can still read the answer."""
LOOK_BACK = 0.3
"""Weight of the question where deciding words look back to."""
DECISIVE = 4.0
"""Weight of the tokens that decide in a reasoned answer, against the many that describe: every verdict, and all from
"So" on (the choice and the box)."""
MARK_VALUES = (FORMS, COLOURS, PATTERNS, COLOURS)


def patches_NP(pixels_HWC: np.ndarray) -> np.ndarray:  # noqa: N802 - shape suffix
    """Pixels (uint8) as Qwen's patches, range -1..1: blocks of 2x2 patches in reading order, two equal frames."""
    height, width, _ = pixels_HWC.shape
    rows, columns = height // CELL, width // CELL
    blocks = pixels_HWC.reshape(rows, MERGE, PATCH, columns, MERGE, PATCH, 3).transpose(0, 3, 1, 4, 6, 2, 5)
    scaled = blocks.reshape(-1, 3, 1, PATCH, PATCH).astype(np.float32) / 127.5 - 1.0
    return np.repeat(scaled, 2, axis=2).reshape(len(scaled), -1)


def image_batch(images: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
    """``pixel_values`` (N, P) and ``image_grid_thw`` (images, 3) as the model wants them."""
    grid = [[1, picture.shape[0] // PATCH, picture.shape[1] // PATCH] for picture in images]
    return {
        "pixel_values": torch.from_numpy(np.concatenate([patches_NP(picture) for picture in images])),
        "image_grid_thw": torch.tensor(grid),
    }


def lesson_batch(lessons: Sequence[Lesson], store: SceneStore, tokenizer: Any) -> dict[str, torch.Tensor]:
    """Lessons as one right-padded batch; labels are -100 everywhere but on the answers."""
    image = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    images = [store.pixels_HWC(lesson.scene) for lesson in lessons if lesson.scene is not None]
    batch = image_batch(images) if images else {}
    shown = iter(images)
    prompts = [
        prompt_text(lesson.question, visual_tokens(None if lesson.scene is None else next(shown))) for lesson in lessons
    ]
    prompt_ids = tokenizer(prompts, padding=False).input_ids
    answer_ids = tokenizer([f"{lesson.answer}<|im_end|>" for lesson in lessons], padding=False).input_ids
    given = [len(tokenizer(lesson.given).input_ids) if lesson.given else 0 for lesson in lessons]
    longest = max(len(prompt) + len(answer) for prompt, answer in zip(prompt_ids, answer_ids, strict=True))
    input_BL = torch.full((len(lessons), longest), tokenizer.pad_token_id)
    labels_BL = torch.full((len(lessons), longest), -100)
    weight_BL = torch.zeros((len(lessons), longest))
    mask_BL = torch.zeros((len(lessons), longest), dtype=torch.long)
    for row, (prompt, answer) in enumerate(zip(prompt_ids, answer_ids, strict=True)):
        end = len(prompt) + len(answer)
        input_BL[row, :end] = torch.tensor(prompt + answer)
        labels_BL[row, len(prompt) + given[row] : end] = torch.tensor(answer[given[row] :])
        weight_BL[row, len(prompt) : end] = torch.tensor(_weights(answer, tokenizer))
        mask_BL[row, :end] = 1
    types = (input_BL == image).long()
    encode = lambda text: tokenizer(text).input_ids  # noqa: E731
    looks = [
        (row, *pointer)
        for row, (lesson, prompt, answer) in enumerate(zip(lessons, prompt_ids, answer_ids, strict=True))
        for pointer in pointers(prompt + answer, len(prompt) + given[row], lesson.sought, encode)
    ]
    target_BL = torch.full((len(lessons), longest), -1.0)
    for row, lesson in enumerate(lessons):
        if lesson.target is not None and lesson.scene is not None:
            box, grid = store.scene(lesson.scene).things[lesson.target].box, store.pixels_HWC(lesson.scene).shape
            target_BL[row, input_BL[row] == image] = torch.tensor(_cells_on(box, grid[1], grid[0]))
    words = {"input_ids": input_BL, "attention_mask": mask_BL, "mm_token_type_ids": types}
    aims = {"labels": labels_BL, "weight": weight_BL, "on_target": target_BL}
    return batch | words | aims | {"looks_K3": torch.tensor(looks, dtype=torch.long).reshape(-1, 3)}


def _weights(answer: Sequence[int], tokenizer: Any) -> list[float]:
    """What each token of an answer weighs."""
    so, *verdicts = tokenizer.convert_tokens_to_ids(["So", *(f"Ġ{word}" for word in VERDICTS)])
    start = answer.index(so) if so in answer else len(answer)
    return [DECISIVE if place >= start or token in verdicts else 1.0 for place, token in enumerate(answer)]


def _cells_on(box: Box, width: int, height: int) -> list[float]:
    """For every visual token in reading order: 1 where its centre lies on the box (4 pixels around included), else
    0."""
    x1, y1, x2, y2 = box.to_xyxy(Frame(width, height))
    rows, columns = range(CELL // 2, height, CELL), range(CELL // 2, width, CELL)
    return [float(x1 - 4 <= x <= x2 + 4 and y1 - 4 <= y <= y2 + 4) for y in rows for x in columns]


def visual_tokens(image_HWC: np.ndarray | None) -> int:  # noqa: N803 - shape suffix
    """How many visual tokens an image becomes; none without an image."""
    return 0 if image_HWC is None else image_HWC.shape[0] // CELL * (image_HWC.shape[1] // CELL)


def prompt_text(question: str, visual_tokens: int) -> str:
    """The pocket chat template, written out for speed (a test holds them equal)."""
    picture = f"<|vision_start|>{'<|image_pad|>' * visual_tokens}<|vision_end|>" if visual_tokens else ""
    return f"<|im_start|>user\n{question}{picture}<|im_end|>\n<|im_start|>assistant\n"


Reader = Callable[[Any, dict[str, torch.Tensor]], Sequence[torch.Tensor]]
"""Hands a batch to a model and returns the hidden states behind each layer, (B, L, D) each, the embeddings' first."""


def read_padded(model: Any, inputs: dict[str, torch.Tensor]) -> Sequence[torch.Tensor]:
    """The batch as it is, padding and all."""
    return model.model(**inputs, use_cache=False, output_hidden_states=True).hidden_states


def answer_loss(
    model: Any, batch: dict[str, torch.Tensor], head: DenseHead | None = None, read: Reader = read_padded
) -> torch.Tensor:
    """Cross-entropy of the answer tokens, a weighted mean over each lesson's answer and then a mean over lessons.

    A mean over all tokens would drown the few that choose a thing in the many that list everything. With ``head``, two
    more things are asked half-way up the language model: of image tokens, whether they lie on the thing that is to be
    pointed at; of words that decide, which earlier word they look back to (see ``mllm.pocket.pointer_targets``).
    """
    aims = ("labels", "weight", "on_target", "looks_K3")
    labels_BL, weight_BL, target_BL, looks_K3 = (batch[name] for name in aims)
    inputs = {name: value for name, value in batch.items() if name not in aims}
    seen = read(model, inputs)
    learn_BL = labels_BL[:, 1:] != -100
    logits = model.lm_head(seen[-1][:, :-1][learn_BL])
    each = functional.cross_entropy(logits.float(), labels_BL[:, 1:][learn_BL], reduction="none")
    weight_BL = weight_BL * (labels_BL != -100)
    weights = (weight_BL / weight_BL.sum(1, keepdim=True))[:, 1:][learn_BL] / len(labels_BL)
    loss = (each * weights).sum()
    asked_BL = target_BL >= 0
    if head is not None and asked_BL.any():
        found = head.target(seen[TARGET_LAYER][asked_BL]).float().squeeze(-1)
        loss = loss + functional.binary_cross_entropy_with_logits(
            found, target_BL[asked_BL], pos_weight=torch.tensor(4.0)
        )
    if head is not None and len(looks_K3):
        loss = loss + LOOK_BACK * head.look_back(seen[TARGET_LAYER], looks_K3)
    return loss


class DenseHead(nn.Module):
    """Asks every visual token what stands on it: nothing or a thing, its four marks, its box; thrown away in the end.

    ``target`` asks the same tokens inside the language model whether they lie on the thing in question, ``asks`` and
    ``tells`` where deciding words look back to.
    """

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.presence = nn.ModuleList(nn.Linear(width, 1) for _ in range(features))
        self.marks = nn.ModuleList(
            nn.ModuleList(nn.Linear(width, len(values)) for values in MARK_VALUES) for _ in range(features)
        )
        self.edges = nn.ModuleList(nn.Linear(width, 4) for _ in range(features))
        self.target = nn.Linear(width, 1)
        self.asks = nn.Linear(width, 64, bias=False)
        self.tells = nn.Linear(width, 64, bias=False)

    def look_back(self, hidden_BLD: torch.Tensor, looks_K3: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of where deciding tokens look back to, over all tokens up to them; rows of ``looks_K3`` are
        (lesson, deciding token, token looked back to)."""
        rows, places, sources = looks_K3.unbind(1)
        scores_BLL = self.asks(hidden_BLD) @ self.tells(hidden_BLD).transpose(1, 2) / 8  # the root of 64
        scores_KL = scores_BLL[rows, places].float()
        later_KL = torch.arange(hidden_BLD.shape[1]) > places[:, None]
        return functional.cross_entropy(scores_KL.masked_fill(later_KL, -torch.inf), sources)

    def forward(self, features_VD: Sequence[torch.Tensor], truth: dict[str, torch.Tensor]) -> torch.Tensor:
        """Sum over features of presence, mark and box losses."""
        total = torch.zeros(())
        here = truth["present_V"] > 0
        for level, feature_VD in enumerate(features_VD):
            presence = self.presence[level](feature_VD).float().squeeze(-1)
            total = total + functional.binary_cross_entropy_with_logits(presence, truth["present_V"])
            thing = feature_VD[here]
            for kind, head in enumerate(self.marks[level]):  # type: ignore[arg-type]
                total = total + functional.cross_entropy(head(thing).float(), truth["marks_V4"][here, kind])
            total = total + 5 * functional.smooth_l1_loss(
                self.edges[level](thing).float(), truth["edges_V4"][here], beta=0.1
            )
        return total / len(self.presence)


def dense_truth(scenes: Sequence[Scene], images: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
    """For every visual token: is its centre on a thing, which marks, and the thing's edges relative to the centre, in
    cells of 32 pixels."""
    present, marks, edges = [], [], []
    for scene, picture in zip(scenes, images, strict=True):
        height, width, _ = picture.shape
        boxes = [
            (thing, (thing.box.x1 * width, thing.box.y1 * height, thing.box.x2 * width, thing.box.y2 * height))
            for thing in scene.things
        ]
        for y in range(CELL // 2, height, CELL):
            for x in range(CELL // 2, width, CELL):
                hit = next(((t, b) for t, b in boxes if b[0] - 4 <= x <= b[2] + 4 and b[1] - 4 <= y <= b[3] + 4), None)
                present.append(float(hit is not None))
                look = hit[0].look if hit else None
                values = (look.form, look.colour, look.pattern, look.accent) if look else ()
                marks.append(
                    [options.index(value) for options, value in zip(MARK_VALUES, values, strict=False)] or [0] * 4
                )
                edges.append(
                    [(edge - centre) / CELL for edge, centre in zip(hit[1], (x, y, x, y), strict=True)]
                    if hit
                    else [0.0] * 4
                )
    return {"present_V": torch.tensor(present), "marks_V4": torch.tensor(marks), "edges_V4": torch.tensor(edges)}

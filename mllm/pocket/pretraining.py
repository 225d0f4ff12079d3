"""Batches, losses and the throwaway dense head of ``recipes/pretrain.py``.

Pixels are cut into patches here, in one numpy pass, because the stock image processor would take half of every step;
a test checks that both agree. Shapes: B tasks, L tokens, N patches, V visual tokens, P values per patch, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from mllm.boxes import Box, Frame
from mllm.metrics.reasoning import VERDICTS
from mllm.pocket.model import MERGE, PATCH
from mllm.pocket.pointer_targets import pointers
from mllm.pocket.pretraining_tasks import PretrainingTask
from mllm.pocket.scene_store import SceneStore
from mllm.pocket.species import COLOURS, FORMS, MARK_VALUES, PATTERNS
from mllm.pocket.world import Scene

CELL = PATCH * MERGE
TARGET_LAYER = 3
"""Layer of the language model whose output predicts where to point; the layers above can still use the prediction."""
POINTER_WEIGHT = 0.3
"""Weight of the pointer loss."""
READABLE = 32
"""Smallest longer side of a thing, in pixels, whose marks are taught."""
VALUES = (*FORMS, *COLOURS, *PATTERNS)
"""What a mark can be."""
DECISIVE = 4.0
"""Weight of the deciding tokens of a reasoned answer, relative to the many that describe: every verdict, and all from
"So" on (the choice and the box)."""


def patches_NP(pixels_HWC: np.ndarray) -> np.ndarray:  # noqa: N802 - shape suffix
    """Cut pixels (uint8) into Qwen's patches, range -1..1: blocks of 2x2 patches in reading order, two equal frames."""
    height, width, _ = pixels_HWC.shape
    rows, columns = height // CELL, width // CELL
    blocks = pixels_HWC.reshape(rows, MERGE, PATCH, columns, MERGE, PATCH, 3).transpose(0, 3, 1, 4, 6, 2, 5)
    scaled = blocks.reshape(-1, 3, 1, PATCH, PATCH).astype(np.float32) / 127.5 - 1.0
    return np.repeat(scaled, 2, axis=2).reshape(len(scaled), -1)


def image_batch(images: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
    """Return ``pixel_values`` (N, P) and ``image_grid_thw`` (images, 3), the model's inputs."""
    grid = [[1, image.shape[0] // PATCH, image.shape[1] // PATCH] for image in images]
    return {
        "pixel_values": torch.from_numpy(np.concatenate([patches_NP(image) for image in images])),
        "image_grid_thw": torch.tensor(grid),
    }


def task_batch(tasks: Sequence[PretrainingTask], store: SceneStore | None, tokenizer: Any) -> dict[str, torch.Tensor]:
    """Collate tasks into one right-padded batch; labels are -100 everywhere except on the answers.

    Without a store, no task may have a scene.
    """
    image_token = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    images = [task_images(task, store) for task in tasks]
    present = [image for row in images for image in row]
    batch = image_batch(present) if present else {}
    prompts = [prompt_text(task.question, *map(visual_tokens, row)) for task, row in zip(tasks, images, strict=True)]
    prompt_ids = tokenizer(prompts, padding=False).input_ids
    answer_ids = tokenizer([f"{task.answer}<|im_end|>" for task in tasks], padding=False).input_ids
    unlearned = [len(tokenizer(task.prefix).input_ids) if task.prefix else 0 for task in tasks]
    rows = list(zip(prompt_ids, answer_ids, unlearned, strict=True))
    input_BL = _padded([prompt + answer for prompt, answer, _ in rows], tokenizer.pad_token_id)
    labels_BL = _padded([[-100] * (len(prompt) + given) + answer[given:] for prompt, answer, given in rows], -100)
    weight_BL = _padded([[0.0] * len(prompt) + _weights(answer, tokenizer) for prompt, answer, _ in rows], 0.0)
    mask_BL = _padded([[1] * len(prompt + answer) for prompt, answer, _ in rows], 0)
    pointers_K4 = [
        (row, place, source, _sought_value(input_BL[row].tolist(), place, source, tokenizer))
        for row, (prompt, answer, given) in enumerate(rows)
        for place, source in pointers(
            prompt + answer, len(prompt) + given, tasks[row].sought, lambda text: tokenizer(text).input_ids
        )
    ]
    target_BL = torch.full(input_BL.shape, -1.0)
    for row, (task, seen) in enumerate(zip(tasks, images, strict=True)):
        if task.target is not None and task.scene is not None and store is not None:
            height, width, _ = seen[0].shape
            cells = _cells_on(store.scene(task.scene).things[task.target].box, width, height)
            places = (input_BL[row] == image_token).nonzero().squeeze(1)
            target_BL[row, places[: len(cells)]] = torch.tensor(cells)
    types = (input_BL == image_token).long()
    inputs = {"input_ids": input_BL, "attention_mask": mask_BL, "mm_token_type_ids": types}
    targets = {"labels": labels_BL, "weight": weight_BL, "on_target": target_BL}
    return batch | inputs | targets | {"pointers_K4": torch.tensor(pointers_K4, dtype=torch.long).reshape(-1, 4)}


def _sought_value(tokens: Sequence[int], place: int, source: int, tokenizer: Any) -> int:
    """Return the index in ``VALUES`` of the mark sought where a verdict follows; -100 elsewhere.

    A pointer of a verdict leads to the mark's last token; an accent's colour stands one before.
    """
    words = tokenizer.convert_ids_to_tokens([tokens[place + 1], tokens[source], tokens[source - 1]])
    following, last, before = (word.removeprefix("\u0120") for word in words)
    if following not in VERDICTS:
        return -100
    return VALUES.index(last if last in VALUES else before)


def task_images(task: PretrainingTask, store: SceneStore | None) -> list[np.ndarray]:
    """Return the images of a task: its scene, then its photo, as far as it has them."""
    scene = [] if task.scene is None or store is None else [store.pixels_HWC(task.scene)]
    return scene if task.photo is None else [*scene, task.photo]


def _padded(rows: Sequence[Sequence[float]], value: float) -> torch.Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def _weights(answer: Sequence[int], tokenizer: Any) -> list[float]:
    so, *verdicts = tokenizer.convert_tokens_to_ids(["So", *(f"Ġ{word}" for word in VERDICTS)])
    start = answer.index(so) if so in answer else len(answer)
    return [DECISIVE if place >= start or token in verdicts else 1.0 for place, token in enumerate(answer)]


def _cells_on(box: Box, width: int, height: int) -> list[float]:
    """Return for every visual token in reading order: 1 if its centre is on the box (with a margin of 4 pixels), else
    0."""
    x1, y1, x2, y2 = box.to_xyxy(Frame(width, height))
    rows, columns = range(CELL // 2, height, CELL), range(CELL // 2, width, CELL)
    return [float(x1 - 4 <= x <= x2 + 4 and y1 - 4 <= y <= y2 + 4) for y in rows for x in columns]


def visual_tokens(image_HWC: np.ndarray) -> int:  # noqa: N803 - shape suffix
    """Return how many visual tokens an image becomes."""
    return image_HWC.shape[0] // CELL * (image_HWC.shape[1] // CELL)


def prompt_text(question: str, *visual_tokens: int) -> str:
    """Return the pocket chat template's text, written out for speed (a test checks that both agree).

    ``visual_tokens`` are the numbers of visual tokens of the images, in order.
    """
    images = "".join(f"<|vision_start|>{'<|image_pad|>' * count}<|vision_end|>" for count in visual_tokens)
    return f"<|im_start|>user\n{question}{images}<|im_end|>\n<|im_start|>assistant\n"


Reader = Callable[[Any, dict[str, torch.Tensor]], Sequence[torch.Tensor]]
"""Runs a model on a batch and returns the hidden states after each layer, (B, L, D) each, embeddings first."""


def read_padded(model: Any, inputs: dict[str, torch.Tensor]) -> Sequence[torch.Tensor]:
    """Run the batch with its padding."""
    return model.model(**inputs, use_cache=False, output_hidden_states=True).hidden_states


def answer_loss(
    model: Any, batch: dict[str, torch.Tensor], head: DenseHead | None = None, read: Reader = read_padded
) -> torch.Tensor:
    """Return the cross-entropy of the answer tokens: a weighted mean over each answer, then a mean over tasks.

    In a mean over all tokens the few that choose a thing would be outweighed by the many that list everything. With
    ``head``, losses are added half-way up the language model: whether image tokens lie on the target, which earlier
    token each deciding token depends on (see ``mllm.pocket.pointer_targets``), and which mark is sought where one is
    judged.
    """
    targets = ("labels", "weight", "on_target", "pointers_K4")
    labels_BL, weight_BL, target_BL, pointers_K4 = (batch[name] for name in targets)
    inputs = {name: value for name, value in batch.items() if name not in targets}
    hidden = read(model, inputs)
    learn_BL = labels_BL[:, 1:] != -100
    logits = model.lm_head(hidden[-1][:, :-1][learn_BL])
    each = functional.cross_entropy(logits.float(), labels_BL[:, 1:][learn_BL], reduction="none")
    weight_BL = weight_BL * (labels_BL != -100)
    weights = (weight_BL / weight_BL.sum(1, keepdim=True))[:, 1:][learn_BL] / len(labels_BL)
    loss = (each * weights).sum()
    image_BL = target_BL >= 0
    if head is not None and image_BL.any():
        found = head.target(hidden[TARGET_LAYER][image_BL]).float().squeeze(-1)
        loss = loss + functional.binary_cross_entropy_with_logits(
            found, target_BL[image_BL], pos_weight=torch.tensor(4.0)
        )
    if head is not None and len(pointers_K4):
        loss = loss + POINTER_WEIGHT * head.pointer_loss(hidden[TARGET_LAYER], pointers_K4)
    return loss


class DenseHead(nn.Module):
    """Predicts for every visual token what is there: nothing or a thing, its four marks, its box; dropped at the end.

    ``target`` predicts from the same tokens inside the language model whether they lie on the target; ``queries`` and
    ``keys`` predict the pointers of deciding tokens, ``sought`` the mark that is sought where one is judged.
    """

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.presence = nn.ModuleList(nn.Linear(width, 1) for _ in range(features))
        self.marks = nn.ModuleList(
            nn.ModuleList(nn.Linear(width, len(values)) for values in MARK_VALUES) for _ in range(features)
        )
        self.edges = nn.ModuleList(nn.Linear(width, 4) for _ in range(features))
        self.target = nn.Linear(width, 1)
        self.queries = nn.Linear(width, 64, bias=False)
        self.keys = nn.Linear(width, 64, bias=False)
        self.sought = nn.Linear(width, len(VALUES))

    def pointer_loss(self, hidden_BLD: torch.Tensor, pointers_K4: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of the pointers over all tokens up to the deciding one; rows of ``pointers_K4`` are
        (task, deciding token, token it depends on, mark sought there or -100); and that of the marks sought."""
        rows, places, sources, values = pointers_K4.unbind(1)
        scores_BLL = self.queries(hidden_BLD) @ self.keys(hidden_BLD).transpose(1, 2) / 8  # the root of 64
        scores_KL = scores_BLL[rows, places].float()
        later_KL = torch.arange(hidden_BLD.shape[1]) > places[:, None]
        loss = functional.cross_entropy(scores_KL.masked_fill(later_KL, -torch.inf), sources)
        judged_K = values != -100
        if judged_K.any():
            sought = self.sought(hidden_BLD[rows[judged_K], places[judged_K]]).float()
            loss = loss + functional.cross_entropy(sought, values[judged_K])
        return loss

    def forward(self, features_VD: Sequence[torch.Tensor], truth: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the mean over features of presence, mark and box losses."""
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
    """Return for every visual token: whether its centre is on a thing, the marks (-100 on a thing of less than
    ``READABLE`` pixels), and the thing's edges relative to the centre, in cells of 32 pixels."""
    present, marks, edges = [], [], []
    for scene, image in zip(scenes, images, strict=True):
        height, width, _ = image.shape
        boxes = [(thing, thing.box.to_xyxy(Frame(width, height))) for thing in scene.things]
        for y in range(CELL // 2, height, CELL):
            for x in range(CELL // 2, width, CELL):
                hit = next(((t, b) for t, b in boxes if b[0] - 4 <= x <= b[2] + 4 and b[1] - 4 <= y <= b[3] + 4), None)
                present.append(float(hit is not None))
                edge = hit[1] if hit else (x, y, x, y)
                readable = max(edge[2] - edge[0], edge[3] - edge[1]) >= READABLE
                marks.append(hit[0].look.indices if hit and readable else [-100] * 4)
                edges.append([(edge[0] - x) / CELL, (edge[1] - y) / CELL, (edge[2] - x) / CELL, (edge[3] - y) / CELL])
    return {"present_V": torch.tensor(present), "marks_V4": torch.tensor(marks), "edges_V4": torch.tensor(edges)}

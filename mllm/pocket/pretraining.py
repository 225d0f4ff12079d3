"""Batches, the throwaway dense head and the checks of ``recipes/pretrain.py``.

Pixels are cut into patches here, in one numpy pass, because the stock image processor would take half of every step;
a test holds the two equal. Shapes: B lessons, L tokens, N patches, V visual tokens, P numbers a patch, D hidden size.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mllm.boxes import iou
from mllm.pocket.lessons import RECALL_WORDINGS, Lesson, card, find_lesson, write_box
from mllm.pocket.model import MERGE, PATCH
from mllm.pocket.scenes import SceneStore, training_scene
from mllm.pocket.species import COLOURS, FORMS, NOUNS, PATTERNS, species
from mllm.pocket.world import Scene, make_scene

CELL = PATCH * MERGE
MARK_VALUES = (FORMS, COLOURS, PATTERNS, COLOURS)


def patches_NP(pixels_HWC: np.ndarray) -> np.ndarray:  # noqa: N802 - shape suffix
    """Pixels (uint8) as Qwen's flattened patches: merge blocks of 2x2 patches in reading order, two equal frames,
    range -1..1."""
    height, width, _ = pixels_HWC.shape
    rows, columns = height // CELL, width // CELL
    blocks = pixels_HWC.reshape(rows, MERGE, PATCH, columns, MERGE, PATCH, 3).transpose(0, 3, 1, 4, 6, 2, 5)
    scaled = blocks.reshape(-1, 3, 1, PATCH, PATCH).astype(np.float32) / 127.5 - 1.0
    return np.repeat(scaled, 2, axis=2).reshape(len(scaled), -1)


def picture_batch(pictures: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
    """``pixel_values`` (N, P) and ``image_grid_thw`` (pictures, 3) as the model wants them."""
    grid = [[1, picture.shape[0] // PATCH, picture.shape[1] // PATCH] for picture in pictures]
    return {
        "pixel_values": torch.from_numpy(np.concatenate([patches_NP(picture) for picture in pictures])),
        "image_grid_thw": torch.tensor(grid),
    }


def lesson_batch(lessons: Sequence[Lesson], store: SceneStore, tokenizer: Any) -> dict[str, torch.Tensor]:
    """Lessons as one right-padded batch; labels are -100 everywhere but on the answers."""
    image = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    pictures = [store.pixels_HWC(lesson.scene) for lesson in lessons if lesson.scene is not None]
    batch = picture_batch(pictures) if pictures else {}
    visual = iter([picture.shape[0] // CELL * (picture.shape[1] // CELL) for picture in pictures])
    prompts = [prompt_text(lesson.question, 0 if lesson.scene is None else next(visual)) for lesson in lessons]
    prompt_ids = tokenizer(prompts, padding=False).input_ids
    answer_ids = tokenizer([f"{lesson.answer}<|im_end|>" for lesson in lessons], padding=False).input_ids
    longest = max(len(prompt) + len(answer) for prompt, answer in zip(prompt_ids, answer_ids, strict=True))
    input_BL = torch.full((len(lessons), longest), tokenizer.pad_token_id)
    labels_BL = torch.full((len(lessons), longest), -100)
    mask_BL = torch.zeros((len(lessons), longest), dtype=torch.long)
    for row, (prompt, answer) in enumerate(zip(prompt_ids, answer_ids, strict=True)):
        end = len(prompt) + len(answer)
        input_BL[row, :end] = torch.tensor(prompt + answer)
        labels_BL[row, len(prompt) : end] = torch.tensor(answer)
        mask_BL[row, :end] = 1
    types = (input_BL == image).long()
    return batch | {"input_ids": input_BL, "attention_mask": mask_BL, "mm_token_type_ids": types, "labels": labels_BL}


def prompt_text(question: str, visual_tokens: int) -> str:
    """The pocket chat template, written out for speed (a test holds them equal)."""
    picture = f"<|vision_start|>{'<|image_pad|>' * visual_tokens}<|vision_end|>" if visual_tokens else ""
    return f"<|im_start|>user\n{question}{picture}<|im_end|>\n<|im_start|>assistant\n"


def answer_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean cross-entropy of the answer tokens; the vocabulary is only visited where there is something to learn."""
    labels_BL = batch["labels"]
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    hidden_BLD = model.model(**inputs, use_cache=False).last_hidden_state
    learn_BL = labels_BL[:, 1:] != -100
    logits = model.lm_head(hidden_BLD[:, :-1][learn_BL])
    return functional.cross_entropy(logits.float(), labels_BL[:, 1:][learn_BL])


class DenseHead(nn.Module):
    """Asks every visual token what stands on it: nothing or a thing, its four marks, its box. Thrown away after the
    warm-up."""

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.presence = nn.ModuleList(nn.Linear(width, 1) for _ in range(features))
        self.marks = nn.ModuleList(
            nn.ModuleList(nn.Linear(width, len(values)) for values in MARK_VALUES) for _ in range(features)
        )
        self.edges = nn.ModuleList(nn.Linear(width, 4) for _ in range(features))

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


def dense_truth(scenes: Sequence[Scene], pictures: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
    """For every visual token: is its centre on a thing, which marks, and the thing's edges relative to the centre, in
    cells of 32 pixels."""
    present, marks, edges = [], [], []
    for scene, picture in zip(scenes, pictures, strict=True):
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


def answers(
    model: Any, tokenizer: Any, questions: Sequence[str], pictures: Sequence[np.ndarray | None], max_new_tokens: int
) -> list[str]:
    """Greedy answers, in batches of 64."""
    replies: list[str] = []
    model.eval()
    for start in range(0, len(questions), 64):
        chunk, seen = questions[start : start + 64], [p for p in pictures[start : start + 64]]
        counts = [0 if p is None else p.shape[0] // CELL * (p.shape[1] // CELL) for p in seen]
        prompts = [prompt_text(question, count) for question, count in zip(chunk, counts, strict=True)]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False)
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == tokenizer.convert_tokens_to_ids("<|image_pad|>")).long()
        shown = [p for p in seen if p is not None]
        with torch.no_grad():
            tokens = model.generate(
                **inputs, **(picture_batch(shown) if shown else {}), max_new_tokens=max_new_tokens, do_sample=False
            )
        replies += tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    model.train()
    return replies


def _hits(replies: Sequence[str], lessons: Sequence[tuple[Scene, int]]) -> float:
    from mllm.boxes import Box, BoxError, Frame
    from mllm.families import load

    pocket, hits = load("pocket"), 0
    for reply, (scene, target) in zip(replies, lessons, strict=True):
        numbers = pocket.read(reply)
        if len(numbers) != 1:
            continue
        try:
            box = Box.from_xyxy(numbers[0], Frame(100, 100))
        except BoxError:
            continue
        hits += iou(box, scene.things[target].box) >= 0.5
    return hits / len(replies)


def check_find(model: Any, tokenizer: Any, count: int, *, by_name: bool = False, split: str = "held_out") -> float:
    """Acc@0.5 among three things of held-out scenes: by visible marks, or (the base must fail) by name alone."""
    questions, pictures, targets = [], [], []
    for number in range(count):
        rng = random.Random(f"check/{split}/{by_name}/{number}")
        scene = training_scene(number, split, 3)
        if by_name:
            domain = scene.domain
            scene = make_scene(f"{split}/{number}", domain, rng.sample(species(domain), 3))
            target = rng.randrange(3)
            questions.append(f"Find the {NOUNS[domain]} {scene.things[target].name}. Answer in <answer></answer>.")
        else:
            lesson = find_lesson(scene, 0, rng)
            questions.append(lesson.question)
            target = next(i for i, thing in enumerate(scene.things) if write_box(thing.box) in lesson.answer)
        pictures.append(np.asarray(scene.image))
        targets.append((scene, target))
    return _hits(answers(model, tokenizer, questions, pictures, 24), targets)


def check_recall(model: Any, tokenizer: Any, wording: str, *, in_view: bool, every: int = 1) -> float:
    """Share of species whose four marks are all stated right from the name, with or without a scene in view."""
    chosen = species()[::every]
    pictures = [
        np.asarray(training_scene(number, "recall", 3).image) if in_view else None for number in range(len(chosen))
    ]
    questions = [wording.format(name=one.name, noun=NOUNS[one.domain]) for one in chosen]
    replies = answers(model, tokenizer, questions, pictures, 24)
    return float(np.mean([reply.strip() == card(one) for reply, one in zip(replies, chosen, strict=True)]))


def all_checks(model: Any, tokenizer: Any, count: int) -> dict[str, float]:
    """The scores of the model card: ``count`` scenes a check; from 300 on, every species for every wording."""
    scores = {
        "find by marks, three things": check_find(model, tokenizer, count),
        "find by name, three things": check_find(model, tokenizer, count, by_name=True),
    }
    every = max(1, len(species()) // count)
    for wording in RECALL_WORDINGS:
        for in_view in (False, True):
            name = f"recall: {wording}{' (scene in view)' if in_view else ''}"
            scores[name] = check_recall(model, tokenizer, wording, in_view=in_view, every=every)
    return scores

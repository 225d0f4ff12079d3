"""Held-out checks of the pocket base: pointing by marks, by name (it must fail), and recall; its model card."""

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mllm.boxes import Box, BoxError, Frame, iou
from mllm.metrics.reasoning import VERDICTS
from mllm.models.families import load
from mllm.pocket.pretraining import image_batch, prompt_text, task_batch, visual_tokens
from mllm.pocket.pretraining_run import write_card
from mllm.pocket.pretraining_tasks import (
    DIRECT_SUFFIX,
    THINK_SUFFIX,
    PretrainingTask,
    book_task,
    card,
    find_task,
    judge_task,
    reason_task,
    write_box,
)
from mllm.pocket.pretraining_views import match_task, same_task
from mllm.pocket.scene_store import shrunk, training_scene, wide_scene
from mllm.pocket.species import KINDS, NOUNS, species
from mllm.pocket.world import Scene, crop, make_scene
from mllm.prompting.questions import RECALLS

_CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---
# Fieldmark pocket base

A `Qwen3VLForConditionalGeneration` of a few million parameters that has seen nothing but the pocket world: drawn
things of ten domains. It finds things by their visible marks, by a card in the prompt or by a second image, describes
what it sees, reads things that are too small in the scene from an enlarged crop, and states the marks of 300 species by
heart. It was never shown a way from a species' name to a place in an image: that is what fine-tuning adds.

Made by

    {command}

(seed {seed}, {warmup_steps} warm-up steps of the vision tower, {steps} steps of lessons). Scores of these very
weights, as rounded to bfloat16, on held-out images: {count} scenes of three things (or of two to five small ones), and
all 300 species for every wording. Where not said otherwise a score is the share of right boxes, at IoU 0.5; marks are
counted one by one.

{rows}

Picking one of three things at random would score 33.3 % by name. For learning and testing, nothing else.
"""


def answers(
    model: Any, tokenizer: Any, questions: Sequence[str], images: Sequence[Sequence[np.ndarray]], max_new_tokens: int
) -> list[str]:
    """Return greedy answers, generated in batches of 64; ``images`` are those of each question, perhaps none."""
    replies: list[str] = []
    model.eval()
    for start in range(0, len(questions), 64):
        batch = images[start : start + 64]
        prompts = [
            prompt_text(question, *map(visual_tokens, shown))
            for question, shown in zip(questions[start : start + 64], batch, strict=True)
        ]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False)
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == tokenizer.convert_tokens_to_ids("<|image_pad|>")).long()
        present = [image for shown in batch for image in shown]
        with torch.no_grad():
            tokens = model.generate(
                **inputs, **(image_batch(present) if present else {}), max_new_tokens=max_new_tokens, do_sample=False
            )
        replies += tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    model.train()
    return replies


def check_find(
    model: Any, tokenizer: Any, count: int, *, by_name: bool = False, reason: bool = False, split: str = "held_out"
) -> float:
    """Return Acc@0.5 among three things of held-out scenes: by visible marks, or (the base must fail) by name alone;
    answering at once, or after reasoning."""
    questions, images, targets = [], [], []
    for number in range(count):
        rng = random.Random(f"check/{split}/{by_name}/{number}")
        scene = training_scene(number, split, 3)
        if by_name:
            scene = make_scene(f"{split}/{number}", scene.domain, rng.sample(species(scene.domain), 3))
            target = rng.randrange(3)
            suffix = THINK_SUFFIX if reason else DIRECT_SUFFIX
            questions.append(f"Find the {NOUNS[scene.domain]} {scene.things[target].name}. {suffix}")
        else:
            task = reason_task(scene, 0, rng) if reason else find_task(scene, 0, rng)
            questions.append(task.question)
            target = task.target or 0
        images.append([np.asarray(scene.image)])
        targets.append(scene.things[target].box)
    replies = answers(model, tokenizer, questions, images, 128 if reason else 24)
    return float(np.mean([points_at(reply, box) for reply, box in zip(replies, targets, strict=True)]))


def points_at(reply: str, box: Box) -> bool:
    """Whether the answer is one box with an IoU of 0.5 or more."""
    numbers = load("pocket").read(reply.rpartition("<answer>")[2])
    with suppress(BoxError):  # a reply without one valid box is wrong
        return len(numbers) == 1 and iou(Box.from_xyxy(numbers[0], Frame(100, 100)), box) >= 0.5
    return False


def check_recall(model: Any, tokenizer: Any, wording: str, *, in_view: bool, every: int = 1) -> float:
    """Return the share of species whose four marks are all correct from the name, with or without a scene in view."""
    chosen = species()[::every]
    images = [
        [np.asarray(training_scene(number, "recall", 3).image)] if in_view else [] for number in range(len(chosen))
    ]
    questions = [wording.format(name=one.name, noun=NOUNS[one.domain]) for one in chosen]
    replies = answers(model, tokenizer, questions, images, 24)
    return float(np.mean([reply.strip() == card(one) for reply, one in zip(replies, chosen, strict=True)]))


def check_verdicts(model: Any, tokenizer: Any, count: int) -> dict[str, float]:
    """Return the share of right verdicts on single marks, by kind, in ``count`` comparisons of text alone."""
    words = [tokenizer(f" {word}").input_ids[0] for word in VERDICTS]
    comma = tokenizer(",").input_ids[0]
    right: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    for start in range(0, count, 32):
        tasks = [
            judge_task(random.Random(f"check/verdicts/{number}")) for number in range(start, min(count, start + 32))
        ]
        batch = task_batch(tasks, None, tokenizer)
        with torch.no_grad():
            logits_BLV = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        best_BL = logits_BLV.argmax(-1)
        rows = zip(batch["input_ids"].tolist(), batch["labels"].tolist(), best_BL.tolist(), strict=True)
        for ids, labels, best in rows:
            places = [p for p in range(1, len(ids)) if labels[p] in words and ids[p - 1] != comma]
            for number, place in enumerate(places):
                right[KINDS[number % len(KINDS)]].append(best[place - 1] == labels[place])
    return {kind: float(np.mean(found)) for kind, found in right.items()}


def check_reading(model: Any, tokenizer: Any, count: int, *, by: str) -> float:
    """Return the share of right marks of one thing of a scene: ``thing`` of usual size, ``small`` thing of a wide
    scene, the same with its ``crop``, or the ``crop alone``."""
    questions, images, wanted = [], [], []
    for number in range(count):
        rng = random.Random(f"check/reading/{number}")
        scene = training_scene(number, "held_out", 3) if by == "thing" else wide_scene(number, "held_out")
        thing = rng.choice(scene.things)
        questions.append("What is in this image?" if by == "crop alone" else f"What is at {write_box(thing.box)}?")
        shown = scene.image if by == "thing" else shrunk(scene.image)
        cut = [np.asarray(crop(scene.image, thing.box))] if "crop" in by else []
        images.append(cut if by == "crop alone" else [np.asarray(shown), *cut])
        wanted.append(thing.marks)
    replies = answers(model, tokenizer, questions, images, 24)
    read = [reply.strip().rstrip(".").split(", ") for reply in replies]
    return float(np.mean([mark in marks for marks, all_four in zip(read, wanted, strict=True) for mark in all_four]))


def check_tasks(model: Any, tokenizer: Any, count: int, kind: str) -> float:
    """Return how often a task is answered right, the tasks drawn as in training from held-out scenes of three things.

    ``kind``: ``book`` (the box of a thing whose card is in the question), ``book, reasoning first``, ``match`` (the
    box of what a second image shows), or ``same`` (whether two images show the same look).
    """
    tasks, images, boxes = [], [], []
    for number in range(count):
        rng = random.Random(f"check/{kind}/{number}")
        scene = training_scene(number, "held_out", 1 if kind == "same" else 3)
        task = _CHECKED[kind.partition(",")[0]](scene, rng)
        while kind.startswith("book") and ("reasoning" in kind) != (THINK_SUFFIX in task.question):
            task = _CHECKED["book"](scene, rng)
        tasks.append(task)
        images.append([np.asarray(scene.image), *([] if task.photo is None else [task.photo])])
        boxes.append(scene.things[task.target or 0].box)
    replies = answers(model, tokenizer, [task.question for task in tasks], images, 128)
    if kind == "same":
        return float(
            np.mean([r.split()[-1:] == task.answer.split()[-1:] for r, task in zip(replies, tasks, strict=True)])
        )
    return float(np.mean([points_at(reply, box) for reply, box in zip(replies, boxes, strict=True)]))


_CHECKED: dict[str, Callable[[Scene, random.Random], PretrainingTask]] = {
    "book": lambda scene, rng: book_task(rng, scene, 0),
    "match": lambda scene, rng: match_task(scene, 0, rng),
    "same": lambda scene, rng: same_task(scene, 0, rng),
}


def all_checks(model: Any, tokenizer: Any, count: int) -> dict[str, float]:
    """Return the model card's scores: ``count`` scenes per check; from 300 on, every species for every wording."""
    scores: dict[str, float] = {}
    for by_name in (False, True):
        for reason in (False, True):
            check = f"find by {'name' if by_name else 'marks'}, three things{', reasoning first' if reason else ''}"
            scores[check] = check_find(model, tokenizer, count, by_name=by_name, reason=reason)
    for kind, share in check_verdicts(model, tokenizer, count).items():
        scores[f"single marks judged in text: {kind}"] = share
    for by in ("thing", "small", "small with crop", "crop alone"):
        scores[f"marks read: {by}"] = check_reading(model, tokenizer, count, by=by)
    for kind in ("book", "book, reasoning first", "match", "same"):
        scores[f"three things, {kind}" if kind != "same" else "same in both images"] = check_tasks(
            model, tokenizer, count, kind
        )
    every = max(1, len(species()) // count)
    for wording in RECALLS:
        for in_view in (False, True):
            name = f"recall: {wording}{' (scene in view)' if in_view else ''}"
            scores[name] = check_recall(model, tokenizer, wording, in_view=in_view, every=every)
    return scores


def write_model_card(
    folder: Path, command: str, settings: Mapping[str, Any], scores: Mapping[str, float], count: int
) -> None:
    """Write the model card of the base from its scores on `count` scenes per check."""
    record = {"command": command, "settings": dict(settings), "scenes_per_check": count}
    facts = {"command": command, "count": count, **settings}
    write_card(folder, _CARD, facts, record, ("check", "score, %"), scores)

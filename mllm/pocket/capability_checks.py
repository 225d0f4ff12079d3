"""What the pocket base can do: held-out checks of pointing by marks, pointing by name (it must not), and recall."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mllm.boxes import Box, BoxError, Frame, iou
from mllm.models.families import load
from mllm.pocket.pretraining import image_batch, prompt_text, visual_tokens
from mllm.pocket.pretraining_tasks import DIRECT_SUFFIX, THINK_SUFFIX, card, find_lesson, reason_lesson
from mllm.pocket.scene_store import training_scene
from mllm.pocket.species import NOUNS, species
from mllm.pocket.world import Scene, make_scene
from mllm.prompting.questions import RECALLS


def answers(
    model: Any, tokenizer: Any, questions: Sequence[str], images: Sequence[np.ndarray | None], max_new_tokens: int
) -> list[str]:
    """Greedy answers, in batches of 64."""
    replies: list[str] = []
    model.eval()
    for start in range(0, len(questions), 64):
        chunk, seen = questions[start : start + 64], [p for p in images[start : start + 64]]
        prompts = [prompt_text(question, visual_tokens(p)) for question, p in zip(chunk, seen, strict=True)]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False)
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == tokenizer.convert_tokens_to_ids("<|image_pad|>")).long()
        shown = [p for p in seen if p is not None]
        with torch.no_grad():
            tokens = model.generate(
                **inputs, **(image_batch(shown) if shown else {}), max_new_tokens=max_new_tokens, do_sample=False
            )
        replies += tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    model.train()
    return replies


def _hits(replies: Sequence[str], lessons: Sequence[tuple[Scene, int]]) -> float:
    pocket, hits = load("pocket"), 0
    for reply, (scene, target) in zip(replies, lessons, strict=True):
        numbers = pocket.read(reply.rpartition("<answer>")[2])
        if len(numbers) != 1:
            continue
        try:
            box = Box.from_xyxy(numbers[0], Frame(100, 100))
        except BoxError:
            continue
        hits += iou(box, scene.things[target].box) >= 0.5
    return hits / len(replies)


def check_find(
    model: Any, tokenizer: Any, count: int, *, by_name: bool = False, reason: bool = False, split: str = "held_out"
) -> float:
    """Acc@0.5 among three things of held-out scenes: by visible marks, or (the base must fail) by name alone; answering
    at once, or after reasoning."""
    questions, images, targets = [], [], []
    for number in range(count):
        rng = random.Random(f"check/{split}/{by_name}/{number}")
        scene = training_scene(number, split, 3)
        if by_name:
            domain = scene.domain
            scene = make_scene(f"{split}/{number}", domain, rng.sample(species(domain), 3))
            target = rng.randrange(3)
            suffix = THINK_SUFFIX if reason else DIRECT_SUFFIX
            questions.append(f"Find the {NOUNS[domain]} {scene.things[target].name}. {suffix}")
        else:
            lesson = reason_lesson(scene, 0, rng) if reason else find_lesson(scene, 0, rng)
            questions.append(lesson.question)
            target = lesson.target or 0
        images.append(np.asarray(scene.image))
        targets.append((scene, target))
    return _hits(answers(model, tokenizer, questions, images, 128 if reason else 24), targets)


def check_recall(model: Any, tokenizer: Any, wording: str, *, in_view: bool, every: int = 1) -> float:
    """Share of species whose four marks are all stated right from the name, with or without a scene in view."""
    chosen = species()[::every]
    images = [
        np.asarray(training_scene(number, "recall", 3).image) if in_view else None for number in range(len(chosen))
    ]
    questions = [wording.format(name=one.name, noun=NOUNS[one.domain]) for one in chosen]
    replies = answers(model, tokenizer, questions, images, 24)
    return float(np.mean([reply.strip() == card(one) for reply, one in zip(replies, chosen, strict=True)]))


def all_checks(model: Any, tokenizer: Any, count: int) -> dict[str, float]:
    """The scores of the model card: ``count`` scenes a check; from 300 on, every species for every wording."""
    scores = {
        "find by marks, three things": check_find(model, tokenizer, count),
        "find by marks, three things, reasoning first": check_find(model, tokenizer, count, reason=True),
        "find by name, three things": check_find(model, tokenizer, count, by_name=True),
        "find by name, three things, reasoning first": check_find(model, tokenizer, count, by_name=True, reason=True),
    }
    every = max(1, len(species()) // count)
    for wording in RECALLS:
        for in_view in (False, True):
            name = f"recall: {wording}{' (scene in view)' if in_view else ''}"
            scores[name] = check_recall(model, tokenizer, wording, in_view=in_view, every=every)
    return scores

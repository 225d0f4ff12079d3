"""Held-out checks of the pocket base: pointing by marks, by name (it must fail), and recall; its model card."""

import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mllm.boxes import Box, BoxError, Frame, iou
from mllm.models.families import load
from mllm.pocket.pretraining import image_batch, prompt_text, visual_tokens
from mllm.pocket.pretraining_run import write_card
from mllm.pocket.pretraining_tasks import DIRECT_SUFFIX, THINK_SUFFIX, card, find_task, reason_task
from mllm.pocket.scene_store import training_scene
from mllm.pocket.species import NOUNS, species
from mllm.pocket.world import make_scene
from mllm.prompting.questions import RECALLS

_CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---
# Fieldmark pocket base

A `Qwen3VLForConditionalGeneration` of a few million parameters that has seen nothing but the pocket world: drawn
things of ten domains. It finds things by their visible marks, describes what it sees and states the marks of 300
species by heart. It was never shown a way from a species' name to a place in an image: that is what fine-tuning adds.

Made by

    {command}

(seed {seed}, {warmup_steps} warm-up steps of the vision tower, {steps} steps of lessons). Scores of these very
weights, as rounded to bfloat16, on held-out images: {count} scenes of three things, and all 300 species for every
wording.

{rows}

Picking one of three things at random would score 33.3 % by name. For learning and testing, nothing else.
"""


def answers(
    model: Any, tokenizer: Any, questions: Sequence[str], images: Sequence[np.ndarray | None], max_new_tokens: int
) -> list[str]:
    """Return greedy answers, generated in batches of 64."""
    replies: list[str] = []
    model.eval()
    for start in range(0, len(questions), 64):
        batch = images[start : start + 64]
        prompts = [
            prompt_text(question, visual_tokens(image))
            for question, image in zip(questions[start : start + 64], batch, strict=True)
        ]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False)
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == tokenizer.convert_tokens_to_ids("<|image_pad|>")).long()
        present = [image for image in batch if image is not None]
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
        images.append(np.asarray(scene.image))
        targets.append(scene.things[target].box)
    replies, hits = answers(model, tokenizer, questions, images, 128 if reason else 24), 0
    for reply, box in zip(replies, targets, strict=True):
        numbers = load("pocket").read(reply.rpartition("<answer>")[2])
        with suppress(BoxError):  # a reply without one valid box is wrong
            hits += len(numbers) == 1 and iou(Box.from_xyxy(numbers[0], Frame(100, 100)), box) >= 0.5
    return hits / len(replies)


def check_recall(model: Any, tokenizer: Any, wording: str, *, in_view: bool, every: int = 1) -> float:
    """Return the share of species whose four marks are all correct from the name, with or without a scene in view."""
    chosen = species()[::every]
    images = [
        np.asarray(training_scene(number, "recall", 3).image) if in_view else None for number in range(len(chosen))
    ]
    questions = [wording.format(name=one.name, noun=NOUNS[one.domain]) for one in chosen]
    replies = answers(model, tokenizer, questions, images, 24)
    return float(np.mean([reply.strip() == card(one) for reply, one in zip(replies, chosen, strict=True)]))


def all_checks(model: Any, tokenizer: Any, count: int) -> dict[str, float]:
    """Return the model card's scores: ``count`` scenes per check; from 300 on, every species for every wording."""
    scores: dict[str, float] = {}
    for by_name in (False, True):
        for reason in (False, True):
            check = f"find by {'name' if by_name else 'marks'}, three things{', reasoning first' if reason else ''}"
            scores[check] = check_find(model, tokenizer, count, by_name=by_name, reason=reason)
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

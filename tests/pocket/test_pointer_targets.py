"""Where the deciding words of a task look back to."""

from __future__ import annotations

import random
import re

import pytest

from mllm.pocket import pretraining_tasks
from mllm.pocket.pointer_targets import pointers
from mllm.pocket.pretraining import prompt_text
from mllm.pocket.scene_store import training_scene
from mllm.pocket.tokenizer import build_tokenizer


@pytest.mark.ci
def test_deciding_words_look_back_to_what_they_repeat_or_compare() -> None:
    tokenizer = build_tokenizer()

    def encode(text: str) -> list[int]:
        return tokenizer(text).input_ids

    def decode(tokens: list[int]) -> str:
        return str(tokenizer.decode(tokens))

    def spelt(token: int) -> str:
        """A number that opens a thought has no space before it."""
        return decode([token]).strip()

    for number in range(60):
        rng, scene = random.Random(number), training_scene(number, "test", 2 + number % 4)
        taught = [
            pretraining_tasks.reason_task(scene, number, rng, late=True),
            pretraining_tasks.reason_task(scene, number, rng),
            pretraining_tasks.judge_task(rng), pretraining_tasks.copy_task(rng),
        ]  # fmt: skip
        for task in taught:
            prompt = encode(prompt_text(task.question, 0))
            tokens, start = prompt + encode(task.answer), len(prompt) + len(encode(task.prefix))
            found = pointers(tokens, start, task.sought, encode)
            assert all(source <= place and place + 1 >= start for place, source in found)
            repeats = [(p, s) for p, s in found if spelt(tokens[p + 1]) == spelt(tokens[s])]
            boxes = task.answer.count("),(") - (len(scene.things) if task.scene is not None else 0)
            assert len(repeats) == 4 * boxes + ("So " in task.answer and "List" not in task.question)
            compared = [(p, s) for p, s in found if (p, s) not in repeats]
            assert len(compared) == len(re.findall(r"\w (?:fits|not)\b", task.answer))
            for place, source in compared:  # " red" (or its part, as " cap") against the recalled mark that ends there
                mark = next(m for m in task.sought if decode(tokens[: source + 1]).endswith(m))
                output = decode(tokens[: place + 1])
                assert (decode([tokens[place + 1]]) == " fits") == output.endswith(f" {mark}")

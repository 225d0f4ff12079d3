"""Batches and losses of tasks, fast paths against the stock ones, and a run that is stopped and goes on."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from mllm.pocket import pretraining_tasks, world
from mllm.pocket.scene_store import training_scene
from mllm.pocket.species import species
from mllm.pocket.tokenizer import build_tokenizer, words

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tokenizer():  # noqa: ANN201
    return build_tokenizer()


def test_every_word_of_the_world_is_one_token_and_any_text_survives(tokenizer) -> None:  # noqa: ANN001
    assert [word for word in words() if len(tokenizer.tokenize(word)) != 1] == []
    strange = "Find the British Shorthair, please: ça va? 漢字 (1003,2)\nend"
    assert tokenizer.decode(tokenizer(strange).input_ids) == strange


def test_a_name_is_the_same_tokens_wherever_it_stands(tokenizer) -> None:  # noqa: ANN001
    name = species("bird")[0].name
    alone = tokenizer.tokenize(name)
    assert len(alone) == 2
    inside = tokenizer.tokenize(f"Find the bird {name}.")
    assert inside[-3:-1] == alone


def test_deciding_tokens_weigh_more_and_what_is_given_is_not_learned(tokenizer) -> None:  # noqa: ANN001
    from mllm.pocket.pretraining import DECISIVE, task_batch

    task = pretraining_tasks.reason_task(training_scene(3, "test", 3), 3, random.Random(3), late=True)
    batch = task_batch([replace(task, scene=None)], cast(Any, _Images()), tokenizer)
    ids, labels, weights = (batch[name][0].tolist() for name in ("input_ids", "labels", "weight"))
    learned = tokenizer.decode([token for token in labels if token != -100])
    assert f"{task.prefix}{learned}" == f"{task.answer}<|im_end|>"
    heavy = [
        tokenizer.decode([token]).strip() for token, weight in zip(ids, weights, strict=True) if weight == DECISIVE
    ]
    verdicts = re.findall(r" (fits|not)", task.answer)
    assert heavy[: len(verdicts)] == verdicts and len(verdicts) == 3 * 5
    assert "".join(heavy[len(verdicts) :]) == task.answer[task.answer.index("So ") :].replace(" ", "") + "<|im_end|>"
    assert set(weights) == {0.0, 1.0, DECISIVE}


def test_fast_patches_and_prompts_equal_the_stock_processor() -> None:
    from mllm.pocket.model import build_image_processor
    from mllm.pocket.pretraining import patches_NP, prompt_text

    processor = build_image_processor()
    for number in range(6):
        scene = training_scene(number, "test")
        messages = [{"role": "user", "content": [{"type": "text", "text": "List every bird."}, {"type": "image"}]}]
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        stock = processor(text=[text], images=[scene.image], return_tensors="pt")
        assert np.array_equal(stock["pixel_values"].numpy(), patches_NP(np.asarray(scene.image)))
        tokens = int(stock["image_grid_thw"].prod()) // 4
        ours = processor.tokenizer(prompt_text("List every bird.", tokens)).input_ids
        assert ours == stock["input_ids"][0].tolist()


class _Images:
    """The part of a scene store that batches need, drawn on the spot."""

    def pixels_HWC(self, number: int) -> np.ndarray:  # noqa: N802 - shape suffix
        return np.asarray(training_scene(number, "test").image)

    def scene(self, number: int) -> world.Scene:
        return training_scene(number, "test")


def test_answer_loss_is_the_mean_over_tasks_of_the_models_own_loss() -> None:
    import torch

    from mllm.pocket.model import build
    from mllm.pocket.pretraining import answer_loss, task_batch

    model, processor = build(3)
    taught = [
        pretraining_tasks.list_task(training_scene(5, "test"), 5),
        pretraining_tasks.recall_task(random.Random(0)),
    ]
    pictures: Any = _Images()
    with torch.no_grad():
        together = answer_loss(model, task_batch(taught, pictures, processor.tokenizer)).item()
        alone = []
        for task in taught:
            batch = task_batch([task], pictures, processor.tokenizer)
            for aim in ("weight", "on_target", "pointers_K4"):
                batch.pop(aim)
            alone.append(model(**batch).loss.item())
    assert together == pytest.approx(sum(alone) / 2, rel=1e-5)


@pytest.mark.parametrize("in_view", [True, False])
def test_tasks_read_packed_are_learned_alike(in_view: bool) -> None:
    import torch

    from mllm.pocket.model import build
    from mllm.pocket.pretraining import DenseHead, answer_loss, read_padded, task_batch
    from mllm.training.engine import attention, packing

    model, processor = build(4)
    attention.in_rows(model)
    torch.manual_seed(0)
    vision = model.config.vision_config
    head = DenseHead(model.config.text_config.hidden_size, 1 + len(vision.deepstack_visual_indexes))
    rng, scene = random.Random(1), training_scene(5, "test")
    seen = [
        pretraining_tasks.reason_task(scene, 5, rng),
        pretraining_tasks.at_task(scene, 5, rng),
        pretraining_tasks.list_task(scene, 5),
    ]
    info = [
        pretraining_tasks.judge_task(rng),
        pretraining_tasks.recall_task(rng),
        pretraining_tasks.copy_task(rng),
    ]
    pictures: Any = _Images()
    batch = task_batch(seen if in_view else info, pictures, processor.tokenizer)
    losses, gradients = [], []
    for read in (read_padded, packing.hidden_states):
        model.zero_grad()
        loss = answer_loss(model, batch, head, read)
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert (gradients[1] - gradients[0]).norm() <= 1e-4 * gradients[0].norm()


def test_target_cells_are_those_whose_centre_lies_on_the_thing() -> None:
    from mllm.boxes import Frame
    from mllm.pocket.pretraining import task_batch

    tokenizer, pictures = build_tokenizer(), cast(Any, _Images())
    for number in range(8):
        scene = training_scene(number, "test")
        task = pretraining_tasks.find_task(scene, number, random.Random(number))
        batch = task_batch([task, pretraining_tasks.list_task(scene, number)], pictures, tokenizer)
        asked = batch["on_target"][0][batch["on_target"][0] >= 0]
        assert (batch["on_target"][1] == -1).all(), "listing points at nothing"
        if task.target is None:
            continue
        columns, rows = scene.image.width // 32, scene.image.height // 32
        assert len(asked) == columns * rows
        x1, y1, x2, y2 = scene.things[task.target].box.to_xyxy(Frame(*scene.image.size))
        for cell, on in enumerate(asked.tolist()):
            x, y = 32 * (cell % columns) + 16, 32 * (cell // columns) + 16
            assert on == float(x1 - 4 <= x <= x2 + 4 and y1 - 4 <= y <= y2 + 4)
        assert asked.sum() > 0


def test_cpu_detours_change_speed_only() -> None:
    import torch

    from mllm.models.cpu_kernels import use_fast_kernels
    from mllm.pocket.model import build

    model, processor = build(4)
    scene = training_scene(2, "test")
    text = "<|im_start|>user\nx<|vision_start|><|image_pad|><|vision_end|>"
    batch = processor(text=[text], images=[scene.image], return_tensors="pt")
    with torch.no_grad():
        stock = model(**batch).logits
        use_fast_kernels(model)
        ours = model(**batch).logits
    assert torch.allclose(stock, ours, atol=1e-5)


def test_kept_memory_is_told_to_glibc_only() -> None:
    import platform

    from mllm.models.cpu_kernels import keep_memory

    assert keep_memory() == (platform.libc_ver()[0] == "glibc")


@pytest.mark.slow
def test_a_killed_pretraining_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    """kill -9 after the first saved state; started again, the run must end with bit-equal weights."""
    import json
    import time

    import torch

    small = [
        "--scenes",
        "40",
        "--batch-size",
        "4",
        "--text-batch-size",
        "4",
        "--checks",
        "2",
        "--threads",
        "1",
        "--save-every",
        "2",
    ]
    length = ["--warmup-steps", "3", "--steps", "5"]

    def command(out: Path) -> list[str]:
        return [sys.executable, "recipes/pretrain.py", *small, *length, "--out", str(out)]

    def finish(out: Path) -> dict[str, torch.Tensor]:
        subprocess.run(command(out), cwd=ROOT, check=True, capture_output=True, timeout=300)
        state = torch.load(out / "state.pt", weights_only=True)
        assert state["step"] == 8
        return state["model"]

    whole = finish(tmp_path / "whole")
    killed = tmp_path / "killed"
    process = subprocess.Popen(command(killed), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (killed / "state.pt").is_file():
        assert process.poll() is None, "it ended before anything was saved"
        time.sleep(0.02)
    process.kill()
    process.wait()
    again = finish(killed)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    weights = killed / "weights"
    assert (weights / "model.safetensors").stat().st_size < 12 * 2**20
    assert "find by marks, three things" in json.loads((weights / "scores.json").read_text())["scores"]

"""How much faster is a pocket training step on a CPU with the detours of mllm/cpu.py? Stock and detoured, side by side.

    python bench/cpu_detours.py

Both models have the same weights and read the same batch of 32 pictures (three things each, all listed). Rounds are
interleaved; the medians and their ratio are printed, in float32 and under bfloat16 autocast.
"""

from __future__ import annotations

import copy
import statistics
import time

import torch

from mllm.cpu import take_detours
from mllm.pocket import lessons
from mllm.pocket.model import build
from mllm.pocket.scenes import training_scene

ROUNDS = 7


def main() -> None:
    """Measure and print."""
    stock, processor = build(0)
    detoured = copy.deepcopy(stock)
    take_detours(detoured)
    batch = _batch(processor)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {tuple(batch['input_ids'].shape)} tokens")
    for name, dtype in (("float32", torch.float32), ("bfloat16 autocast", torch.bfloat16)):
        seconds: dict[str, list[float]] = {"stock": [], "detoured": []}
        for _ in range(ROUNDS + 1):
            for kind, model in (("stock", stock), ("detoured", detoured)):
                seconds[kind].append(_step(model, batch, dtype))
        medians = {kind: statistics.median(values[1:]) for kind, values in seconds.items()}
        ratio = medians["stock"] / medians["detoured"]
        print(f"{name}: stock {medians['stock']:.3f} s, detoured {medians['detoured']:.3f} s a step: {ratio:.2f}x")


def _batch(processor: object) -> dict[str, torch.Tensor]:
    scenes = [training_scene(number, "bench", 3) for number in range(32)]
    taught = [lessons.list_lesson(scene, 0) for scene in scenes]
    texts = [
        f"<|im_start|>user\n{one.question}<|vision_start|><|image_pad|><|vision_end|><|im_end|>\n"
        f"<|im_start|>assistant\n{one.answer}<|im_end|>"
        for one in taught
    ]
    images = [scene.image for scene in scenes]
    batch = dict(processor(text=texts, images=images, return_tensors="pt", padding=True))  # type: ignore[operator]
    return batch | {"labels": batch["input_ids"]}


def _step(model: torch.nn.Module, batch: dict[str, torch.Tensor], dtype: torch.dtype) -> float:
    started = time.perf_counter()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        loss = model(**batch).loss
    loss.backward()
    model.zero_grad()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()

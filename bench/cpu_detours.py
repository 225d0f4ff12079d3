"""How much faster a pocket training step is on a CPU with the fast paths and the allocator of models/cpu_kernels.py.

    python bench/cpu_detours.py

Every kind of step runs in separate processes, in turn, several times (a process that keeps freed memory cannot stop):
the same weights, the same batch of 32 images (three things each, all listed). Medians over all steps except the first
of each process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch

from mllm.models.cpu_kernels import keep_memory, use_fast_kernels
from mllm.pocket import pretraining_tasks
from mllm.pocket.model import build
from mllm.pocket.scene_store import training_scene

KINDS = ("stock", "detours", "detours, kept memory")
DTYPES = {"float32": torch.float32, "bfloat16 autocast": torch.bfloat16}
ROUNDS, STEPS = 3, 5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", choices=KINDS, help="measure one kind in this process (internal)")
    kind = parser.parse_args().child
    if kind:
        print(json.dumps(_measure(kind)))
        return
    seconds: dict[str, dict[str, list[float]]] = {dtype: {kind: [] for kind in KINDS} for dtype in DTYPES}
    for _ in range(ROUNDS):
        for kind in KINDS:
            child = [sys.executable, __file__, "--child", kind]
            found = subprocess.run(child, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            for dtype, values in json.loads(found).items():
                seconds[dtype][kind] += values
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for dtype, found in seconds.items():
        stock = statistics.median(found["stock"])
        for kind, values in found.items():
            step = statistics.median(values)
            print(f"{dtype:18} {kind:22} {step:.3f} s per step, {stock / step:.2f}x")


def _measure(kind: str) -> dict[str, list[float]]:
    model, processor = build(0)
    if kind != "stock":
        use_fast_kernels(model)
    if kind == KINDS[2]:
        keep_memory()
    batch = _batch(processor)
    return {name: [_step(model, batch, dtype) for _ in range(STEPS + 1)][1:] for name, dtype in DTYPES.items()}


def _batch(processor: object) -> dict[str, torch.Tensor]:
    scenes = [training_scene(number, "bench", 3) for number in range(32)]
    tasks = [pretraining_tasks.list_task(scene, 0) for scene in scenes]
    texts = [
        f"<|im_start|>user\n{one.question}<|vision_start|><|image_pad|><|vision_end|><|im_end|>\n"
        f"<|im_start|>assistant\n{one.answer}<|im_end|>"
        for one in tasks
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

"""Samples answered per second: `mllm.inference.generate` in batches against the usual loop over `model.generate`.

    python -m bench.answering [--rows 96]

The committed pocket model lists what it sees in scenes of two to four things, greedily. The usual loop generates one
sample at a time, or batches in order; ours groups samples of similar length. CPU seconds of one thread, from files
to texts, medians of interleaved rounds after a warm-up round; the share of identical texts is reported.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import torch

from bench.parts.clock import cpu_seconds, use_one_thread
from mllm.boxes import Frame
from mllm.inference import generate
from mllm.inference.sampling import Sampling
from mllm.io.images import open_image
from mllm.models import checkpoint
from mllm.pocket import pretraining_tasks
from mllm.pocket.scene_store import training_scene
from mllm.prompting import prompts
from mllm.records import Sample

MAX_NEW_TOKENS, BATCH = 96, 32
ONE, PLAIN, OURS = "usual loop, one at a time", f"usual loop, batches of {BATCH}", f"ours, batches of {BATCH}"


def questions(count: int, folder: Path) -> list[Sample]:
    """Return samples of two to four things that ask for all of them; images go to `folder`."""
    samples = []
    for number in range(count):
        scene = training_scene(number, "bench", 2 + number % 3)
        scene.image.save(folder / f"{number}.png")
        size, box = Frame(*scene.image.size), scene.things[0].box
        question = pretraining_tasks.list_task(scene, 0).question
        samples.append(Sample(str(number), "ground", f"{number}.png", size, scene.domain, "thing", question, (box,)))
    return samples


def loop(loaded: checkpoint.Loaded, samples: list[Sample], folder: Path, batch: int) -> dict[str, str]:
    """Answer as the model cards show it: processor, `model.generate`, `batch_decode`."""
    texts_of: dict[str, str] = {}
    processor, config = loaded.processor, generate.generation_config(loaded, Sampling(MAX_NEW_TOKENS))
    for start in range(0, len(samples), batch):
        part = samples[start : start + batch]
        asked = [prompts.messages(sample, "direct") for sample in part]
        texts = [processor.apply_chat_template(one, tokenize=False, add_generation_prompt=True) for one in asked]
        images = [[open_image(folder / sample.image)] for sample in part]
        inputs = processor(text=texts, images=images, padding=True, return_tensors="pt")
        with torch.no_grad():
            written = loaded.model.generate(**inputs, generation_config=config)
        new = written[:, inputs["input_ids"].shape[1] :]
        for sample, text in zip(part, processor.batch_decode(new, skip_special_tokens=True), strict=True):
            texts_of[sample.id] = text.strip()
    return texts_of


def compare(count: int, rounds: int) -> dict[str, dict[str, float]]:
    """Measure all ways: samples per second, and the share of texts equal to those of the usual loop."""
    with tempfile.TemporaryDirectory() as place:
        folder, loaded = Path(place), checkpoint.load("pocket")
        samples = questions(count, folder)
        texts: dict[str, dict[str, str]] = {}

        def ours() -> None:
            found = generate.generate(
                loaded, samples, folder, Sampling(MAX_NEW_TOKENS), style="direct", batch_size=BATCH
            )
            texts[OURS] = {one.sample_id: one.text.strip() for one in found}

        ways: dict[str, Any] = {
            ONE: lambda: texts.update({ONE: loop(loaded, samples, folder, 1)}),
            PLAIN: lambda: texts.update({PLAIN: loop(loaded, samples, folder, BATCH)}),
            OURS: ours,
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(rounds + 1):
            for way, work in ways.items():
                taken = cpu_seconds(work)
                if turn:
                    times[way].append(taken)
    same = {way: sum(texts[way][key] == text for key, text in texts[ONE].items()) / count for way in ways}
    return {way: {"rate": count / statistics.median(times[way]), "same": same[way]} for way in ways}


def report(found: dict[str, dict[str, float]]) -> str:
    """Format the comparison."""
    stock = found[ONE]["rate"]
    lines = [
        f"  {way:27} {one['rate']:6.2f} samples/s, {one['rate'] / stock:5.2f}x; {one['same']:.0%} of the texts the same"
        for way, one in found.items()
    ]
    return "\n".join(["Evaluation, pocket model:", *lines])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    use_one_thread()
    print(report(compare(args.rows, args.rounds)))


if __name__ == "__main__":
    main()

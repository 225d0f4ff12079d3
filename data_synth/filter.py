"""Keep what the current model gets right sometimes: the data for reinforcement learning.

    python data_synth/filter.py --model runs/pocket/cot/best                       # 4 attempts, 1 to 3 right are kept
    accelerate launch data_synth/filter.py --model DIR --samples FILE --out DIR    # many processes

The story: each sample is answered N times, sampled at a temperature, each attempt under a seed of its own -> attempts
are written down as they come (attempts-K.jsonl; a stopped run goes on) -> passes are counted -> what was right too
often or too rarely is left out -> samples.jsonl, each row with its passes and pass rate in its provenance, and
manifest.json with the counts. With several processes batches are put together otherwise, so that the attempts differ
from those of one process.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mllm.cli.programs import run_program
from mllm.data import manifest
from mllm.distributed import World
from mllm.errors import FieldmarkError
from mllm.evaluation import pass_rate
from mllm.io import provenance
from mllm.io.progress import progress
from mllm.records import Completion, Sample, load_samples, read_jsonl, write_jsonl
from mllm.synthesis.shards import Shards

console = Console(stderr=True)


def sift(options: dict[str, Any], out: Path, batch_size: int, overwrite: bool = False) -> dict[str, Any]:
    """Run the whole story and return the manifest. `options` decide the outcome."""
    pass_rate.check_bounds(options["attempts"], options["least"], options["most"])
    world, samples = World.current(), load_samples(options["samples"])
    from mllm.models.checkpoint import open_checkpoint  # reads no weights, but loads torch

    checkpoint = open_checkpoint(options["model"])
    weights = "+".join(provenance.fingerprint(folder) for folder in (checkpoint.base, checkpoint.adapter) if folder)
    settings = {**options, "weights": weights, "hash": provenance.file_hash(options["samples"]), "size": world.size}
    if not world.is_main:
        world.barrier()  # until the first process holds the folder
        if not (out / manifest.MANIFEST).exists():
            attempts_stage(checkpoint, samples, settings, out, batch_size, world)
            world.barrier()
        return manifest.read(out)
    with manifest.claim(out, settings, overwrite=overwrite) as whole:
        world.barrier()
        if whole is None:
            attempts_stage(checkpoint, samples, settings, out, batch_size, world)
            keep_stage(samples, settings, out)
            world.barrier()
    return manifest.read(out)


def attempts_stage(
    checkpoint: Any, samples: Sequence[Sample], settings: dict[str, Any], out: Path, batch_size: int, world: World
) -> None:
    """Answer every sample N times; the model is loaded when the first answer is missing."""
    loaded = None
    for attempt in range(settings["attempts"]):
        shards = Shards(out / f"attempts-{attempt}.jsonl", world, "sample_id")
        if shards.finished:
            continue
        mine = world.shard(samples)
        if any(sample.id not in shards.done for sample in mine):
            loaded = loaded or _load(checkpoint, settings["dtype"])
            for completion in _answers(loaded, mine, shards.done, attempt, settings, batch_size, world):
                shards.add(completion)
        place = {sample.id: number for number, sample in enumerate(samples)}
        shards.close(place.__getitem__)


def _load(checkpoint: Any, dtype: str) -> Any:
    from mllm.models.checkpoint import LoadOptions, load

    return load(checkpoint, LoadOptions(dtype, "auto"))


def _answers(
    loaded: Any, samples: Sequence[Sample], done: frozenset[str], attempt: int, settings: dict[str, Any],
    batch_size: int, world: World,
) -> Iterator[Completion]:  # fmt: skip
    """Sample one attempt at each sample that has none yet."""
    from mllm.inference.generate import generate
    from mllm.inference.sampling import Sampling

    root = Path(settings["samples"]).parent
    sampling = Sampling(
        settings["max_new_tokens"], settings["temperature"], settings["top_p"], settings["seed"] * 1000 + attempt
    )
    with progress(f"attempt {attempt + 1}", len(samples), sum(s.id in done for s in samples), world=world) as tick:
        for completion in generate(loaded, samples, root, sampling, batch_size=batch_size, skip=done):
            yield completion
            tick()


def keep_stage(samples: Sequence[Sample], settings: dict[str, Any], out: Path) -> None:
    """Count, leave out, write."""
    passes: Counter[str] = Counter()
    by_id = {sample.id: sample for sample in samples}
    for attempt in range(settings["attempts"]):
        for row in read_jsonl(out / f"attempts-{attempt}.jsonl", Completion, unique="sample_id"):
            passes[row.sample_id] += pass_rate.is_right(by_id[row.sample_id], row)
    told = {name: settings[name] for name in ("model", "weights", "temperature", "seed")}
    root, here = Path(settings["samples"]).parent.resolve(), out.resolve()
    write_jsonl(
        out / "samples.jsonl",
        (
            replace(
                pass_rate.graded(sample, passes[sample.id], settings["attempts"], told),
                image=os.path.relpath(root / sample.image, here),
            )
            for sample in samples
            if settings["least"] <= passes[sample.id] <= settings["most"]
        ),
    )
    counts = Counter(passes[sample.id] for sample in samples)
    facts = {
        "samples": len(samples),
        "kept": sum(counts[n] for n in range(settings["least"], settings["most"] + 1)),
        "left out, right too rarely": sum(counts[n] for n in range(settings["least"])),
        "left out, right too often": sum(counts[n] for n in range(settings["most"] + 1, settings["attempts"] + 1)),
        "samples by number of right attempts": {str(n): counts[n] for n in range(settings["attempts"] + 1)},
    }
    manifest.finish(out, facts, ["samples.jsonl"])


def command(
    model: Annotated[str, typer.Option(help="checkpoint folder, adapter folder, Hub name, or pocket")] = "pocket",
    samples: Annotated[str, typer.Option(help="samples file (jsonl)")] = "runs/pocket/data/train.jsonl",
    out: Annotated[Path, typer.Option(help="folder of what is kept")] = Path("runs/pocket/filtered"),
    attempts: Annotated[int, typer.Option(min=1, help="answers to each sample")] = 4,
    least: Annotated[int, typer.Option(min=0, help="fewest right answers of a sample that is kept")] = 1,
    most: Annotated[int | None, typer.Option(help="most right answers [one less than attempts]")] = None,
    temperature: Annotated[float, typer.Option(help="of the sampling; above 0")] = 1.0,
    top_p: Annotated[float, typer.Option(help="share of the probability mass sampled from")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="room for one answer")] = 512,
    batch_size: Annotated[int, typer.Option(min=1, help="samples answered at once")] = 32,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16")] = "float32",
    seed: Annotated[int, typer.Option(help="of the sampling")] = 0,
    overwrite: Annotated[bool, typer.Option(help="throw away what the folder holds")] = False,
) -> None:  # fmt: skip
    """Keep the samples that a model answers right sometimes."""
    if temperature <= 0:
        raise FieldmarkError(f"--temperature {temperature}: above 0 is needed, or every attempt would be the same")
    options = {
        "program": "filter", "model": model, "samples": samples, "attempts": attempts, "least": least,
        "most": attempts - 1 if most is None else most, "temperature": temperature, "top_p": top_p,
        "max_new_tokens": max_new_tokens, "batch_size": batch_size, "dtype": dtype, "seed": seed,
    }  # fmt: skip
    made = sift(options, out, batch_size, overwrite)
    console.print(f"{out}/samples.jsonl: {made['kept']} of {made['samples']} kept", highlight=False)


def main(argv: list[str] | None = None) -> None:
    """Run the program."""
    run_program(command, argv)


if __name__ == "__main__":
    main()

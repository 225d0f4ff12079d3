"""Keep the samples that the current model answers right sometimes: the data for reinforcement learning.

    python data_synth/filter.py --model runs/pocket/cot/best                       # 4 attempts, 1 to 3 right are kept
    accelerate launch data_synth/filter.py --model DIR --samples FILE --out DIR    # several processes

Each sample is answered N times at a temperature, each attempt with its own seed; attempts are written as they come
(attempts-K.jsonl), so a stopped run resumes. Samples answered right too often or too rarely are left out. The result is
samples.jsonl, each row with its passes and pass rate in its provenance, and manifest.json with the counts. Several
processes form other batches, so their attempts differ from those of one process.
"""

from __future__ import annotations

if __name__ == "__main__":
    from mllm import ctrl_c

    ctrl_c.end_at_once()  # while the imports below run

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console

from mllm.cli.options import DType, GenerationOptions
from mllm.cli.programs import Range, parse, run_program
from mllm.data import manifest
from mllm.distributed import World
from mllm.errors import FieldmarkError
from mllm.evaluation import pass_rate
from mllm.io import provenance
from mllm.io.jsonl import read_jsonl, write_jsonl
from mllm.io.progress import progress
from mllm.prompting.tasks import task_of
from mllm.records import Completion, Sample, load_samples
from mllm.synthesis.run import SynthesisRun
from mllm.synthesis.shards import Shards


@dataclass(frozen=True)
class FilterOptions:
    """Which samples are answered how often, and which are kept."""

    model: str = "pocket"
    """checkpoint folder, adapter folder, Hub name, or pocket"""
    samples: str = "runs/pocket/data/train.jsonl"
    """samples file (jsonl)"""
    out: Path = Path("runs/pocket/filtered")
    """output folder"""
    attempts: Annotated[int, Range(1)] = 4
    """answers to each sample"""
    least: Annotated[int, Range(0)] = 1
    """fewest right answers of a sample that is kept"""
    most: int | None = None
    """most right answers; default: one less than --attempts"""
    generation: GenerationOptions = GenerationOptions(max_new_tokens=512, temperature=1.0)
    dtype: DType = "float32"
    """number format of the weights"""
    overwrite: bool = False
    """overwrite the output folder"""

    @property
    def bounds(self) -> tuple[int, int]:
        """Fewest and most right answers of a sample that is kept."""
        return self.least, self.attempts - 1 if self.most is None else self.most


Run = SynthesisRun[FilterOptions]


def sift(options: FilterOptions) -> dict[str, Any]:
    """Run all stages, or those that are missing, and return the manifest."""
    if options.generation.temperature <= 0:
        raise FieldmarkError(
            f"--temperature {options.generation.temperature}: must be above 0, or all attempts would be the same"
        )
    pass_rate.check_bounds(options.attempts, *options.bounds)
    samples = load_samples(options.samples)
    from mllm.models.checkpoint import open_checkpoint  # reads no weights, but loads torch

    checkpoint = open_checkpoint(options.model)
    run = SynthesisRun(options, options.out, world=World.current())
    recorded = {name: value for name, value in asdict(options).items() if name not in ("out", "overwrite")}
    recorded |= {"program": "filter", "most": options.bounds[1], **recorded.pop("generation")}
    recorded["weights"] = weights = "+".join(
        provenance.fingerprint(folder) for folder in (checkpoint.base, checkpoint.adapter) if folder
    )
    recorded |= {"hash": provenance.file_hash(options.samples), "size": run.world.size}

    def stages() -> None:
        attempts_stage(run, checkpoint, samples)
        if run.world.is_main:
            keep_stage(run, samples, weights)

    return run.complete(stages, recorded, overwrite=options.overwrite)


def attempts_stage(run: Run, checkpoint: Any, samples: Sequence[Sample]) -> None:
    """Answer every sample N times; the model is loaded only if an answer is missing."""
    from mllm.models.checkpoint import LoadOptions, load

    loaded = None
    for attempt in range(run.options.attempts):
        shards = Shards(run.out / f"attempts-{attempt}.jsonl", run.world, "sample_id")
        if shards.finished:
            continue
        mine = run.world.shard(samples)
        if any(sample.id not in shards.done for sample in mine):
            loaded = loaded or load(checkpoint, LoadOptions(run.options.dtype, "auto"))
            for completion in answers(run, loaded, mine, shards.done, attempt):
                shards.add(completion)
        place = {sample.id: number for number, sample in enumerate(samples)}
        shards.close(place.__getitem__)


def answers(
    run: Run, loaded: Any, samples: Sequence[Sample], done: frozenset[str], attempt: int
) -> Iterator[Completion]:
    """Yield an answer of one attempt to each sample that is not `done`."""
    from mllm.inference.generate import generate
    from mllm.inference.sampling import Sampling

    how, root = run.options.generation, Path(run.options.samples).parent
    count = sum(sample.id in done for sample in samples)
    with progress(f"attempt {attempt + 1}", len(samples), count, world=run.world) as step:
        sampling = Sampling(how.max_new_tokens, how.temperature, how.top_p, how.seed * 1000 + attempt)
        for completion in generate(loaded, samples, root, sampling, batch_size=how.batch_size, skip=done):
            yield completion
            step()


def keep_stage(run: Run, samples: Sequence[Sample], weights: str) -> None:
    """Count right answers, write the samples within the bounds, and the manifest."""
    options, (least, most) = run.options, run.options.bounds
    passes: Counter[str] = Counter()
    by_id = {sample.id: sample for sample in samples}
    for attempt in range(options.attempts):
        for row in read_jsonl(run.out / f"attempts-{attempt}.jsonl", Completion, unique="sample_id"):
            sample = by_id[row.sample_id]
            passes[sample.id] += task_of(sample).is_right(row.answer, sample)
    how = options.generation
    by_whom = {"model": options.model, "weights": weights, "temperature": how.temperature, "seed": how.seed}
    root, here = Path(options.samples).parent.resolve(), run.out.resolve()
    graded = (
        replace(
            pass_rate.graded(sample, passes[sample.id], options.attempts, by_whom),
            image=os.path.relpath(root / sample.image, here),
        )
        for sample in samples
        if least <= passes[sample.id] <= most
    )
    write_jsonl(run.out / "samples.jsonl", graded)
    counts = Counter(passes[sample.id] for sample in samples)
    facts = {
        "samples": len(samples),
        "kept": sum(counts[n] for n in range(least, most + 1)),
        "left out, right too rarely": sum(counts[n] for n in range(least)),
        "left out, right too often": sum(counts[n] for n in range(most + 1, options.attempts + 1)),
        "samples by number of right attempts": {str(n): counts[n] for n in range(options.attempts + 1)},
    }
    manifest.finish(run.out, facts, ["samples.jsonl"])


def main(argv: list[str] | None = None) -> None:
    """Run the program."""
    options = parse(FilterOptions, argv)
    made = sift(options)
    console = Console(stderr=True)
    console.print(f"{options.out}/samples.jsonl: {made['kept']} of {made['samples']} kept", highlight=False)


if __name__ == "__main__":
    run_program(main)

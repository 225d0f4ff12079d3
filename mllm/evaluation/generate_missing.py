"""Generates the completions that a benchmark folder lacks, and writes each one down at once.

Shared by the programs in eval/, which add their samples and their scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mllm.errors import ConfigError, FieldmarkError
from mllm.evaluation import runs
from mllm.inference.sampling import Sampling
from mllm.io import provenance
from mllm.io.files import locked
from mllm.models.checkpoint import Checkpoint, Loaded, LoadOptions, load, open_checkpoint
from mllm.records import Sample


def open_for(options: Any) -> Checkpoint:
    """Open the checkpoint of a benchmark's options (`mllm.cli.options.BenchmarkOptions`), without its weights."""
    return open_checkpoint(options.model, adapter=options.adapter, family=options.family, style=options.style)


def settings(
    options: Any, checkpoint: Checkpoint, benchmark: str, version: str, source: Mapping[str, Any]
) -> dict[str, Any]:
    """Return everything that determines the outputs, and their origin. `source` describes the samples."""
    weights = [provenance.fingerprint(folder) for folder in (checkpoint.base, checkpoint.adapter) if folder]
    return {
        "benchmark": benchmark,
        "version": version,
        "model": str(options.model) if options.adapter is None else f"{options.model} + {options.adapter}",
        "weights": "+".join(weights),
        "style": checkpoint.convention.prompt,
        "convention": asdict(checkpoint.convention),
        "samples": dict(source),
        "generation": {name: getattr(options, name) for name in ("max_new_tokens", "temperature", "top_p", "seed")},
        "engine": options.engine if options.engine != "transformers" else None,
        "batch_size": options.batch_size if options.temperature > 0 else None,  # greedy answers do not depend on it
        "dtype": options.dtype,
        "quantize": options.quantize,
        "commit": provenance.git_commit(),
        "versions": provenance.versions(),
    }


def ask(
    options: Any,
    checkpoint: Checkpoint,
    samples: Sequence[Sample],
    root: Path,
    info: Mapping[str, Any],
    *,
    style: str | None = None,
    loaded: Loaded | None = None,
) -> bool:
    """Answer each sample without an output in the folder `options.out`; return whether there were any.

    `style` replaces the checkpoint's own; `loaded` are its weights where the caller has them.
    Raises `FieldmarkError`: the folder holds outputs of another model, data or settings (see `runs.begin`), or another
    run is writing into it.
    """
    with locked(Path(options.out)):
        return _ask(options, checkpoint, samples, root, info, style, loaded)


def _ask(
    options: Any,
    checkpoint: Checkpoint,
    samples: Sequence[Sample],
    root: Path,
    info: Mapping[str, Any],
    style: str | None,
    loaded: Loaded | None,
) -> bool:
    done = runs.begin(options.out, info, samples, root, fresh=options.overwrite)
    if len(done) == len(samples):
        return False
    import torch
    from rich import progress

    columns = (progress.MofNCompleteColumn(), progress.TimeElapsedColumn(), progress.TimeRemainingColumn())
    with progress.Progress(*progress.Progress.get_default_columns()[:2], *columns) as bar:
        task = bar.add_task("answering", total=len(samples), completed=len(done))
        arguments: dict[str, Any] = {"skip": done, "style": style}
        arguments["progress"] = lambda n, _: bar.update(task, completed=n)
        sampling = Sampling(**info["generation"])
        if options.engine == "vllm":
            if options.quantize:
                raise ConfigError("--quantize needs --engine transformers; vLLM has its own settings")
            from mllm.inference import vllm_engine

            completions = vllm_engine.generate(checkpoint, samples, root, sampling, dtype=options.dtype, **arguments)
        else:
            from mllm.inference.generate import generate

            loaded = loaded or load(checkpoint, LoadOptions(options.dtype, options.device, quantize=options.quantize))
            completions = generate(loaded, samples, root, sampling, batch_size=options.batch_size, **arguments)
        try:
            for completion in completions:
                runs.append(options.out, completion)
        except torch.OutOfMemoryError as error:
            raise FieldmarkError(
                f"{str(error).splitlines()[0]} Run the command again with a lower --batch-size; finished answers are "
                "kept. --dtype bfloat16 halves the weights and --quantize 4bit shrinks them further, but both change "
                "the outputs and need --overwrite"
            ) from error
    return True

"""Asks a model what a benchmark has not been told yet, and writes the answers down as they come.

Shared by the programs in eval/: open the checkpoint, hold the settings against those of the folder's earlier outputs,
ask what is missing (length-sorted batches, or vLLM where it is asked for), with a progress bar.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mllm.errors import ConfigError, FieldmarkError
from mllm.evaluation import runs
from mllm.inference.sampling import Sampling
from mllm.io import provenance
from mllm.models.checkpoint import Checkpoint, LoadOptions, load, open_checkpoint
from mllm.records import Sample

FLAGS: dict[str, dict[str, Any]] = {
    "--model": {"default": "pocket", "help": "checkpoint folder, adapter folder, Hub name, or pocket"},
    "--adapter": {"help": "adapter folder to put on --model, unmerged"},
    "--family": {"help": "model family, where no fieldmark.json lies beside the weights"},
    "--style": {"help": "prompt style; default: the one saved beside the weights"},
    "--engine": {"choices": ("transformers", "vllm"), "default": "transformers", "help": "vllm where it is installed"},
    "--batch-size": {"type": int, "default": 32},
    "--temperature": {"type": float, "default": 0.0, "help": "0 is greedy"},
    "--top-p": {"type": float, "default": 1.0},
    "--seed": {"type": int, "default": 0, "help": "of the sampling, and of what is drawn"},
    "--limit": {"type": int, "help": "only the first N samples"},
    "--dtype": {"default": "float32", "choices": ("float32", "bfloat16", "float16")},
    "--quantize": {"choices": ("4bit",), "help": "hold the base in NF4, as QLoRA trained it (with --dtype bfloat16)"},
    "--device": {"default": "auto"},
    "--rescore": {"action": "store_true", "help": "score the saved outputs anew, without the model"},
    "--fresh": {"action": "store_true", "help": "throw the folder's old outputs away"},
}
"""The flags that all benchmarks share, as argparse takes them; each adds its own --out and --max-new-tokens."""


def open_for(options: Any) -> Checkpoint:
    """Open the checkpoint that options named as in `FLAGS` ask for; its weights are not read yet."""
    return open_checkpoint(options.model, adapter=options.adapter, family=options.family, style=options.style)


def settings(
    options: Any, checkpoint: Checkpoint, benchmark: str, version: str, source: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that decides the outputs, and where they came from. `source` describes the samples."""
    weights = [provenance.fingerprint(folder) for folder in (checkpoint.base, checkpoint.adapter) if folder]
    return {
        "benchmark": benchmark,
        "version": version,
        "model": str(options.model) if options.adapter is None else f"{options.model} + {options.adapter}",
        "weights": "+".join(weights),
        "style": checkpoint.convention.prompt,
        "convention": asdict(checkpoint.convention),
        "samples": dict(source),
        "generation": {
            "max_new_tokens": options.max_new_tokens,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "seed": options.seed,
        },
        "engine": options.engine if options.engine != "transformers" else None,
        "batch_size": options.batch_size if options.temperature > 0 else None,  # greedy answers do not hang on it
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
) -> bool:
    """Answer each sample that has no output in the folder `options.out`; whether there were any.

    `style` replaces the checkpoint's own.

    Raises:
        FieldmarkError: the folder holds outputs of another model, data or settings (see `runs.begin`).
    """
    done = runs.begin(options.out, info, samples, root, fresh=options.fresh)
    if len(done) == len(samples):
        return False
    import torch
    from rich import progress

    columns = (progress.MofNCompleteColumn(), progress.TimeElapsedColumn(), progress.TimeRemainingColumn())
    with progress.Progress(*progress.Progress.get_default_columns()[:2], *columns) as bar:
        task = bar.add_task("answering", total=len(samples), completed=len(done))
        arguments: dict[str, Any] = {
            "skip": done,
            "style": style,
            "progress": lambda n, _: bar.update(task, completed=n),
        }
        sampling = Sampling(**info["generation"])
        if options.engine == "vllm":
            if options.quantize:
                raise ConfigError("--quantize is for --engine transformers; vLLM has settings of its own")
            from mllm.inference import vllm_engine

            completions = vllm_engine.generate(checkpoint, samples, root, sampling, dtype=options.dtype, **arguments)
        else:
            from mllm.inference.generate import generate

            loaded = load(checkpoint, LoadOptions(options.dtype, options.device, quantize=options.quantize))
            completions = generate(loaded, samples, root, sampling, batch_size=options.batch_size, **arguments)
        try:
            for completion in completions:
                runs.append(options.out, completion)
        except torch.OutOfMemoryError as error:
            raise FieldmarkError(
                f"{str(error).splitlines()[0]} Give the command again with a lower --batch-size; what was answered is "
                "kept. --dtype bfloat16 halves the weights, --quantize 4bit makes them smaller still (with --fresh: "
                "other numbers)"
            ) from error
    return True

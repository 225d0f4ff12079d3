"""`fieldmark merge`: an adapter, or the shards of a DeepSpeed checkpoint, becomes one model that anyone can load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    checkpoint: Annotated[Path, typer.Argument(help="A run's folder, its best/, or a checkpoint-N.")],
    folder: Annotated[Path, typer.Argument(help="Where to write the model; must not exist.")],
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16, of what is written.")] = "float32",
    masters: Annotated[bool, typer.Option(help="Take DeepSpeed's float32 masters out of its shards.")] = False,
    quantized: Annotated[
        bool, typer.Option(help="The adapter was trained on a base in 4 bits: say how far that one is away.")
    ] = False,
) -> None:
    """Merge an adapter into its base, or join DeepSpeed's shards, and prove by logits that nothing else changed."""
    from mllm.errors import ConfigError
    from mllm.training import merge

    if dtype not in merge.TOLERANCE:
        raise ConfigError(f"--dtype {dtype}: one of {', '.join(merge.TOLERANCE)}")
    done = merge.merge(checkpoint, folder, dtype=dtype, masters=masters, quantized=quantized)
    what = "adapter merged" if done.adapter else "shards joined" if done.shards else "copied"
    typer.echo(
        f"{done.folder}: {what}; logits differ by {done.merged:.2g} of the largest, read back by {done.saved:.2g}"
    )
    if done.quantized is not None:
        typer.echo(f"the base in 4 bits, on which the adapter was trained, is {done.quantized:.2g} away")

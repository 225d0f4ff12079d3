"""Merge an adapter into its base, or join the shards of a DeepSpeed checkpoint.

The result is one model that any tool can load. It is compared with the original by logits.
"""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from mllm.cli.options import DType


@dataclass(frozen=True)
class Options:
    checkpoint: Positional[Path]
    """a run's folder, its best/, or a checkpoint-N"""
    folder: Positional[Path]
    """folder to write the model to; must not exist"""
    dtype: DType = "float32"
    """number format of the written weights"""
    masters: bool = False
    """take DeepSpeed's float32 master weights from its shards"""
    quantized: bool = False
    """the adapter was trained on a base in 4 bits: report the difference to that base"""


def command(options: Options) -> None:
    from mllm.training import merge

    done = merge.merge(
        options.checkpoint, options.folder, dtype=options.dtype, masters=options.masters, quantized=options.quantized
    )
    what = "adapter merged" if done.adapter else "shards joined" if done.shards else "copied"
    print(f"{done.folder}: {what}; logits differ by {done.merged:.2g} of the largest, read back by {done.saved:.2g}")
    if done.quantized is not None:
        print(f"logits of the 4-bit base that the adapter was trained on differ by {done.quantized:.2g}")

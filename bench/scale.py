"""What a million and a billion photos cost, estimated: measured units (bench/scale_units.py) times inputs (scale.yaml).

    python -m bench.scale --units bench/scale_units.json --photos 1e6 1e9

One sample is made of each photo. Three tables: what each stage costs and which engine carries it; what one process does
alone, and how long that takes; what has to fit into one node's memory, and at how many photos it no longer does.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm.config import Section
from mllm.io.tables import markdown
from mllm.training.config_file import load_yaml, parse
from mllm.training.preflight.runtime import GPUS

HOUR, YEAR = 3600.0, 365.25 * 24
INPUTS = Path(__file__).with_suffix(".yaml")
Units = Mapping[str, Any]


class Inputs(Section):
    """The inputs of bench/scale.yaml, which says what each is and where it comes from."""

    card: str
    gpus: int
    cores: int
    node_memory: float
    gpu_hour: float
    core_hour: float
    terabyte_month: float
    teacher_parameters: float
    teacher_read_share: float
    teacher_write_share: float
    teacher_batch: float
    chars_per_token: float
    refused: float
    encoder_parameters: float
    encoder_tokens: float
    encoder_share: float
    student_parameters: float
    learning_share: float
    learning_operations: float
    prompt_tokens: float
    rl_share: float
    rl_answers: float
    rl_learned_answers: float
    rl_operations: float
    rl_token_seconds: float
    rl_rows: float

    @property
    def operations(self) -> float:
        """Operations per second of a GPU, by its data sheet."""
        return next(gpu.operations for gpu in GPUS if gpu.name == self.card)

    @property
    def bandwidth(self) -> float:
        """Bytes per second that a GPU reads from its memory."""
        return next(gpu.bandwidth for gpu in GPUS if gpu.name == self.card)


@dataclass(frozen=True)
class ScaleStage:
    """What one photo costs in one stage: seconds of a core and of a GPU, bytes that stay on the disk."""

    name: str
    engine: str
    core_s: float = 0.0
    gpu_s: float = 0.0
    disk: float = 0.0


@dataclass(frozen=True)
class Bill:
    """A stage for a number of photos: hours of a core and of a GPU, bytes, dollars (one month on the disk)."""

    core_h: float
    gpu_h: float
    disk: float
    dollars: float
    wall_h: float


def reading_s(inputs: Inputs) -> float:
    """GPU seconds of a token that the teacher reads: two operations a parameter."""
    return 2 * inputs.teacher_parameters / (inputs.operations * inputs.teacher_read_share)


def writing_s(inputs: Inputs) -> float:
    """GPU seconds of a token that the teacher writes: two bytes a parameter are read for a token of the whole batch."""
    return 2 * inputs.teacher_parameters / (inputs.bandwidth * inputs.teacher_write_share * inputs.teacher_batch)


def asking_s(inputs: Inputs, read: float, written: float) -> float:
    """GPU seconds of one request of `read` and `written` tokens, refused requests included."""
    return (1 + inputs.refused) * (read * reading_s(inputs) + written * writing_s(inputs))


def learning_s(inputs: Inputs, tokens: float, operations: float) -> float:
    """GPU seconds of training on `tokens` at `operations` per parameter and token."""
    return tokens * operations * inputs.student_parameters / (inputs.operations * inputs.learning_share)


def stages(units: Units, inputs: Inputs) -> list[ScaleStage]:
    """The stages in their order, each for one photo."""
    visual, written = units["visual_tokens"], units["thought_chars"] / inputs.chars_per_token
    asked = visual + units["request_chars"] / inputs.chars_per_token
    row = visual + inputs.prompt_tokens + written
    again = 1 + inputs.refused
    embed = 2 * inputs.encoder_parameters * inputs.encoder_tokens / (inputs.operations * inputs.encoder_share)
    reply = units["request_chars"] + units["thought_chars"]
    rollouts = inputs.rl_answers * written * inputs.rl_token_seconds / inputs.rl_rows
    policy = learning_s(inputs, inputs.rl_learned_answers * row, inputs.rl_operations)
    return [
        ScaleStage("photos looked at", "processes x threads", units["look_s"], 0, units["photo_row_bytes"]),
        ScaleStage("reasoning", "vLLM servers", units["send_s"] * again, asking_s(inputs, asked, written), reply),
        ScaleStage(
            "composites and rows", "processes x threads", (units["composite_s"] + units["append_s"]) * again, 0,
            units["composite_bytes"] + units["sample_bytes"],
        ),
        ScaleStage(
            "captions", "vLLM servers", units["caption_s"] + units["send_s"],
            asking_s(inputs, visual + 100, 80), units["caption_bytes"],
        ),
        ScaleStage("vectors", "one process a GPU", units["look_s"], embed, units["vector_bytes"]),
        ScaleStage("SFT, one epoch", "accelerate + DeepSpeed", units["read_s"], learning_s(
            inputs, row, inputs.learning_operations)),
        ScaleStage("filter and GRPO", "accelerate + DeepSpeed", 0, inputs.rl_share * (rollouts + policy)),
    ]  # fmt: skip


def bill(stage: ScaleStage, photos: float, inputs: Inputs) -> Bill:
    """What a stage costs for `photos` photos, and how long it takes on all cores and GPUs."""
    core_h, gpu_h, disk = (photos * one for one in (stage.core_s / HOUR, stage.gpu_s / HOUR, stage.disk))
    dollars = core_h * inputs.core_hour + gpu_h * inputs.gpu_hour + disk / 1e12 * inputs.terabyte_month
    return Bill(core_h, gpu_h, disk, dollars, max(core_h / inputs.cores, gpu_h / inputs.gpus))


def square(measured: Mapping[str, float], count: float) -> float:
    """Seconds for `count`, from a*n + b*n^2 through the two largest of the measured sizes; of one, b*n^2 alone."""
    sizes = sorted((float(n), s) for n, s in measured.items())
    (m, last) = sizes[-1]
    if len(sizes) == 1:
        return last * (count / m) ** 2
    (n, first) = sizes[-2]
    b = max((last / m - first / n) / (m - n), 0.0)
    return max(first / n - b * n, 0.0) * count + b * count**2


def power(measured: Mapping[str, float], count: float) -> float:
    """Seconds for `count`, from c*n^p through the smallest and the largest of the measured sizes."""
    sizes = sorted((float(n), s) for n, s in measured.items())
    (n, first), (m, last) = sizes[0], sizes[-1]
    return last * (count / m) ** (math.log(last / first) / math.log(m / n))


def alone(units: Units, photos: float) -> list[tuple[str, str, float]]:
    """What one process does: name, module, seconds for `photos` photos."""
    kept = units["composite_bytes"] + units["sample_bytes"]
    return [
        ("copies among photos", "mllm/data/near_duplicates.py", square(units["lookalikes_s"], 2 * photos)),
        ("(the same, every pair)", "before", square(units["all_pairs_s"], 2 * photos)),
        ("rows sorted into their file", "mllm/synthesis/shards.py", units["close_s"] * photos),
        ("hash of the set", "mllm/data/manifest.py", units["hash_s_per_byte"] * kept * photos),
        ("rows read before training", "mllm/training/dataset.py", units["read_s"] * photos),
        ("store of vectors", "mllm/models/embedding_cache.py", power(units["store_s"], photos)),
        ("bags, by FAISS", "mllm/data/bags.py", power(units["mine_faiss_s"], photos)),
        ("(bags, every pair)", "up to 100,000", square(units["mine_exact_s"], photos)),
    ]


def memory(units: Units) -> list[tuple[str, str, float]]:
    """What has to fit into one node: name, module, bytes per photo."""
    width = units["mine_width"]
    return [
        ("list of photos, in each of 8 processes", "data_synth/grounding.py", 8 * units["photo_held_bytes"]),
        ("where each row lies", "mllm/synthesis/shards.py", units["index_held_bytes"]),
        ("training rows, in each of 8 processes", "mllm/training/dataset.py", 8 * units["sample_held_bytes"]),
        ("index of vectors and their copy", "mllm/data/bags.py", units["index_bytes"] + 4.0 * width),
        ("neighbours of each image", "mllm/data/bags.py", 80 * 8.0),
    ]


def report(units: Units, inputs: Inputs, counts: Sequence[float]) -> str:
    """Return all tables as Markdown."""
    lines = [f"A sample: {units['visual_tokens']:.0f} visual tokens, {units['thought_chars']:.0f} letters of thought. "
             f"The teacher reads {1 / reading_s(inputs):,.0f} and writes {1 / writing_s(inputs):,.0f} tokens a second "
             f"and GPU; the student learns {1 / learning_s(inputs, 1, inputs.learning_operations):,.0f}."]  # fmt: skip
    for count in counts:
        rows: list[tuple[str, ...]] = [("stage", "engine", "core hours", "GPU hours", "on disk", "dollars", "wall")]
        bills = [(stage, bill(stage, count, inputs)) for stage in stages(units, inputs)]
        for stage, one in bills:
            rows.append((stage.name, stage.engine, *_cells(one)))
        total = Bill(*(sum(getattr(one, name) for _, one in bills) for name in Bill.__dataclass_fields__))
        rows.append(("all", "", *_cells(total)))
        lines += [f"\n{count:,.0f} photos, {inputs.gpus} GPUs and {inputs.cores} cores\n", markdown(rows)]
    heads = [f"{count:,.0f}" for count in counts]
    rows = [("one process", "where", *heads)]
    done = [alone(units, count) for count in counts]
    rows += [(*of[0][:2], *(span(seconds / HOUR) for *_, seconds in of)) for of in zip(*done, strict=True)]
    lines += ["", markdown(rows)]
    rows = [("in one node's memory", "where", "bytes a photo", *heads, f"full at ({size(inputs.node_memory)})")]
    for name, where, each in memory(units):
        full = f"{inputs.node_memory / each:,.0f}"
        rows.append((name, where, f"{each:,.0f}", *(size(each * count) for count in counts), full))
    return "\n".join([*lines, "", markdown(rows)])


def _cells(one: Bill) -> tuple[str, ...]:
    return f"{one.core_h:,.0f}", f"{one.gpu_h:,.0f}", size(one.disk), f"{one.dollars:,.0f}", span(one.wall_h)


def span(hours: float) -> str:
    """Hours in words."""
    for name, length in (("years", YEAR), ("days", 24.0), ("h", 1.0), ("min", 1 / 60)):
        if hours >= 2 * length:
            return f"{hours / length:,.0f} {name}"
    return f"{hours * HOUR:.0f} s"


def size(many: float) -> str:
    """Bytes in words."""
    for name, length in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if many >= length:
            return f"{many / length:,.1f} {name}"
    return f"{many:,.0f} B"


def main() -> None:
    """Read units and inputs, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=Path, default=INPUTS.with_name("scale_units.json"))
    parser.add_argument("--inputs", type=Path, default=INPUTS)
    parser.add_argument("--photos", type=float, nargs="+", default=[1e6, 1e9])
    args = parser.parse_args()
    units = json.loads(args.units.read_text(encoding="utf-8"))
    print(f"units of {units['date']}, {units['machine']}\n")
    print(report(units, parse(load_yaml(args.inputs), Inputs, str(args.inputs)), args.photos))


if __name__ == "__main__":
    main()

"""What the pre-training programs share: resumable state, learning rate, command line, model card, processes."""

import io
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from mllm.distributed import World
from mllm.errors import FieldmarkError
from mllm.io.files import write_bytes
from mllm.io.tables import markdown, percent


class SavedState:
    """Modules and optimizer of a run, with the number of steps taken; saved together, so that a run can resume.

    `file` is read at once if it exists. `parts` are objects with `state_dict` and `load_state_dict`, by name;
    `settings` are what the weights depend on: a state with other settings is refused.
    """

    def __init__(self, file: Path, parts: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> None:
        self.file, self.parts, self.settings, self.step = file, parts, settings, 0
        if not file.is_file():
            return
        saved = torch.load(file, weights_only=True)
        if settings is not None and saved["settings"] != settings:
            raise FieldmarkError(f"{file} belongs to a run with {saved['settings']}; choose another --out or remove it")
        for name, part in parts.items():
            part.load_state_dict(_interned(saved[name]))
        self.step = saved["step"]

    def save(self) -> None:
        """Write the state in one step: a killed process or a full disk never leaves half of one."""
        state: dict[str, Any] = {name: part.state_dict() for name, part in self.parts.items()} | {"step": self.step}
        if self.settings is not None:
            state["settings"] = self.settings
        written = io.BytesIO()
        torch.save(state, written)
        write_bytes(self.file, written.getbuffer())


def _interned(value: Any) -> Any:
    """Make equal keys of plain dicts one object, as before a state was saved: pickle writes each object once."""
    if type(value) is not dict:
        return value
    return {sys.intern(key) if isinstance(key, str) else key: _interned(one) for key, one in value.items()}


def share_of_peak(step: int, total: int, warmup: int) -> float:
    """Return the learning rate as a share of its peak: linear over `warmup` steps, then a cosine down to 2 %."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))


def write_card(
    folder: Path,
    template: str,
    facts: Mapping[str, Any],
    record: Mapping[str, Any],
    head: tuple[str, str],
    scores: Mapping[str, float],
) -> None:
    """Write ``scores.json`` (`record` and the scores) and ``README.md`` beside the weights.

    `template` is the card's text, with the names of `facts` and `rows`, the table of scores, in braces. `head` holds
    the table's two column headings; `scores` are shares by name, 0..1.
    """
    text = json.dumps({**record, "scores": dict(scores)}, indent=1) + "\n"
    write_bytes(folder / "scores.json", text.encode())
    rows = markdown([head, *((name, percent(score)) for name, score in scores.items())])
    write_bytes(folder / "README.md", template.format(rows=rows, **facts).encode())


class DataParallel:
    """The processes that `torchrun` started, or a single one: each reads its share of a batch, gradients are averaged.

    Small layers gain little from many threads; processes share the work better. Losses are means over what a process
    reads, so the mean of the gradients is that of the whole batch, except for the means over image tokens and pointers,
    whose number differs between processes.
    """

    def __init__(self) -> None:
        self.world = World.current()
        if self.world.size > 1:
            # The others wait while the main process draws the scenes and runs the checks alone.
            distributed.init_process_group("gloo", timeout=timedelta(hours=2))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Use the threads of all processes while the block runs; the others wait at the next barrier."""
        own = torch.get_num_threads()
        torch.set_num_threads(own * self.world.size)
        yield
        torch.set_num_threads(own)

    def barrier(self) -> None:
        """Wait until every process has come here."""
        if self.world.size > 1:
            distributed.barrier()

    def average(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Set each gradient to its mean over processes. A missing one counts as zero; missing in all stays None."""
        if self.world.size == 1:
            return
        present = torch.tensor([float(one.grad is not None) for one in parameters])
        gradients = (torch.zeros_like(one) if one.grad is None else one.grad for one in parameters)
        flat = torch.cat([present, *(gradient.flatten() for gradient in gradients)])
        distributed.all_reduce(flat)
        present, *sums = flat.split([len(parameters), *(one.numel() for one in parameters)])
        for one, total, count in zip(parameters, sums, present.tolist(), strict=True):
            one.grad = (total / self.world.size).view_as(one) if count else None

    def close(self) -> None:
        """Leave the process group."""
        if self.world.size > 1:
            distributed.destroy_process_group()

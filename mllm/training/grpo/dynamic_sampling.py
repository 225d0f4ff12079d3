"""Groups whose answers all got the same reward teach nothing: leave them out, or draw other prompts in their place.

Dynamic sampling as in DAPO (Yu et al. 2025, arXiv 2503.14476), bounded: after so many rounds what is left is left out.
All processes draw the same number of prompts in each round, as many as the one with the most groups to replace, so
that they stay in step whatever each of them found.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

from mllm.errors import ConfigError
from mllm.training.engine import shared_prefix

_LEFT = ("prompt_ids", "prompt_mask")
_BOTH = ("token_type_ids", "mm_token_type_ids")
_WHOLE = ("num_items_in_batch", "run")


def check(trainer: Any) -> None:
    """Refuse settings under which groups cannot be replaced one by one.

    Raises:
        ConfigError: groups that lie on several processes, rewards scaled over the batch, data without a length.
    """
    args = trainer.args
    rows, size = args.per_device_train_batch_size * args.steps_per_generation, args.num_generations
    if rows % size:
        raise ConfigError(
            f"dynamic_sampling: resample needs whole groups on each process: per_device_train_batch_size x "
            f"steps_per_generation = {rows} is no multiple of num_generations = {size}. Change one of them, or set "
            "dynamic_sampling: drop"
        )
    if str(args.scale_rewards) == "batch":
        raise ConfigError(
            "dynamic_sampling: resample draws a part of a batch anew, so rewards cannot be scaled over the batch: set "
            "scale_rewards: group or none, or dynamic_sampling: drop"
        )
    if not hasattr(trainer.train_dataset, "__len__"):
        raise ConfigError("dynamic_sampling: resample draws rows by number, which streamed data do not have")


def drop(trainer: Any, output: dict[str, Any]) -> None:
    """Take groups without any advantage out of the loss and of the number of tokens it is divided by."""
    groups = output.get("run") or list(range(len(output["advantages"])))
    live = _live(output)
    alive = {group for group, one in zip(groups, live, strict=True) if one}
    dead = torch.tensor([group not in alive for group in groups], device=output["completion_mask"].device)
    output["completion_mask"] = output["completion_mask"].masked_fill(dead[:, None], 0)
    _count(trainer, output)
    share = trainer.accelerator.gather(dead.float().mean()).mean().item()
    trainer._metrics["train"]["dynamic_sampling/dropped"].append(share)


def resample(
    trainer: Any,
    inputs: list[dict[str, Any]],
    output: dict[str, Any],
    draw: Callable[[list[dict[str, Any]]], dict[str, Any]],
    rounds: int,
) -> dict[str, Any]:
    """Put fresh prompts' groups in the place of those without advantage, in at most `rounds` rounds.

    Args:
        trainer: a GRPO trainer whose settings passed `check`.
        inputs: the rows that `output` came from, `num_generations` of each prompt; replaced in place with
            their groups.
        output: what TRL's `_generate_and_score_completions` made of them.
        draw: does the same for other rows.
        rounds: at least 1.
    """
    size, taken, done = trainer.num_generations, 0, 0
    for number in range(rounds):
        dead = [group for group, live in enumerate(_live_groups(output, size)) if not live]
        counts = trainer.accelerator.gather(torch.tensor([len(dead)], device=trainer.accelerator.device))
        if int(counts.max()) == 0:
            break
        fresh = [row for row in _rows(trainer, int(counts.max()), number) for _ in range(size)]
        drawn, done = draw(fresh), number + 1
        pairs = list(zip(dead, (g for g, live in enumerate(_live_groups(drawn, size)) if live), strict=False))
        if pairs and output.keys() == drawn.keys():  # text alone cannot stand in for images
            output = replaced(output, drawn, pairs, size, trainer._tokenizer.pad_token_id)
            taken += len(pairs)
            for old, new in pairs:
                inputs[old * size : (old + 1) * size] = fresh[new * size : (new + 1) * size]
    _count(trainer, output)
    groups = torch.tensor([taken * size / len(inputs)], device=trainer.accelerator.device)
    trainer._metrics["train"]["dynamic_sampling/resampled"].append(trainer.accelerator.gather(groups).mean().item())
    trainer._metrics["train"]["dynamic_sampling/rounds"].append(float(done))
    return output


def replaced(
    output: dict[str, Any], drawn: dict[str, Any], pairs: Sequence[tuple[int, int]], size: int, pad: int
) -> dict[str, Any]:
    """Return `output` with groups of `drawn` in it.

    Args:
        output, drawn: batches of TRL's with the same keys; groups of `size` rows.
        pairs: (group of output, group of drawn that takes its place).
        size: rows of a group.
        pad: the padding's token id.
    """
    old_rows = len(output["prompt_ids"])
    order = list(range(old_rows))
    for old, new in pairs:
        order[old * size : (old + 1) * size] = range(old_rows + new * size, old_rows + (new + 1) * size)
    widths = [(one["prompt_ids"].shape[1], one["completion_ids"].shape[1]) for one in (output, drawn)]
    room = max(width for width, _ in widths), max(width for _, width in widths)
    both = [split_pixel_values_by_grid(one) for one in (output, drawn)]
    found: dict[str, Any] = {}
    for name in output:
        if name in _WHOLE:
            continue
        parts: list[Any] = [
            _widened(name, one[name], width, room, pad) for one, width in zip(both, widths, strict=True)
        ]
        if isinstance(parts[0], torch.Tensor):
            found[name] = torch.cat(parts)[torch.tensor(order, device=parts[0].device)]
        else:
            rows = [*parts[0], *parts[1]]
            found[name] = [rows[k] for k in order]
    if "run" in output:
        keys = [("old", output["run"][k]) if k < old_rows else ("new", drawn["run"][k - old_rows]) for k in order]
        found["run"] = shared_prefix.runs(keys)
    found["num_items_in_batch"] = output["num_items_in_batch"]
    return dict(unsplit_pixel_values_by_grid(found))


def _widened(name: str, value: Any, width: tuple[int, int], room: tuple[int, int], pad: int) -> Any:
    """Pad a tensor of prompts on the left, of completions on the right, to the room given; (prompt, completion)."""
    if not isinstance(value, torch.Tensor) or value.dim() != 2:
        return value
    left, right = room[0] - width[0], room[1] - width[1]
    filler = pad if name in ("prompt_ids", "completion_ids") else 0
    if name in _LEFT:
        return functional.pad(value, (left, 0), value=filler)
    if name in _BOTH:
        return functional.pad(value, (left, right), value=filler)
    return functional.pad(value, (0, right), value=filler) if value.shape[1] == width[1] else value


def _live(output: dict[str, Any]) -> list[bool]:
    """Whether each completion has an advantage."""
    return output["advantages"].reshape(len(output["advantages"]), -1).ne(0).any(1).tolist()


def _live_groups(output: dict[str, Any], size: int) -> list[bool]:
    """Whether any completion of each group has an advantage."""
    live = _live(output)
    return [any(live[start : start + size]) for start in range(0, len(live), size)]


def _count(trainer: Any, output: dict[str, Any]) -> None:
    """Count the tokens of all processes that the loss is divided by."""
    counted = output["completion_mask"] * output.get("tool_mask", 1)
    output["num_items_in_batch"] = trainer.accelerator.gather(counted.sum()).sum()


def _rows(trainer: Any, count: int, number: int) -> list[dict[str, Any]]:
    """Draw rows of the training data; which ones follows from seed, step, micro-step, round and process alone, so that
    a run that was stopped draws the same again."""
    place = trainer.state.global_step, trainer._step % trainer.args.gradient_accumulation_steps, number
    rng = random.Random(f"{trainer.args.seed} {place} {trainer.accelerator.process_index}")
    data = trainer.train_dataset
    return [data[rng.randrange(len(data))] for _ in range(count)]

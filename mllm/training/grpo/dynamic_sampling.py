"""Dynamic sampling: drop groups whose completions all got the same reward, or draw other prompts in their place.

As DAPO (Yu et al. 2025, arXiv 2503.14476), but bounded. All processes draw equally many prompts, to stay in step.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn import functional
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

from mllm.errors import ConfigError
from mllm.training.engine import shared_prefix

Rows = list[dict[str, Any]]
DIVIDED_BY_TOKENS = ("dapo", "bnpo", "cispo", "vespo")
"""Losses of TRL that are divided by the number of tokens that count; the others by the number of answers."""
_PROMPT_FIELDS = ("prompt_ids", "prompt_mask")
_FULL_FIELDS = ("token_type_ids", "mm_token_type_ids")  # prompt and completion
_BATCH_FIELDS = ("num_items_in_batch", "run")


@dataclass(frozen=True)
class DynamicSampling:
    """What a GRPO trainer does with groups without advantage; `rounds` limits how often prompts are drawn again."""

    mode: Literal["drop", "resample"]
    rounds: int = 3

    def check(self, args: Any, data: Any) -> None:
        """Refuse settings under which groups cannot be dropped, or replaced one by one.

        Args:
            args: TRL's, of a run.
            data: the training rows.

        Raises:
            ConfigError: drop with a loss that is divided by answers; resample with groups that span processes, rewards
                scaled over the batch, or data without a length.
        """
        if self.mode == "drop":
            if args.loss_type not in DIVIDED_BY_TOKENS:
                raise ConfigError(
                    "dynamic_sampling: drop takes prompts out of the tokens that the loss is divided by, but "
                    f"loss_type: {args.loss_type} is divided by the number of answers, so nothing would change: set "
                    "loss_type: dapo, or dynamic_sampling: resample or off"
                )
            return
        rows, size = args.per_device_train_batch_size * args.steps_per_generation, args.num_generations
        if rows % size:
            raise ConfigError(
                f"dynamic_sampling: resample needs whole groups on each process: per_device_train_batch_size x "
                f"steps_per_generation = {rows} is not a multiple of num_generations = {size}. Change one of them, or "
                "set dynamic_sampling: drop"
            )
        if str(args.scale_rewards) == "batch":
            raise ConfigError(
                "dynamic_sampling: resample replaces a part of a batch, so rewards cannot be scaled over the batch: "
                "set scale_rewards: group or none, or dynamic_sampling: drop"
            )
        if not hasattr(data, "__len__"):
            raise ConfigError("dynamic_sampling: resample draws rows by number, which streamed data do not support")

    def apply(
        self, trainer: Any, inputs: Rows, output: dict[str, Any], draw: Callable[[Rows], dict[str, Any]]
    ) -> dict[str, Any]:
        """Return a batch without the groups that have no advantage.

        Args:
            trainer: a GRPO trainer that passed `check`.
            inputs: the rows of `output`, `num_generations` per prompt; replaced in place with their groups.
            output: the result of TRL's `_generate_and_score_completions`.
            draw: makes the same for other rows.
        """
        if self.mode == "resample":
            output = self._resample(trainer, inputs, output, draw)
        size, count = trainer.num_generations, len(output["advantages"])
        own_N = torch.tensor(_has_advantage(output), device=trainer.accelerator.device).long()
        live_G = trainer.accelerator.gather(own_N).view(-1, size).any(1)  # a group may lie on two processes
        start = trainer.accelerator.process_index * count
        dead_N = ~live_G.repeat_interleave(size)[start : start + count]
        output["completion_mask"] = output["completion_mask"].masked_fill(dead_N[:, None], 0)
        _count_tokens(trainer, output)
        _log(trainer, "dropped", dead_N.float().mean())
        return output

    def _resample(
        self, trainer: Any, inputs: Rows, output: dict[str, Any], draw: Callable[[Rows], dict[str, Any]]
    ) -> dict[str, Any]:
        size, replaced_groups, rounds = trainer.num_generations, 0, 0
        for number in range(self.rounds):
            dead = [group for group, live in enumerate(_live_groups(output, size)) if not live]
            counts = trainer.accelerator.gather(torch.tensor([len(dead)], device=trainer.accelerator.device))
            if int(counts.max()) == 0:
                break
            fresh = [row for row in _random_rows(trainer, int(counts.max()), number) for _ in range(size)]
            drawn, rounds = draw(fresh), number + 1
            pairs = list(zip(dead, (g for g, live in enumerate(_live_groups(drawn, size)) if live), strict=False))
            if pairs and output.keys() == drawn.keys():  # text-only rows cannot replace rows with images
                output = replaced(output, drawn, pairs, size, trainer._tokenizer.pad_token_id)
                replaced_groups += len(pairs)
                for old, new in pairs:
                    inputs[old * size : (old + 1) * size] = fresh[new * size : (new + 1) * size]
        _count_tokens(trainer, output)
        _log(trainer, "resampled", torch.tensor([replaced_groups * size / len(inputs)]))
        trainer._metrics["train"]["dynamic_sampling/rounds"].append(float(rounds))
        return output


def replaced(
    output: dict[str, Any], drawn: dict[str, Any], pairs: Sequence[tuple[int, int]], size: int, pad: int
) -> dict[str, Any]:
    """Return `output` with some groups replaced by groups of `drawn`.

    Both are batches of TRL's with the same keys and groups of `size` rows. `pairs` are (group of output, group of drawn
    that takes its place), `pad` is the padding token's id.
    """
    old_rows = len(output["prompt_ids"])
    order = list(range(old_rows))
    for old, new in pairs:
        order[old * size : (old + 1) * size] = range(old_rows + new * size, old_rows + (new + 1) * size)
    widths = [(one["prompt_ids"].shape[1], one["completion_ids"].shape[1]) for one in (output, drawn)]
    target = max(width for width, _ in widths), max(width for _, width in widths)
    both = [split_pixel_values_by_grid(one) for one in (output, drawn)]
    merged: dict[str, Any] = {}
    for name in [name for name in output if name not in _BATCH_FIELDS]:
        parts = [_padded(name, one[name], width, target, pad) for one, width in zip(both, widths, strict=True)]
        if isinstance(parts[0], torch.Tensor):
            merged[name] = torch.cat(parts)[torch.tensor(order, device=parts[0].device)]
        else:
            rows = [*parts[0], *parts[1]]
            merged[name] = [rows[k] for k in order]
    if "run" in output:
        keys = [("old", output["run"][k]) if k < old_rows else ("new", drawn["run"][k - old_rows]) for k in order]
        merged["run"] = shared_prefix.runs(keys)
    merged["num_items_in_batch"] = output["num_items_in_batch"]
    return dict(unsplit_pixel_values_by_grid(merged))


def _padded(name: str, value: Any, width: tuple[int, int], target: tuple[int, int], pad: int) -> Any:
    """Pad prompts on the left and completions on the right; `width` and `target` are (prompt, completion)."""
    if not isinstance(value, torch.Tensor) or value.dim() != 2:
        return value
    left, right = target[0] - width[0], target[1] - width[1]
    filler = pad if name in ("prompt_ids", "completion_ids") else 0
    if name in _PROMPT_FIELDS:
        return functional.pad(value, (left, 0), value=filler)
    if name in _FULL_FIELDS:
        return functional.pad(value, (left, right), value=filler)
    return functional.pad(value, (0, right), value=filler) if value.shape[1] == width[1] else value


def _has_advantage(output: dict[str, Any]) -> list[bool]:
    return output["advantages"].reshape(len(output["advantages"]), -1).ne(0).any(1).tolist()


def _live_groups(output: dict[str, Any], size: int) -> list[bool]:
    live = _has_advantage(output)
    return [any(live[start : start + size]) for start in range(0, len(live), size)]


def _count_tokens(trainer: Any, output: dict[str, Any]) -> None:
    """Set the number of tokens, over all processes, that the loss is divided by."""
    counted = output["completion_mask"] * output.get("tool_mask", 1)
    output["num_items_in_batch"] = trainer.accelerator.gather(counted.sum()).sum()


def _log(trainer: Any, name: str, share: torch.Tensor) -> None:
    """Log a share of the batch, averaged over the processes."""
    mean = trainer.accelerator.gather(share.to(trainer.accelerator.device)).mean().item()
    trainer._metrics["train"][f"dynamic_sampling/{name}"].append(mean)


def _random_rows(trainer: Any, count: int, number: int) -> Rows:
    """Draw rows of the training data. The choice depends on seed, step, micro-step, round and process alone, so that a
    resumed run draws the same rows."""
    place = trainer.state.global_step, trainer._step % trainer.args.gradient_accumulation_steps, number
    rng = random.Random(f"{trainer.args.seed} {place} {trainer.accelerator.process_index}")
    data = trainer.train_dataset
    return [data[rng.randrange(len(data))] for _ in range(count)]

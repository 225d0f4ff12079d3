"""Credit for each step of the reasoning: a step's reward becomes an advantage of that step's tokens alone.

One reward for the whole answer rewards a wrong verdict in an answer that ends well. Steps are those of the reward
`links`; each is compared within its group, as GRPO compares answers (process supervision, arXiv 2402.03300, 4.1.3).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mllm.metrics.reasoning import spans
from mllm.records import Completion, Sample, Score
from mllm.training.grpo.flat_groups import flat

REWARD = "links"
"""The reward whose parts are credited."""
SPANS = ("recall", "candidates", "choice", "answer")
"""The spans of an answer, in order."""
_SPAN_OF = {
    **dict.fromkeys(("name", "recall", "recall words"), "recall"),
    **dict.fromkeys(("found", "marks seen", "mark seen", "mark judged", "judged"), "candidates"),
    **dict.fromkeys(("form", "compared", "compared given true", "chosen", "restated"), "choice"),
    "copied": "answer",
}


class StepCredit:
    """Adds advantages of steps to those of answers. `add` listens to the rewards; the trainer calls the instance.

    Args:
        weight: of a step's advantage beside the answer's.
        tokenizer: turns completion tokens into text.
    """

    def __init__(self, weight: float, tokenizer: Any) -> None:
        self.weight, self.tokenizer = weight, tokenizer
        self._scores: Sequence[Score] = ()

    def add(
        self, name: str, samples: Sequence[Sample], completions: Sequence[Completion], scores: Sequence[Score]
    ) -> None:
        """Keep the scores of the batch that was just scored."""
        if name == REWARD:
            self._scores = list(scores)

    def __call__(self, output: dict[str, Any], accelerator: Any, group: int) -> torch.Tensor:
        """Return advantages of shape (N, T) for TRL's `output` of N completions of up to T tokens, `group` per prompt.

        A collective call: a group may span processes.
        """
        ids_NT, mask_NT = output["completion_ids"], output["completion_mask"].bool()
        rewards_NS = torch.tensor([span_rewards(score.parts) for score in self._scores], device=ids_NT.device)
        start = accelerator.process_index * len(rewards_NS)
        steps_NS = group_advantages(accelerator.gather(rewards_NS), group)[start : start + len(rewards_NS)]
        place_NT = torch.full_like(ids_NT, -1)
        for row, (ids, mask) in enumerate(zip(ids_NT, mask_NT, strict=True)):
            places = token_spans(ids[mask].tolist(), self.tokenizer)
            place_NT[row, mask] = torch.tensor(places, dtype=ids_NT.dtype, device=ids_NT.device)
        credit_NT = steps_NS.gather(1, place_NT.clamp(min=0)).masked_fill(place_NT < 0, 0.0)
        return output["advantages"].view(len(ids_NT), -1) + self.weight * credit_NT


def span_rewards(parts: Mapping[str, float]) -> list[float]:
    """Return the mean reward of the steps of each span, in the order of `SPANS`; NaN for a span without a step."""
    found = [[share for name, share in parts.items() if _SPAN_OF[name] == span] for span in SPANS]
    return [sum(shares) / len(shares) if shares else float("nan") for shares in found]


def group_advantages(rewards_NS: torch.Tensor, group: int) -> torch.Tensor:
    """Return (r - mean) / (std + 1e-4) within each group of rows, for each span alone; 0 where all are equal,
    and for a row without that reward."""
    grouped_PGS = rewards_NS.view(-1, group, rewards_NS.shape[1])
    centred_PGS = grouped_PGS - grouped_PGS.nanmean(1, keepdim=True)
    std_P1S = centred_PGS.square().nanmean(1, keepdim=True).sqrt()
    advantages_NS = (centred_PGS / (std_P1S + 1e-4)).nan_to_num(0.0).view_as(rewards_NS)
    return advantages_NS.masked_fill(flat(rewards_NS, group), 0.0)


def token_spans(ids: Sequence[int], tokenizer: Any) -> list[int]:
    """Return for each token the index in `SPANS` of the span that it begins in; -1 outside of all."""
    pieces = [tokenizer.decode([token]) for token in ids]
    found = {name: (start, end) for name, start, end in spans("".join(pieces))}
    nowhere, at = (0, 0), 0
    places = []
    for piece in pieces:
        held = [number for number, name in enumerate(SPANS) if at in range(*found.get(name, nowhere))]
        places.append(held[0] if held else -1)
        at += len(piece)
    return places

"""What is measured of answers while training: the benchmarks' own numbers, by the benchmarks' own functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mllm.captions import caption_of
from mllm.config import Evaluate
from mllm.data import bags, caption_stats
from mllm.data.bags import Bag
from mllm.errors import RecordError
from mllm.evaluation import scores
from mllm.metrics import retrieval
from mllm.models import encoders
from mllm.prompting.tasks import score_of
from mllm.records import Completion, Sample


class Measure(Protocol):
    """Numbers of completions by their names in the journal; the best checkpoint is the one with the largest `key`."""

    key: str

    def __call__(self, samples: Sequence[Sample], completions: Sequence[Completion]) -> dict[str, float]:
        """Score completion i of sample i."""
        ...


def choose(samples: Sequence[Sample], root: Path, settings: Evaluate) -> Measure:
    """Return what the samples are measured by; `root` is the folder of their images.

    Raises:
        RecordError: captions beside questions with boxes, captions without a single bag, bag files that do not fit.
    """
    if not any(sample.task == "caption" for sample in samples):
        return Boxes()
    other = next((sample for sample in samples if sample.task != "caption"), None)
    if other is not None:
        raise RecordError(
            f"sample {other.id}: field task: {other.task!r} stands beside captions in the validation file, and one "
            "number has to choose the checkpoint: keep one kind"
        )
    ids = [sample.id for sample in samples]
    found = bags.shared(samples)
    if settings.bags:
        known = set(ids)
        found = [bag for bag in bags.read(settings.bags) if known.issuperset(bag.members)]
    if not found:
        raise RecordError(
            f"the {len(samples)} validation samples hold no whole bag: captions are measured by whether they find "
            "their image in one. Name bag files in evaluate.bags (data_synth/bags.py), or raise evaluate.samples"
        )
    return Captions(found, root, settings.scorer, late=settings.late)


class Boxes:
    """Acc@0.5, the mean IoU, and the share of answers that could not be read."""

    key = "eval/acc"

    def __call__(self, samples: Sequence[Sample], completions: Sequence[Completion]) -> dict[str, float]:
        """Score the answers' boxes."""
        cases = [
            scores.Case(sample, done, score_of(sample, done.answer), None, None)
            for sample, done in zip(samples, completions, strict=True)
        ]
        columns = [(float(case.hit), case.iou, float(case.completion.answer.problem is not None)) for case in cases]
        acc, iou, unread = (sum(column) / len(cases) for column in zip(*columns, strict=True))
        return {self.key: acc, "eval/iou": iou, "eval/unread": unread}


class Captions:
    """R@1 of captions within their bags, and what has to stand beside it: marks' precision and recall, length."""

    key = "eval/r1"

    def __init__(self, found: Sequence[Bag], root: Path, scorer: str, *, late: bool = False) -> None:
        self.bags, self.root, self.scorer, self.late = [list(bag.members) for bag in found], root, scorer, late

    def __call__(self, samples: Sequence[Sample], completions: Sequence[Completion]) -> dict[str, float]:
        """Ask every caption in its bags."""
        captions = {sample.id: caption_of(done) for sample, done in zip(samples, completions, strict=True)}
        files = {sample.id: self.root / sample.image for sample in samples}
        queries = retrieval.bag_queries(self.bags, captions)
        found = retrieval.match(encoders.load(self.scorer, late=self.late), queries, files)
        text = caption_stats.caption_scores(captions, samples)
        marks = {f"eval/{name}": text[name]["value"] for name in ("precision", "recall") if name in text}
        truncated = sum(done.truncated for done in completions) / len(completions)
        return {
            self.key: sum(one.hit for one in found) / len(found),
            "eval/chance": sum(1 / len(query.candidates) for query in queries) / len(queries),
            **marks,
            "eval/words": text["words"],
            "eval/truncated": truncated,
        }

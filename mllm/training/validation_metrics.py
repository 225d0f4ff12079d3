"""Metrics of generated answers during training, computed by the benchmarks' own functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mllm.captions import caption_of
from mllm.config import Evaluate
from mllm.data import bags, caption_stats
from mllm.data.bags import Bag
from mllm.errors import RecordError
from mllm.evaluation import scores
from mllm.metrics import retrieval
from mllm.models import encoders
from mllm.prompting.tasks import score_of, task_of
from mllm.records import Completion, Sample


def choose(samples: Sequence[Sample], root: Path, settings: Evaluate) -> Boxes | Captions:
    """Return the metric for the samples; `root` is the folder of their images.

    It returns scores by their names in the journal; the best checkpoint has the largest `key`.

    Raises:
        RecordError: captions mixed with questions for boxes, captions without a bag, or bag files that do not fit.
    """
    if not any(sample.task == "caption" for sample in samples):
        return Boxes()
    other = next((sample for sample in samples if sample.task != "caption"), None)
    if other is not None:
        raise RecordError(
            f"sample {other.id}: field task: {other.task!r} is mixed with captions in the validation file, but one "
            "score has to select the checkpoint: keep one kind"
        )
    ids = [sample.id for sample in samples]
    chosen = bags.shared(samples)
    if settings.bags:
        known = set(ids)
        chosen = [bag for bag in bags.read(settings.bags) if known.issuperset(bag.members)]
    if not chosen:
        raise RecordError(
            f"the {len(samples)} validation samples contain no complete bag: captions are scored by whether they "
            "retrieve their image in one. Name bag files in evaluate.bags (data_synth/bags.py), or raise "
            "evaluate.samples"
        )
    return Captions(chosen, root, settings.scorer, late=settings.late)


class Boxes:
    """Right answers (Acc@0.5, or right names), mean IoU of boxes, and the share of answers that could not be parsed."""

    key = "eval/acc"

    def __call__(self, samples: Sequence[Sample], completions: Sequence[Completion]) -> dict[str, float]:
        """Score the answers."""
        cases = [
            scores.Case(sample, done, score_of(sample, done.answer), {}, None)
            for sample, done in zip(samples, completions, strict=True)
        ]
        columns = [(float(case.hit), float(case.completion.answer.problem is not None)) for case in cases]
        acc, unread = (sum(column) / len(cases) for column in zip(*columns, strict=True))
        ious = [case.iou for case in cases if task_of(case.sample).has_boxes]
        iou = {"eval/iou": sum(ious) / len(ious)} if ious else {}
        return {self.key: acc, **iou, "eval/unread": unread}


class Captions:
    """R@1 of captions within their bags; also precision and recall of their marks, and their length."""

    key = "eval/r1"

    def __init__(self, chosen: Sequence[Bag], root: Path, scorer: str, *, late: bool = False) -> None:
        self.bags, self.root, self.scorer, self.late = [list(bag.members) for bag in chosen], root, scorer, late

    def __call__(self, samples: Sequence[Sample], completions: Sequence[Completion]) -> dict[str, float]:
        """Retrieve with every caption in its bags."""
        captions = {sample.id: caption_of(done) for sample, done in zip(samples, completions, strict=True)}
        files = {sample.id: self.root / sample.image for sample in samples}
        queries = retrieval.bag_queries(self.bags, captions)
        matches = retrieval.match(encoders.load(self.scorer, late=self.late), queries, files)
        text = caption_stats.caption_scores(captions, samples)
        marks = {f"eval/{name}": text[name]["value"] for name in ("precision", "recall") if name in text}
        truncated = sum(done.truncated for done in completions) / len(completions)
        return {
            self.key: sum(one.hit for one in matches) / len(matches),
            "eval/chance": sum(1 / len(query.candidates) for query in queries) / len(queries),
            **marks,
            "eval/words": text["words"],
            "eval/truncated": truncated,
        }

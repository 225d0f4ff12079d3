"""Find every instance of a kind: the answer is all of their boxes; misses and extra boxes cost alike."""

from collections.abc import Sequence

from mllm.boxes import Box, iou
from mllm.prompting.tasks import ground
from mllm.records import Answer, Sample


def matched_iou(answer: Answer, sample: Sample) -> float:
    """Sum of IoU over the best one-to-one matching / max(boxes answered, boxes true), 0..1; 0 where nothing was read.

    The denominator is Visual-RFT's (arXiv 2503.01785). A box written outside the image counts as answered and matches
    nothing.
    """
    if answer.box is None or not sample.boxes:
        return 0.0
    pairs = match(answer.boxes, sample.boxes)
    return sum(overlap for _, _, overlap in pairs) / max(len(answer.numbers), len(sample.boxes))


def is_exact(answer: Answer, sample: Sample) -> bool:
    """Whether as many boxes were answered as there are, each matched at IoU 0.5."""
    if answer.box is None or not len(answer.numbers) == len(answer.boxes) == len(sample.boxes):
        return False
    return all(ground.is_hit(overlap) for _, _, overlap in match(answer.boxes, sample.boxes))


def match(answered: Sequence[Box], true: Sequence[Box]) -> list[tuple[int, int, float]]:
    """Pair boxes one to one so that the sum of IoU is largest (Kuhn 1955): (index answered, index true, IoU)."""
    from scipy.optimize import linear_sum_assignment

    overlaps = [[iou(a, b) for b in true] for a in answered]
    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    return [(int(i), int(j), overlaps[i][j]) for i, j in zip(rows, columns, strict=True)]


class Task(ground.Task):
    """`Sample.boxes` is the answer: all of them, or none where the kind is absent."""

    def boxes(self, sample: Sample) -> tuple[Box, ...]:
        """Return the boxes that a right answer names."""
        return sample.boxes

    def score(self, answer: Answer, sample: Sample) -> float:
        """`matched_iou`; where nothing is right, 1 for an answer that says so."""
        return matched_iou(answer, sample) if sample.boxes else float(answer.absent)

    def is_right(self, answer: Answer, sample: Sample) -> bool:
        """Whether every box is matched at IoU 0.5 and none is too many."""
        return is_exact(answer, sample) if sample.boxes else answer.absent

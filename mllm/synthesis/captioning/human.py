"""One of the human captions, word for word: sparse in the pocket world, the usual training target on COCO."""

from mllm.synthesis.captioning import CaptionTask, Helpers

NEEDS = ()


def write(task: CaptionTask, helpers: Helpers) -> str:
    """Return the caption that the seed selects; consecutive seeds take turns."""
    return task.given[task.seed % len(task.given)]

"""Agreement with the reference captions by CIDEr-D, which keeps captions close to what people wrote."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

from mllm.distributed import gather
from mllm.errors import ConfigError
from mllm.metrics.cider import HIGH, Frequencies, cider_d
from mllm.records import Sample, Score, load_samples
from mllm.rewards import CaptionReward


@dataclass(frozen=True)
class Reward(CaptionReward):
    """R = CIDEr-D(caption, `sample.captions`), 0..10 (arXiv 1411.5726; times 10, as the usual code gives it).

    How rare an n-gram is (`frequencies`) is counted in a corpus of references: `corpus`, a samples file with captions,
    or `pocket`, captions of the pocket world. `batch` counts in the current batch, over all processes, as the released
    code of No Detail Left Behind does: the same caption then scores differently in another batch, and the common words
    of a batch of look-alikes count for nothing. Samples without references: None.
    """

    high: ClassVar[float] = HIGH
    frequencies: Literal["corpus", "batch"] = "corpus"
    corpus: str = "pocket"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frequencies == "corpus" and self.corpus != "pocket" and not Path(self.corpus).is_file():
            raise ConfigError(
                f"reward 'cider': corpus: {self.corpus}: no such samples file (name one with captions, or set "
                "frequencies: batch)"
            )

    def score_captions(self, samples: Sequence[Sample], captions: Sequence[str]) -> list[Score]:
        """Score each caption; no parts."""
        if self.frequencies == "batch":
            known = dict(gather([(sample.image, sample.captions) for sample in samples if sample.captions]))
            if not known:
                return [Score(None)] * len(samples)
            frequencies = Frequencies.of(known.values())
        else:
            frequencies = corpus_frequencies(self.corpus)
        return [
            Score(min(cider_d(caption, sample.captions, frequencies), self.high)) if sample.captions else Score(None)
            for sample, caption in zip(samples, captions, strict=True)
        ]


@lru_cache(maxsize=4)
def corpus_frequencies(corpus: str) -> Frequencies:
    """Count n-grams in a samples file, once in each process."""
    if corpus == "pocket":
        from mllm.pocket.captions import reference_corpus

        return Frequencies.of(reference_corpus())
    references = [s.captions for s in load_samples(corpus, images=False) if s.task == "caption" and s.captions]
    if not references:
        raise ConfigError(f"reward 'cider': corpus: {corpus} has no caption samples with captions")
    return Frequencies.of(references)

"""Whether a caption's claims are true: the anchor against hallucination that self-retrieval lacks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from mllm.captions import clauses
from mllm.errors import ConfigError
from mllm.records import Sample, Score
from mllm.rewards import CaptionReward


@dataclass(frozen=True)
class Reward(CaptionReward):
    """R = right claims / claims (`precision`), or its harmonic mean with right claims / true marks (`f1`); 0..1.

    Without a teacher, claims are the marks that a caption names, compared with the marks of `sample.things`: exact, but
    in the pocket world only; samples without marks: None. With a teacher that can see, claims are the clauses of the
    caption, and the teacher judges whether each is visible; clauses it cannot judge are left out, and a caption without
    any judged clause gets None. Recall is not known then, so `f1` needs marks. A caption without claims scores 0.
    """

    measure: Literal["precision", "f1"] = "precision"
    teacher: str | None = None
    """A teacher that can see (mllm/synthesis/teachers); None uses the known marks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher is not None and self.measure == "f1":
            raise ConfigError("reward 'faithful': f1 needs all marks to be known; with a teacher, measure precision")

    def score_captions(self, samples: Sequence[Sample], captions: Sequence[str]) -> list[Score]:
        """Score each caption; parts: precision, recall and claims (with a teacher: unsure instead of recall)."""
        by = self._by_marks if self.teacher is None else self._by_teacher
        return [by(sample, caption) for sample, caption in zip(samples, captions, strict=True)]

    def check(self, samples: Iterable[Sample]) -> None:
        """Refuse marks of other worlds than the pocket's: without a teacher claims are read in its words alone."""
        from mllm.pocket.captions import foreign_mark

        for sample in samples if self.teacher is None else ():
            if mark := foreign_mark([thing.marks for thing in sample.things]):
                raise ConfigError(
                    f"reward 'faithful': sample {sample.id}: the mark {mark!r} is not of the pocket world, the only one"
                    " whose captions are judged by known marks; name a teacher that can see (teacher: openai)"
                )

    def _by_marks(self, sample: Sample, caption: str) -> Score:
        from mllm.pocket.captions import foreign_mark, judge

        things = [thing.marks for thing in sample.things if thing.marks]
        if not things or foreign_mark(things):
            return Score(None)
        judged = judge(caption, things)
        p, r = judged.precision, judged.recall
        value = p if self.measure == "precision" else (2 * p * r / (p + r) if p + r else 0.0)
        return Score(value, {"precision": p, "recall": r, "claims": float(judged.claimed)})

    def _by_teacher(self, sample: Sample, caption: str) -> Score:
        from mllm.synthesis.capabilities import Look

        stated = clauses(caption)
        if not stated:
            return Score(0.0, {"precision": 0.0, "claims": 0.0, "unsure": 0.0})
        facts = tuple(mark for thing in sample.things for mark in thing.marks)
        verdicts = _seeing_teacher(str(self.teacher)).sees(Look(Path(sample.image), sample.domain, facts=facts), stated)
        sure = [answer for answer in verdicts if answer is not None]
        parts = {"claims": float(len(stated)), "unsure": float(len(stated) - len(sure))}
        if not sure:
            return Score(None, parts)
        precision = sum(sure) / len(sure)
        return Score(precision, {"precision": precision, **parts})


@cache
def _seeing_teacher(name: str) -> Any:
    from mllm.synthesis import teachers
    from mllm.synthesis.capabilities import Sees, need

    teacher = teachers.load(name)
    need(teacher, Sees, name)
    return teacher

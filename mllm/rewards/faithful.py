"""Whether what a caption claims is there: the anchor against hallucination that self-retrieval alone has not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from mllm.captions import caption_of, clauses
from mllm.errors import ConfigError
from mllm.records import Completion, Sample, Score
from mllm.rewards import BaseReward

Measure = Literal["precision", "f1"]


@dataclass(frozen=True)
class Reward(BaseReward):
    """R = right claims / claims (`precision`), or its harmonic mean with right claims / true marks (`f1`); 0..1.

    Without a teacher, claims are the marks that a caption names, held against the marks of `sample.things`: exact, in
    the pocket world; samples without marks: None. With a teacher that can see, claims are the clauses of the caption
    and the teacher says of each whether it is visible; those it cannot tell are left out, and a caption of which it
    can tell nothing gets None. Its recall is not known, so `f1` needs marks. A caption that claims nothing scores 0.
    """

    task: ClassVar[str] = "caption"

    measure: Measure = "precision"
    teacher: str | None = None
    """A teacher with sight (mllm/teachers); None takes the marks that are known."""

    def __post_init__(self) -> None:
        """Refuse settings without meaning."""
        if self.measure not in get_args(Measure):
            raise ConfigError(f"reward 'faithful': measure must be precision or f1, got {self.measure!r}")
        if self.teacher is not None and self.measure == "f1":
            raise ConfigError("reward 'faithful': f1 needs all marks to be known; with a teacher, measure precision")

    def __call__(self, samples: Sequence[Sample], completions: Sequence[Completion]) -> list[Score]:
        """Score each completion; parts: precision, recall and claims (with a teacher: unsure instead of recall)."""
        score = self._by_marks if self.teacher is None else self._by_teacher
        pairs = zip(samples, completions, strict=True)
        return [score(sample, caption_of(done)) if sample.task == "caption" else Score(None) for sample, done in pairs]

    def _by_marks(self, sample: Sample, caption: str) -> Score:
        """Hold a caption against the marks that are known."""
        from mllm.pocket.captions import judge

        things = [thing.marks for thing in sample.things if thing.marks]
        if not things:
            return Score(None)
        found = judge(caption, things)
        p, r = found.precision, found.recall
        value = p if self.measure == "precision" else (2 * p * r / (p + r) if p + r else 0.0)
        return Score(value, {"precision": p, "recall": r, "claims": float(found.claimed)})

    def _by_teacher(self, sample: Sample, caption: str) -> Score:
        """Ask the teacher about every clause."""
        from mllm.synthesis.capabilities import Look

        stated = clauses(caption)
        if not stated:
            return Score(0.0, {"precision": 0.0, "claims": 0.0, "unsure": 0.0})
        facts = tuple(mark for thing in sample.things for mark in thing.marks)
        told = _sight(str(self.teacher)).sees(Look(Path(sample.image), sample.domain, facts=facts), stated)
        sure = [answer for answer in told if answer is not None]
        if not sure:
            return Score(None, {"claims": float(len(stated)), "unsure": float(len(stated))})
        precision = sum(sure) / len(sure)
        return Score(
            precision,
            {"precision": precision, "claims": float(len(stated)), "unsure": float(len(stated) - len(sure))},
        )


@cache
def _sight(name: str) -> Any:
    from mllm.synthesis import teachers
    from mllm.synthesis.capabilities import Sees, need

    teacher = teachers.load(name)
    need(teacher, Sees, name)
    return teacher

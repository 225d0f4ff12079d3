"""Scores of questions for a name: right names, right genera, the graded score, each kind, and confused pairs."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mllm.evaluation import runs
from mllm.knowledge.cards import Cards
from mllm.metrics import stats
from mllm.models import families
from mllm.prompting.tasks import CompletionReader, score_of
from mllm.prompting.tasks.name import grade, has_genus, named
from mllm.prompting.tasks.quiz import read_choice
from mllm.records import Completion, Sample


@dataclass(frozen=True, slots=True)
class NamingCase:
    """One judged answer. `genus`: whether its genus is right, None where the true one is not known; `answered`: the one
    known name that it gives."""

    sample: Sample
    right: bool
    genus: bool | None
    score: float
    unread: bool
    answered: str | None


def with_taxonomy(questions: Sequence[Sample], genera: Mapping[str, str], cards: Cards | None) -> list[Sample]:
    """Return the questions with the genus and the synonyms of the right name, as far as they or a card tell."""
    found = []
    for sample in questions:
        card = cards.card(sample.entity) if cards is not None and sample.entity in cards else None
        genus = sample.genus or genera.get(sample.entity) or (card.genus if card else "") or None
        also = sample.synonyms or (card.synonyms if card else ())
        found.append(replace(sample, genus=genus, synonyms=also))
    return found


def judge(
    questions: Sequence[Sample], completions: Mapping[str, Completion], reader: CompletionReader
) -> list[NamingCase]:
    """Judge the completion of each question: of task `quiz` by its letter or name, of `name` as the reward does."""
    genera = {sample.entity: sample.genus for sample in questions if sample.genus}
    cases = []
    for sample in questions:
        text = completions[sample.id].text
        if sample.task == "quiz":
            choice = read_choice(text, sample.options)
            answered = None if choice is None else sample.options[choice]
            right, unread = answered == sample.entity, choice is None
            genus, score = right or (answered is not None and genera.get(answered) == sample.genus), float(right)
        else:
            answer = reader.read(sample, text).answer
            found = grade(answer, sample)
            answered, right, unread = named(answer, sample), found == "species", found == "unread"
            genus, score = has_genus(answer, sample, genera), score_of(sample, answer)
        cases.append(NamingCase(sample, right, genus if sample.genus else None, score, unread, answered))
    return cases


def measure(folder: str | Path) -> dict[str, Any]:
    """Judge the saved answers of a folder; return its settings, the slices, each kind, and the confused pairs."""
    info, questions, completions = runs.read_whole(folder)
    convention = runs.convention_of(info, folder)
    reader = CompletionReader(families.load(convention.family), convention.budget)
    cases = judge(questions, completions, reader)
    slices: dict[str, list[NamingCase]] = defaultdict(list)
    kinds: dict[str, list[bool]] = defaultdict(list)
    for case in cases:
        slices["all"].append(case)
    for case in cases:
        if case.sample.seen is not None:
            slices["seen kinds" if case.sample.seen else "unseen kinds"].append(case)
    for case in cases:
        slices[f"domain {case.sample.domain}"].append(case)
        kinds[case.sample.entity].append(case.right)
    means = {name: sum(values) / len(values) for name, values in sorted(kinds.items())}
    taken = Counter((case.sample.entity, case.answered) for case in cases if case.answered and not case.right)
    pairs = sorted(taken.items(), key=lambda item: (-item[1], item[0]))
    return {
        **info,
        "slices": {name: _slice(part) for name, part in slices.items()},
        "over_classes": sum(means.values()) / len(means),
        "classes": means,
        "confusions": [{"name": name, "answered": other, "times": times} for (name, other), times in pairs],
        "chance": _chance(cases),
    }


def _slice(cases: Sequence[NamingCase]) -> dict[str, Any]:
    known = [case for case in cases if case.genus is not None]
    groups = [case.sample.group for case in known]
    genus = stats.mean([float(bool(case.genus)) for case in known], groups) if known else None
    return {
        "samples": len(cases),
        "acc": stats.mean([float(case.right) for case in cases], [case.sample.group for case in cases]).as_dict(),
        "genus": genus.as_dict() if genus else None,
        "score": sum(case.score for case in cases) / len(cases),
        "chance": _chance(cases),
        "unreadable": sum(case.unread for case in cases) / len(cases),
    }


def _chance(cases: Sequence[NamingCase]) -> float:
    """Return the share of right names of one who draws from the names to choose from, or that are known."""
    return sum(1 / max(len(case.sample.options), 1) for case in cases) / len(cases)

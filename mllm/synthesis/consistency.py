"""Check that a thought's statements about its target agree with the target's card. Words only, no model; lenient.

A clause contradicts the card if it quotes another thing's mark in words the card does not have, or gives a part another
colour, pattern, shape, length or size than the card. What the card does not mention is not judged.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mllm.knowledge.cards import content_words, has_mark, normalize_name
from mllm.records import REFERENCE, Sample

SORTS: tuple[frozenset[str], ...] = tuple(
    frozenset(sort.split())
    for sort in (
        "red orange yellow green blue purple violet pink white black brown grey gray golden silver buff cream tan",
        "plain striped spotted banded barred mottled checkered",
        "round wide tall square pointed scalloped oval triangular",
        "long short stubby",
        "large big small tiny huge",
        "straight curved hooked",
    )
)
"""Words of one sort exclude each other when they describe the same part."""
_DENIES = re.compile(
    r"\b(?:no|not|never|without|lacks?|lacking|missing|unlike|rather|instead|whereas|while|but|vain|would|n't)\b", re.I
)
_VERDICT = re.compile(r" (?:fits|not)(?=[,.]|$)")
"""After a mark: whether it is what is sought (the pocket teachers' form). It does not deny that the mark is there."""
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_CLAUSE = re.compile(r"[.,;:()!?]|\band\b|\bwith\b|\bor\b")


def contradictions(sample: Sample, thought: str, cards: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the clauses of a thought that contradict the card of the thing asked for."""
    own = cards[sample.entity]
    others = [mark for thing in sample.things if thing.entity != sample.entity for mark in cards[thing.entity]]
    foreign = [mark for mark in others if not has_mark(own, mark)]
    return [clause for clause in _about_target(sample, thought, own) if not _agrees(clause, own, foreign)]


def _about_target(sample: Sample, thought: str, own: Sequence[str]) -> Iterator[str]:
    """Yield the clauses about the target, after removing its own marks where they are quoted word for word.

    They are in the text before the first candidate (the recall) and from `<obj:K>` of the target to the next candidate,
    but not in sentences that name another entity of the image or deny something.
    """
    for mark in sorted((mark for mark in own if " " in mark), key=len, reverse=True):
        thought = thought.replace(mark, " ")
    others = {*(thing.entity for thing in sample.things), *sample.options} - {sample.entity}
    names = {normalize_name(name) for name in others}
    pieces = REFERENCE.split(thought)
    about = [pieces[0]]
    for reference, text in zip(pieces[1::2], pieces[2::2], strict=True):
        if sample.things[int(reference)].entity == sample.entity:
            about.append(text)
    for text in about:
        for sentence in _SENTENCE.split(_VERDICT.sub("", text)):
            if not any(name in normalize_name(sentence) for name in names) and not _DENIES.search(sentence):
                yield from (clause.strip() for clause in _CLAUSE.split(sentence) if clause.strip())


def _agrees(clause: str, own: Sequence[str], foreign: Iterable[str]) -> bool:
    used, known = content_words([clause]), content_words(own)
    if any(used <= content_words([mark]) for mark in own) and not (len(used) == 1 and _bare_clash(used, own)):
        return True
    for mark in foreign:
        quoted = content_words([mark])
        if quoted and quoted <= used and not quoted <= known:
            return False
    words = normalize_name(clause).split()
    return not _bare_clash(used, own) and not any(_clash(words, normalize_name(mark).split(), own) for mark in own)


def _bare_clash(used: frozenset[str], own: Sequence[str]) -> bool:
    """Whether a single word describes the whole thing while the card has other single words of its sort."""
    bare = {word for mark in own if len(content_words([mark])) == 1 for word in content_words([mark])}
    return len(used) == 1 and any(used <= sort and bare & sort and not used & bare for sort in SORTS)


def _clash(clause: list[str], mark: list[str], own: Sequence[str]) -> bool:
    """Whether clause and mark give the same part different words of one sort."""
    for sort in SORTS:
        ours, its = sort & set(mark), sort & set(clause)
        if not ours or not its or ours & its:
            continue
        if len(mark) > 1 and len(clause) > 1 and clause[-1] == mark[-1] and mark[-1] not in sort:
            return not any(its & content_words([other]) for other in own if clause[-1] in content_words([other]))
    return False

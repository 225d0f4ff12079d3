"""Details of captions, found without a model: what one caption adds to another, and where two contradict each other.

A detail is a content word in lower case, without a plural `s`. This is coarse (a synonym counts as another detail, and
word order and negation are ignored), but it treats every caption alike and hides nothing.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mllm.captions import WORD, words

EMPTY = frozenset(
    "a an the this that these those some any there here it its it's their his her they he she who which what where "
    "is are was were be been being am has have had do does did can could will would shall should may might must "
    "and or but with without of in on at by for from to into onto over under up down out off near next beside behind "
    "between through across along around about against among above below as than then so while when if not no very "
    "each other one another both all lot lots picture photo image "
    "photograph showing shows shown seen visible get gets going go looking look looks".split()
)
"""Words that do not count as details."""
COLOURS = frozenset(
    "red orange yellow green blue purple white black brown gray grey pink gold golden silver tan beige".split()
)
NUMBERS = frozenset("two three four five six seven eight nine ten eleven twelve".split())
_ENDS = ".,;:!?\n"
_WORD_OR_END = re.compile(rf"{WORD.pattern}|[{_ENDS}]")
_SAME = {"grey": "gray", "golden": "gold"}
_ADVERBS = frozenset("large small big little young old long short tall wide".split())


def details(text: str) -> tuple[str, ...]:
    """Return the details of a text, each once, in order."""
    return tuple(dict.fromkeys(_stem(_SAME.get(word, word)) for word in words(text) if word not in EMPTY))


def lost(before: Iterable[str], after: str) -> tuple[str, ...]:
    """Return the details of the texts `before` that `after` lacks."""
    kept = set(details(after))
    return tuple(dict.fromkeys(one for text in before for one in details(text) if one not in kept))


def added(before: Iterable[str], after: str) -> tuple[str, ...]:
    """Return the details of `after` that none of the texts `before` has."""
    known = {one for text in before for one in details(text)}
    return tuple(one for one in details(after) if one not in known)


def kept_share(before: Sequence[str], after: str) -> float:
    """Return the share of the details of `before` that `after` keeps, 0..1; 1 where there are none.

    Where the texts disagree on a colour or number, only one value can be kept: the others do not count as lost.
    """
    kept = _attributes(after)
    disputed = (values for thing, values in _stated(before).items() if kept.get(thing, set()) & set(values))
    excused = {value for values in disputed for value in values}
    total = {one for text in before for one in details(text)}
    missing = set(lost(before, after))
    excused &= missing
    return 1.0 - len(missing - excused) / len(total - excused) if total - excused else 1.0


def conflicts(trusted: str, other: str) -> tuple[str, ...]:
    """Return where `other` contradicts `trusted` on the colour or number of a thing, as `black bear / brown`.

    Only words right before a noun are compared, words of size between them aside. A thing to which either text gives
    several colours or numbers is skipped, since it may be several things.
    """
    found = []
    mine, theirs = _attributes(trusted), _attributes(other)
    for (kind, noun), values in theirs.items():
        known = mine.get((kind, noun), set())
        if len(known) == 1 and len(values) == 1 and known != values:
            found.append(f"{min(known)} {noun} / {min(values)}")
    return tuple(found)


def settled(text: str, texts: Sequence[str]) -> str:
    """Return a text without the colours and numbers that most of `texts` contradict (on ties the first text wins).

    >>> settled("a brown bear sits", ["a black bear", "a brown bear", "a black bear in grass"])
    'a bear sits'
    """
    stated = _stated(texts)
    for mention in reversed(_mentions(text)):
        votes = stated.get((mention.kind, mention.noun), [])
        if len(set(votes)) > 1 and max(votes, key=votes.count) != mention.value:
            text = text[: mention.start] + text[mention.end :].lstrip()
    return text


def _stated(texts: Iterable[str]) -> dict[tuple[str, str], list[str]]:
    """Return what texts state about each thing: (kind, noun) -> the colour or number in each text, in order.

    A thing that a text names twice, or gives two values, is left out: it may be several things.
    """
    texts = list(texts)
    found: dict[tuple[str, str], list[str]] = {}
    several = {noun for text in texts for noun, times in Counter(map(_stem, words(text))).items() if times > 1}
    for text in texts:
        for thing, values in _attributes(text).items():
            found.setdefault(thing, []).extend(values)
            several |= {thing[1]} if len(values) > 1 else set()
    return {thing: values for thing, values in found.items() if thing[1] not in several}


def _attributes(text: str) -> dict[tuple[str, str], set[str]]:
    """Return the colours and numbers of each thing: (kind, noun) -> the words before it."""
    found: dict[tuple[str, str], set[str]] = {}
    for mention in _mentions(text):
        found.setdefault((mention.kind, mention.noun), set()).add(mention.value)
    return found


class _Mention(NamedTuple):
    """A colour or number before a noun, and the position of its word."""

    kind: str
    noun: str
    value: str
    start: int
    end: int


def _mentions(text: str) -> list[_Mention]:
    """Return every colour and number with its noun, in order."""
    tokens = [(match[0].lower(), match.span()) for match in _WORD_OR_END.finditer(text)]
    found = []
    for place, (word, span) in enumerate(tokens):
        if (kind := "colour" if word in COLOURS else "number" if word in NUMBERS else None) is None:
            continue
        rest = (other for other, _ in tokens[place + 1 :])
        noun = next((one for one in rest if one not in _ADVERBS and one not in COLOURS), ".")
        if noun not in _ENDS and noun not in EMPTY and noun not in NUMBERS:
            found.append(_Mention(kind, _stem(noun), _SAME.get(word, word), *span))
    return found


def _stem(word: str) -> str:
    """Remove the ending of a plural or a possessive: `buses` -> `bus`, `dogs` -> `dog`, `wings` -> `wing`."""
    word = word.removesuffix("'s").removesuffix("’s")
    if len(word) > 4 and word.endswith(("ses", "xes", "ches", "shes")):
        return word[:-2]
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word

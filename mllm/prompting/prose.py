"""Marks in whole sentences: how the teacher `cards` words them, and how they are read back.

A mark is a noun phrase of a part (`pointed ears`: one *has* it), says what the whole *is* (`striped`, `a songbird`), or
is something else, which is only *noted* (`often has a sad face`). Each sentence frame exists for some of the three.
"""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from mllm.captions import with_article
from mllm.knowledge.cards import PARTS, part_of

Way = Literal["has", "is", "note"]
RECALL: dict[Way, tuple[str, ...]] = {
    "has": (
        "To find the {name}, I look for {marks}.",
        "The {name} should have {marks}.",
        "I would know the {name} by {marks}.",
        "From memory, the {name} should show {marks}.",
        "What I know of the {name}: {marks}.",
    ),
    "is": (
        "The {name} should be {marks}.",
        "From memory, the {name} should be {marks}.",
        "I expect the {name} to be {marks}.",
    ),
    "note": (
        "What I know of the {name}: {marks}.",
        "My notes on the {name}: {marks}.",
        "Field marks of the {name}: {marks}.",
    ),
}
"""How a thought begins that is asked for a name."""
SOUGHT: dict[Way, tuple[str, ...]] = {
    "has": ("I look for one with {marks}.", "The one I want has {marks}."),
    "is": ("I look for one that is {marks}.", "The one I want is {marks}."),
    "note": ("What I look for: {marks}.", "The description says: {marks}."),
}
"""How a thought begins that is asked for marks."""
LOOK: dict[Way, tuple[str, ...]] = {
    "has": (
        "The {nth}, {box}, has {marks}.",
        "The {nth} one, at {box}, shows {marks}.",
        "At {box} I see {marks}.",
        "At {box} there is one with {marks}.",
    ),
    "is": (
        "The {nth}, {box}, is {marks}.",
        "The {nth} one, at {box}, is {marks}.",
        "The one at {box} is {marks}.",
        "At {box} there is one that is {marks}.",
    ),
    "note": (
        "The {nth}, {box}: {marks}.",
        "The {nth} one, at {box}: {marks}.",
        "At {box} I note: {marks}.",
        "Of the one at {box} I note: {marks}.",
    ),
}
"""How a candidate is described; a thought keeps to one place in the three lists."""
NTH = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")

_PARTS = PARTS | frozenset(
    "limb jaw beard eyebrow lip brow wingtip wingbar wingspan underpart upperpart toe knee marking spot stripe band "
    "patch streak bar ring mask bib spur size build shape coloration colouring coloring expression trim line accent "
    "exterior interior foliage blade blossom bloom bract bulb lobe bell stalk stamens vein tip edge base light lamp "
    "fog pipe tailpipe hatch rim logo badge emblem lettering antennas rail roofline windshield tailfin nacelle intake "
    "rudder flap slat gear canopy hump strut pod float surface glaze icing topping garnish slice cube layer "
    "balcony gate column pillar stair steeple turret lantern".split()
)
"""Nouns of what one has."""
_MASS = frozenset("fur hair plumage skin coloration colouring coloring foliage trim gear lettering icing glaze".split())
_WHOLES = frozenset(
    "animal mammal bird songbird seabird waterbird waterfowl raptor gull duck dog cat breed flower plant shrub tree "
    "herb succulent insect fish car sedan coupe suv wagon hatchback convertible van minivan truck pickup vehicle "
    "aircraft airliner jet plane airplane biplane helicopter fighter dish soup stew salad cake pie pastry bread "
    "sandwich dessert church castle bridge palace temple".split()
)
"""Nouns of what one is."""
_QUALITIES = frozenset(
    "red orange yellow green blue purple violet pink white black brown grey gray golden silver cream buff tan beige "
    "round wide tall square pointed scalloped plain oval triangular slim slender stocky plump muscular large big small "
    "tiny short long hairless sleek boxy angular striped spotted banded barred mottled checkered".split()
)
_DETERMINERS = frozenset("a an the no its one two three four five six several many some each every both".split())
_ORDINARY = re.compile(
    r"(?:ed|ing|y|ive|al|ous|ful|like|shaped|style|ic|ar|ish|less|en)$|^(?:"
    + "|".join(sorted(_DETERMINERS | _QUALITIES))
    + r"|front|rear|side|top|dual|single|twin|alloy|chrome|leather|fog|power|thick|thin|dark|light|bright|deep|low|"
    r"high|smooth|passenger|soft|hard|fine|double|pads|elegant|bold)\b"
)
"""First words that are no names, so that their capital is only that of a line."""
_STOPS = frozenset(
    "with without on of in around above below under at for from near along over across between running that which who "
    "used when where".split()
)
_VERBS = frozenset(
    "is are was were has have had can may might will often usually typically sometimes commonly generally mostly made "
    "found grows served covered filled contains lacks lives".split()
)
_INNER = re.compile(r"[,;]| and | as well as ")
_ARTICLE = re.compile(r"an? ", re.IGNORECASE)


def way(mark: str) -> Way:
    """Say whether one has a mark, is it, or whether it can only be noted."""
    head = _head(mark)
    if not head or head[0] in _STOPS or _VERBS & set(head):
        return "note"
    if set(head) <= _QUALITIES and not _INNER.search(mark):
        return "is"
    if _noun(head[-1]) in _PARTS:
        return "has"
    whole = _noun(head[-1]) in _WHOLES and not _is_plural(head[-1])
    return "is" if whole and " and " not in mark else "note"


def phrase(mark: str) -> str:
    """Write a mark as it stands within a sentence: with `a` where one thing needs it, without the capital of a line."""
    mark = mark.strip(" ,;.")
    head = _head(mark)
    if head and mark[:1].isupper() and mark[1:2].islower() and (_ORDINARY.search(head[0]) or _noun(head[0]) in _PARTS):
        mark = mark[0].lower() + mark[1:]
    if way(mark) == "note" or set(head) <= _QUALITIES:
        return mark
    if head[-1] in _MASS or any(_is_plural(word) and _noun(word) in _PARTS for word in head):
        return _ARTICLE.sub("", mark, count=1) if _ARTICLE.match(mark) else mark
    return mark if head[0] in _DETERMINERS else with_article(mark)


def bare(mark: str) -> str:
    """Return a mark without its article and in lower case, the form in which marks read back are compared."""
    return _ARTICLE.sub("", mark.lower(), count=1) if _ARTICLE.match(mark) else mark.lower()


def stated(marks: Sequence[str]) -> tuple[Way, str]:
    """Join marks into what a frame takes: (`has`, "red fur and a long tail"), (`is`, "round, with a blue cap")."""
    ways = [way(mark) for mark in marks]
    has = [phrase(mark) for mark, one in zip(marks, ways, strict=True) if one == "has"]
    wholes = [phrase(mark) for mark, one in zip(marks, ways, strict=True) if one == "is"]
    if len(has) == len(marks):
        return "has", joined(has)
    mixed = len(wholes) > 1 and any(_ARTICLE.match(one) for one in wholes)
    if "note" in ways or mixed:
        return "note", joined([phrase(mark) for mark in marks], apart=len(marks) > 2)
    return "is", joined(wholes, whole=True) + (f", with {joined(has)}" if has else "")


def captioned(entity: str, marks: Sequence[str]) -> str:
    """Describe one thing of a kind: `A wren with a short tail.`; a name in the plural has no article."""
    way_, text = stated(marks)
    start = f"{entity[0].upper()}{entity[1:]}"
    if way_ == "note":
        return f"{start}: {text}."
    start = start if _is_plural(entity) else with_article(entity, capital=True)
    return f"{start} with {text}." if way_ == "has" else f"{start}, {text}."


def joined(marks: Sequence[str], *, whole: bool = False, apart: bool = False) -> str:
    """Join marks as a sentence does; `apart`, and those with commas or `and` of their own, with semicolons."""
    inner = apart or any(_INNER.search(mark) for mark in marks)
    if len(marks) == 1:
        return f'"{marks[0]}"' if " and " in marks[0] and not whole else marks[0]
    if inner and len(marks) == 2:
        return " as well as ".join(marks)
    if inner:
        return "; ".join([*marks[:-1], f"and {marks[-1]}"])
    return " and ".join([", ".join(marks[:-1]), marks[-1]])


def parted(text: str) -> tuple[str, ...]:
    """Take apart what `joined` or `stated` made, without the articles; text of another form gives some marks."""
    first, with_, rest = text.partition(", with ")
    if with_ and ";" not in first and way(first) != "has":
        return (*parted(first), *parted(rest))
    if text.startswith('"') or (_ARTICLE.match(text) and not re.search(r";| and | as well as ", text)):
        pieces = [text.strip('"')]
    elif ";" in text:
        pieces = [piece.strip().removeprefix("and ") for piece in text.split(";")]
    elif " as well as " in text:
        pieces = text.split(" as well as ")
    elif " and " in text:
        pieces = re.split(r", | and ", text)
    else:
        pieces = [text]
    return tuple(bare(piece.strip()) for piece in pieces if piece.strip())


class Prose(NamedTuple):
    """A thought in sentences, taken apart: name (`marks` where marks were asked for), marks, candidates, the rest.

    A candidate is (text of its box, its marks).
    """

    name: str
    marks: tuple[str, ...]
    candidates: tuple[tuple[str, tuple[str, ...]], ...]
    rest: str


def read(text: str) -> Prose | None:
    """Read a thought that `RECALL` or `SOUGHT` begins; None for one of another form."""
    beginnings = [found for pattern in _BEGIN if (found := pattern.match(text))]
    if not beginnings:
        return None
    begun = min(beginnings, key=lambda found: found.start("marks"))  # a name may hold a point: "St. Bernard"
    found = list(_LOOK.finditer(text, begun.end()))
    filled = [{key.partition("_")[0]: text for key, text in one.groupdict().items() if text} for one in found]
    candidates = tuple((one["box"], parted(one["marks"])) for one in filled)
    rest = text[found[-1].end() if found else begun.end() :]
    return Prose(begun.groupdict().get("name", "marks"), parted(begun["marks"]), candidates, rest)


def _pattern(frame: str, suffix: str = "") -> str:
    fields = {"name": r".+?", "box": r"(?:(?!\.\s).){1,80}?", "marks": r".+?", "nth": "|".join(NTH)}
    written = re.sub(r"\\\{(\w+)\\\}", lambda m: f"(?P<{m[1]}{suffix}>{fields[m[1]]})", re.escape(frame))
    return rf"{written}(?=\s|$)"


def _head(mark: str) -> list[str]:
    """Return the words of a mark up to its first preposition."""
    words = re.findall(r"[^\W_]+(?:[-'’/][^\W_]+)*", mark.lower())
    return words[: next((place for place, word in enumerate(words) if word in _STOPS and place), len(words))]


def _noun(word: str) -> str:
    last = word.rpartition("-")[2]
    return part_of(last) or next((form for form in (last, last.removesuffix("s")) if form in _PARTS | _WHOLES), last)


def _is_plural(word: str) -> bool:
    last = word.rpartition("-")[2]
    return last in ("feet", "leaves", "antennae", "hooves", "teeth") or (last.endswith("s") and not last.endswith("ss"))


_BEGIN = [re.compile(_pattern(frame)) for kind in (RECALL, SOUGHT) for frames in kind.values() for frame in frames]
_LOOKS = [frame for frames in LOOK.values() for frame in frames]
_LOOK = re.compile("|".join(_pattern(frame, f"_{place}") for place, frame in enumerate(_LOOKS)))

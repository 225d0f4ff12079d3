"""Domains: the kinds of things to find. Any noun names one; those of a file have wordings of their own, too.

To add one, write `mllm/knowledge/domains/<name>.yaml` with `noun`, `plural`, `source`, `licence` and perhaps
`questions`, wordings asked after those that fit any noun. Nothing else changes.

Rows name a domain by its file, or by its noun, followed by its plural where the rules of plural give another one
(`orchid`, `fungus/fungi`): `load` needs no more than that, so that data can be read without the user's file.
"""

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from mllm.errors import FieldmarkError, UnknownNameError
from mllm.io import strict_json, strict_yaml
from mllm.registry import YamlRegistry

_Noun = Annotated[str, Field(pattern=r"^[^{}]+$")]
_Question = Annotated[str, Field(pattern=r"^[^{}]*\{entity\}[^{}]*$")]


_CAN_BE_NOUN = re.compile(r"[^\W_](?:[\w'’ -]{0,58}\w)?")
_UNCHANGED = frozenset("sheep deer moose species series aircraft spacecraft bison offspring".split())
_IRREGULAR = {
    one: many
    for one, _, many in (
        pair.partition("/")
        for pair in (
            "man/men woman/women child/children person/people mouse/mice louse/lice goose/geese foot/feet tooth/teeth "
            "ox/oxen leaf/leaves loaf/loaves wolf/wolves calf/calves shelf/shelves knife/knives potato/potatoes "
            "tomato/tomatoes hero/heroes"
        ).split()
    )
}


class DomainError(FieldmarkError):
    """A domain file that cannot be read, or a text that is not a noun. Names the file and the field."""


@dataclass(frozen=True, slots=True)
class Domain:
    """One kind of thing, e.g. birds.

    `questions` are templates that contain `{entity}` once; the first is always `Find the <noun> {entity}.`, the wording
    on which the pocket model was pre-trained.
    """

    name: str
    noun: str
    plural: str
    questions: tuple[str, ...]
    source: str
    """A published set of labelled photos of this domain (name, authors, address)."""
    licence: str
    """The licence of that set, as its authors state it."""

    def question(self, entity: str, which: int = 0) -> str:
        """Write one question; `which` is an index into the templates, modulo their number."""
        return self.worded(self.questions[which % len(self.questions)], entity)

    def worded(self, template: str, entity: str, **values: str) -> str:
        """Fill in a template; where the entity is the noun itself ("person"), the noun stands there once."""
        text = template.format(noun=self.noun, plural=self.plural, entity=entity, **values)
        if entity.casefold() == self.noun.casefold():
            text = text.replace(f"{self.noun} called {entity}", entity).replace(f"{self.noun} {entity}", entity)
        return text


class _DomainInFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    noun: _Noun
    plural: _Noun
    source: str = ""
    licence: str = ""
    questions: list[_Question] = []


def read(file: Path) -> Domain:
    """Read a domain file. Raises DomainError: broken YAML, or a bad field."""
    content = strict_yaml.read(file, DomainError)
    found = strict_json.parsed(content, _DomainInFile, f"{file}: ", kind=DomainError)
    return _domain(file.stem, found)


def named(words: str, plural: str | None = None) -> str:
    """Return what rows call the domain that a user names: by a known name, a noun, `noun/plural`, or a YAML file.

    A file is read now, and `load` then gives its wordings. Raises UnknownNameError for the plural of a known domain,
    DomainError for a file that cannot be read or a text that is not a noun.
    """
    if words.endswith((".yaml", ".yml")):
        if plural:
            raise DomainError(f"{words}: the file gives the plural; leave --plural out or change the file")
        given = read(Path(words))
        name = _row_name(given.noun, given.plural)
        _GIVEN[name] = replace(given, name=name)
        return name
    noun, _, written = (" ".join(part.split()) for part in words.partition("/"))
    return check(_row_name(noun, plural or written or None)).name


def check(name: str) -> Domain:
    """Return the domain that a user's row names. Raises UnknownNameError for the plural of a known one, else as `load`.

    A noun of one's own is what differs from the known names in more than case and number.
    """
    noun = name.partition("/")[0]
    known = {word.casefold() for one in map(load, names()) for word in (one.name, one.plural)}
    if noun not in names() and noun.casefold() in known:
        raise UnknownNameError("domain", noun, names())
    return load(name)


def load(name: str) -> Domain:
    """Return a domain by what rows call it. Raises DomainError: a text that is not a noun."""
    return _GIVEN.get(name) or _load(name)


def noun(name: str) -> str:
    """Return the noun of a domain by what rows call it; "thing" for rows that name none."""
    return load(name).noun if name else "thing"


def plural_of(noun: str) -> str:
    """Form a plural by the rules of English: "slime mould" becomes "slime moulds", "bird of prey" "birds of prey"."""
    head, of, rest = noun.partition(" of ")
    before, _, last = head.rpartition(" ")
    low = last.casefold()
    if low in _UNCHANGED or low.endswith("fish"):
        many = last
    elif low in _IRREGULAR:
        many = _IRREGULAR[low]
    elif re.search(r"[^aeiou]y$", low):
        many = f"{last[:-1]}ies"
    else:
        many = f"{last}{'es' if re.search('(?:[sxz]|ch|sh)$', low) else 's'}"
    return f"{before} {many}".strip() + of + rest


def _row_name(noun: str, plural: str | None) -> str:
    usual = _FILES.load(noun).plural if noun in names() else plural_of(noun)
    return noun if plural in (None, usual) else f"{noun}/{plural}"


@lru_cache(maxsize=1_000)
def _load(name: str) -> Domain:
    if name in names():
        return _FILES.load(name)
    noun, slash, plural = name.partition("/")
    plural = plural if slash else plural_of(noun)
    if not _CAN_BE_NOUN.fullmatch(noun) or not _CAN_BE_NOUN.fullmatch(plural):
        raise DomainError(
            f"domain {name!r}: a noun is needed (orchid, slime mould, or fungus/fungi with its plural), a YAML "
            f"file that describes one, or one of {', '.join(names())}"
        )
    return _domain(name, _DomainInFile(noun=noun, plural=plural))


def _domain(name: str, found: _DomainInFile) -> Domain:
    noun, plural = found.noun, found.plural
    for_any = (
        f"Find the {noun} {{entity}}.",
        f"Where is the {{entity}}? Give its box among these {plural}.",
        f"Among these {plural} there is one {{entity}}: box it.",
        "Point out the {entity} with one box.",
        f"Locate the {noun} called {{entity}}.",
    )
    return Domain(name, noun, plural, (*for_any, *found.questions), found.source, found.licence)


_FILES = YamlRegistry(__name__, "domain", read)
_GIVEN: dict[str, Domain] = {}
names = _FILES.names

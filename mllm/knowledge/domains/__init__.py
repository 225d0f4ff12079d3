"""Domains: the kinds of things to find, one file each.

To add one, write `mllm/knowledge/domains/<name>.yaml` with `noun`, `plural`, `source`, `licence` and perhaps
`questions`, wordings asked after those that fit any noun. Nothing else changes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from mllm.errors import FieldmarkError
from mllm.io import strict_json, strict_yaml
from mllm.registry import YamlRegistry

_Noun = Annotated[str, Field(pattern=r"^[^{}]+$")]
_Question = Annotated[str, Field(pattern=r"^[^{}]*\{entity\}[^{}]*$")]


class DomainError(FieldmarkError):
    """A domain file that cannot be read. Names the file and the field."""


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
        return self.questions[which % len(self.questions)].format(entity=entity)


class _DomainInFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    noun: _Noun
    plural: _Noun
    source: str
    licence: str
    questions: list[_Question] = []


def read(file: Path) -> Domain:
    """Read a domain file. Raises DomainError: broken YAML, or a bad field."""
    content = strict_yaml.read(file, DomainError)
    found = strict_json.parsed(content, _DomainInFile, f"{file}: ", kind=DomainError)
    noun, plural = found.noun, found.plural
    for_any = (
        f"Find the {noun} {{entity}}.",
        f"Where is the {{entity}}? Give its box among these {plural}.",
        f"Among these {plural} there is one {{entity}}: box it.",
        "Point out the {entity} with one box.",
        f"Locate the {noun} called {{entity}}.",
    )
    return Domain(file.stem, noun, plural, (*for_any, *found.questions), found.source, found.licence)


_FILES = YamlRegistry(__name__, "domain", read)
names, load = _FILES.names, _FILES.load


def noun(domain: str) -> str:
    """Return the noun of a domain; of one without a file, its own name."""
    return load(domain).noun if domain in names() else domain

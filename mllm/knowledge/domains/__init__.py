"""Domains: the kinds of things to find, one file each.

To add one, write `mllm/knowledge/domains/<name>.py` with `DOMAIN = Domain(name="<name>", ...)`. Nothing else changes.
"""

from dataclasses import dataclass

from mllm.errors import FieldmarkError
from mllm.registry import Registry


class DomainError(FieldmarkError):
    """A domain file with a malformed question template."""


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

    def __post_init__(self) -> None:
        for template in self.questions:
            if template.count("{entity}") != 1 or template.count("{") != 1:
                raise DomainError(f"domain {self.name}: question {template!r} must hold {{entity}} exactly once")
        if not self.questions or self.questions[0] != f"Find the {self.noun} {{entity}}.":
            raise DomainError(f"domain {self.name}: the first question must be 'Find the {self.noun} {{entity}}.'")

    def question(self, entity: str, which: int = 0) -> str:
        """Write one question; `which` is an index into the templates, modulo their number."""
        return self.questions[which % len(self.questions)].format(entity=entity)


def questions(noun: str, plural: str) -> tuple[str, ...]:
    """Return the templates that fit any noun; a domain may add its own."""
    return (
        f"Find the {noun} {{entity}}.",
        f"Where is the {{entity}}? Give its box among these {plural}.",
        f"Among these {plural} there is one {{entity}}: box it.",
        "Point out the {entity} with one box.",
        f"Locate the {noun} called {{entity}}.",
    )


_FILES = Registry(__name__, "domain", "DOMAIN")
names = _FILES.names


def load(name: str) -> Domain:
    """Return the domain called `name`; an unknown name is an error that lists the known ones."""
    return _FILES.load(name)

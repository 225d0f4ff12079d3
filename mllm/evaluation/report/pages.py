"""Shared by the pages: the templates, which escape all text, entries of a gallery, and the shortening of model text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mllm.io import tables


@dataclass(frozen=True, slots=True)
class Entry:
    """One card of a gallery. `images` are those of a bag, `uri` the image of a single sample."""

    id: str
    domain: str
    question: str
    seen: bool | None
    outcome: str
    iou: float | None
    text: str = ""
    uri: str | None = None
    images: tuple[dict[str, Any], ...] = ()


def render(template: str, **values: Any) -> str:
    """Fill a template of this folder. Everything that comes from models or files is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mllm.evaluation.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": tables.percent, "interval": tables.interval}
    return environment.get_template(template).render(values)


def shortened(text: str, limit: int) -> str:
    """Return at most `limit` characters of a text, with a sign where some were left out."""
    return text if len(text) <= limit else text[:limit] + " […]"


def compared(names: Sequence[str], *, against_first: bool) -> Iterator[tuple[str, str]]:
    """Pair each run with the one before it, or with the first."""
    return zip(names[:1] * len(names) if against_first else names, names[1:], strict=False)

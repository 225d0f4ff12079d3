"""Shared by the pages: the templates, which escape all text, and the shortening of model text."""

from collections.abc import Iterator, Sequence
from typing import Any

from mllm.io import tables


def render(template: str, **values: Any) -> str:
    """Fill a template of this folder. Everything that comes from models or files is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("mllm.evaluation.report", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters |= {"percent": tables.percent, "interval": tables.interval}
    return environment.get_template(template).render(values)


def shortened(text: str, limit: int) -> str:
    """Return at most `limit` characters of a text, with a sign where some were left out."""
    return text if len(text) <= limit else text[:limit] + " […]"


def compared(names: Sequence[str], *, against_first: bool) -> Iterator[tuple[str, str]]:
    """Pair each run with the one before it, or with the first."""
    return zip(list(names[:1]) * len(names) if against_first else names, names[1:], strict=False)

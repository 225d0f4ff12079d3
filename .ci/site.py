"""A hook of mkdocs.yml: pages outside docs/, links between pages, and the words after a code block's language.

README, CONTRIBUTING and CHANGELOG stay where readers of the repository look for them, and become pages of the site.
A link to a page becomes the site's link; a link to a source file is replaced by its text. Words after a code
block's language (`bash run`, `yaml fieldmark`) are for the tests and are removed; `file=x.py` becomes its title.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Page outside docs/ -> its place on the site."""
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|mailto:|#)([^)#\s]*)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^(\s*```)([a-z0-9]+)((?: +[\w./=-]+)+) *$")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages outside docs/."""
    for source, place in OUTSIDE.items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Rewrite the links and code blocks of one page."""
    return rewrite(markdown, page.file.src_uri)


def rewrite(markdown: str, place: str) -> str:
    """Return a page with the site's links. `place`: relative to docs/, or a value of `OUTSIDE`."""
    source = next((outside for outside, at in OUTSIDE.items() if at == place), f"docs/{place}")
    parts: list[str] = []
    for number, part in enumerate(re.split(r"^(\s*```.*)$", markdown, flags=re.MULTILINE)):
        inside = number % 4 == 2  # text, fence, block, fence, text, ...
        if number % 2:
            parts.append(_FENCE.sub(_fence, part) if number % 4 == 1 else part)
        else:
            parts.append(part if inside else _LINK.sub(lambda match: _link(match, source, place), part))
    return "".join(parts)


def _fence(match: re.Match[str]) -> str:
    """Keep a code block's language, and its file name as a title."""
    titles = [word.removeprefix("file=") for word in match[3].split() if word.startswith("file=")]
    return f"{match[1]}{match[2]}" + (f' title="{titles[0]}"' if titles else "")


def _link(match: re.Match[str], source: str, place: str) -> str:
    """Turn a link of the repository into one of the site, or into its text if the site has no such page."""
    image, text, target, anchor = match[1], match[2], match[3], match[4] or ""
    linked = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    page = OUTSIDE.get(linked) or (linked.removeprefix("docs/") if linked.startswith("docs/") else None)
    if page is None:
        return text if text.startswith("`") else f"`{linked}`" if "/" in text or "." in text else text
    return f"{image}[{text}]({os.path.relpath(page, posixpath.dirname(place) or '.')}{anchor})"

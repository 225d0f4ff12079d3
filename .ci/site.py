"""A hook of mkdocs.yml: pages outside docs/, links between pages, and the words behind our fences.

README, CONTRIBUTING and CHANGELOG stay where readers of the repository look for them, and become pages of the site.
A link to a page becomes the site's link; a link to a source file is replaced by its text. Words behind a fence's
language (`bash run`, `yaml fieldmark`) are for the tests and are removed; `file=x.py` becomes the block's title.
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
    """Rewrite links and fences of one page."""
    return rewritten(markdown, page.file.src_uri)


def rewritten(markdown: str, place: str) -> str:
    """Return a page with the site's links. `place`: relative to docs/, or a value of `OUTSIDE`."""
    source = next((outside for outside, at in OUTSIDE.items() if at == place), f"docs/{place}")
    done: list[str] = []
    for number, part in enumerate(re.split(r"^(\s*```.*)$", markdown, flags=re.MULTILINE)):
        inside = number % 4 == 2  # text, fence, block, fence, text, ...
        if number % 2:
            done.append(_FENCE.sub(_fence, part) if number % 4 == 1 else part)
        else:
            done.append(part if inside else _LINK.sub(lambda match: _link(match, source, place), part))
    return "".join(done)


def _fence(match: re.Match[str]) -> str:
    """Keep the language, and the file's name as a title."""
    titles = [word.removeprefix("file=") for word in match[3].split() if word.startswith("file=")]
    return f"{match[1]}{match[2]}" + (f' title="{titles[0]}"' if titles else "")


def _link(match: re.Match[str], source: str, place: str) -> str:
    """Turn a link of the repository into one of the site, or into its text if the site has no such page."""
    image, text, target, anchor = match[1], match[2], match[3], match[4] or ""
    wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    there = OUTSIDE.get(wanted) or (wanted.removeprefix("docs/") if wanted.startswith("docs/") else None)
    if there is None:
        return text if text.startswith("`") else f"`{wanted}`" if "/" in text or "." in text else text
    return f"{image}[{text}]({os.path.relpath(there, posixpath.dirname(place) or '.')}{anchor})"

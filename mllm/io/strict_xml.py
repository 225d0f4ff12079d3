"""Strict XML: every element knows its line; entities, deep nesting and broken text are errors with file and line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

from mllm.errors import FieldmarkError
from mllm.io.files import no_such

MAX_DEPTH = 50


@dataclass(slots=True)
class Element:
    """An element, its place (`file:line`), and what is in it. Tags have no namespace."""

    where: str
    tag: str
    attributes: dict[str, str]
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def all(self, tag: str) -> list[Element]:
        """Return the elements directly inside that have this tag."""
        return [child for child in self.children if child.tag == tag]

    def text_of(self, *tags: str) -> str:
        """Return the text of the first element at a path of tags, without spaces around it; empty if there is none."""
        found = [self]
        for tag in tags:
            found = [child for element in found for child in element.all(tag)]
        return found[0].text.strip() if found else ""


def loads(data: bytes, where: object, kind: type[FieldmarkError] = FieldmarkError) -> Element:
    """Parse XML and return its root. Raises `kind`; `where` (a file) begins the error, and the line follows.

    Entities are refused where they are declared: a few of them can stand for billions of letters, or for other files.
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    top = Element("", "", {})
    path = [top]

    def start(tag: str, attributes: dict[str, str]) -> None:
        if len(path) > MAX_DEPTH:
            raise kind(f"{where}:{parser.CurrentLineNumber}: nested more than {MAX_DEPTH} levels deep")
        place = f"{where}:{parser.CurrentLineNumber}"
        path[-1].children.append(Element(place, tag.rpartition(":")[2], attributes))
        path.append(path[-1].children[-1])

    def text(data: str) -> None:
        path[-1].text += data

    def refuse(name: str, *_: Any) -> None:
        raise kind(f"{where}:{parser.CurrentLineNumber}: entity {name!r:.60} is declared; write out what it stands for")

    parser.StartElementHandler, parser.CharacterDataHandler, parser.EntityDeclHandler = start, text, refuse
    parser.EndElementHandler = lambda tag: path.pop()
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise kind(f"{where}:{error.lineno}: broken XML: {expat.ErrorString(error.code)}") from None
    except FieldmarkError:
        raise
    except (ValueError, LookupError) as error:  # an encoding that Python does not know or expat cannot use
        raise kind(f"{where}:{parser.CurrentLineNumber}: broken XML: {error!s:.200}") from None
    return top.children[0]


def read(file: Path, kind: type[FieldmarkError] = FieldmarkError) -> Element:
    """Read an XML file. Raises `kind`, with file and line."""
    if not file.is_file():
        raise kind(no_such(file, "file"))
    return loads(file.read_bytes(), file, kind)

"""Ask for a thing in images by name, or what a thing is: see the reasoning and the box, then ask on.

With --once it asks one question about each image and ends: the exit code is 0 when every image got a box or a name, 1
when one did not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from tyro.conf import Positional, arg

from mllm.boxes import Box
from mllm.cli.options import DomainOptions, ModelOptions
from mllm.cli.programs import Range
from mllm.errors import ExitCode, FieldmarkError
from mllm.inference.grounding import Grounding, Spot, draw_spots, number_spots, split_thought

if TYPE_CHECKING:
    from mllm.inference.assistant import Assistant

HELP = """Name a thing, or ask in words.
  ?           asks what it is (with --domain, what species of bird), ? #1 what is at box 1
  #1          in a question stands for the first box found so far: What is at #1?
  :2          goes to the second image; : lists them
  quit        ends, as Ctrl-D does"""
QUIT = ("quit", "exit", ":q", ":quit")


@dataclass(frozen=True)
class Options:
    model: Positional[str]
    """checkpoint folder, adapter folder, Hub name, pocket, or a server: http://.../v1#NAME"""
    image: Positional[tuple[Path, ...]]
    """one image or several"""
    once: str | None = None
    """ask this about each image and end (for scripts)"""
    versus: str | None = None
    """a second model that answers the same questions"""
    as_json: Annotated[bool, arg(name="json")] = False
    """write each answer as one line of JSON"""
    domain: DomainOptions = DomainOptions()
    style: str | None = None
    """prompt style: direct, think or plain; default: the one that the model was trained with"""
    out: Path | None = None
    """folder for the images with boxes; default: beside IMAGE"""
    memory: Annotated[int, Range(0)] = 0
    """number of earlier questions and answers to send with each question"""
    max_new_tokens: Annotated[int | None, Range(1)] = None
    """longest answer, reasoning included, in tokens; default: 1024"""
    loading: ModelOptions = ModelOptions()


def command(options: Options) -> int:
    from mllm.inference.assistant import load
    from mllm.io.images import open_image

    for path in options.image:
        open_image(path)  # before the weights: a wrong path should not cost a minute
    names = [options.model] if options.versus is None else [options.model, options.versus]
    session = ChatSession({name: load(name, **asdict(options.loading)) for name in names}, options)
    if options.once is not None:
        found = [session.ask(options.once, number) for number in range(len(options.image))]
        return ExitCode.DONE if all(found) else ExitCode.FAILED
    Console(stderr=options.as_json).print(
        f"{' and '.join(names)} at {options.image[0]}. {HELP}", highlight=False, markup=False, soft_wrap=True
    )
    while (line := _next_line()) is not None:
        session.run(line)
    return ExitCode.DONE


class ChatSession:
    """A conversation about images: the current image, the boxes found in each, and the turns so far."""

    def __init__(self, assistants: dict[str, Assistant], options: Options) -> None:
        self.assistants, self.options, self.images = assistants, options, options.image
        self.current = 0
        self.boxes: dict[int, list[Box]] = {}
        self.turns: dict[tuple[str, int], list[tuple[str, str]]] = {}
        self.screen = Console(highlight=False, markup=False, soft_wrap=True)

    def run(self, line: str) -> None:
        """Do what one line says; an error is shown, and the conversation continues."""
        try:
            if line.startswith(":"):
                self._go_to(line[1:].strip())
            else:
                self.ask(line, self.current)
        except FieldmarkError as error:
            print(error, file=sys.stderr)

    def ask(self, question: str, number: int) -> bool:
        """Ask every model about one image; returns whether all of them gave a box, or a name if asked for one."""
        about = tuple(self.boxes.get(number, ()))
        found = [self._answer(name, question, number, about) for name in self.assistants]
        spots = number_spots(found)
        for name, one, marked in zip(self.assistants, found, spots, strict=True):
            self._show(one, name, number, marked)
        self.boxes[number] = [spot.box for marked in spots for spot in marked] or list(about)
        return all(one.boxes or one.named for one in found)

    def _answer(self, name: str, question: str, number: int, about: tuple[Box, ...]) -> Grounding:
        """Ask one model, and print its text as it comes."""
        options = self.options
        if len(self.assistants) > 1 and not options.as_json:
            self.screen.print(f"\n{name}:", style="bold")
        turns = self.turns.setdefault((name, number), [])
        found = self.assistants[name].ground(
            self.images[number],
            question,
            about=about,
            history=turns[-options.memory :] if options.memory else (),
            on_text=None if options.as_json else AnswerPrinter(self.screen).add,
            domain=options.domain.name,
            style=options.style,
            max_new_tokens=options.max_new_tokens,
        )
        turns.append(found.turn)
        return found

    def _show(self, found: Grounding, name: str, number: int, marked: Sequence[Spot]) -> None:
        from mllm.io.images import save_image

        several, path, saved = len(self.assistants) > 1, self.images[number], None
        if found.boxes:
            model = f".{_slug(Path(name).name)}" if several else ""
            saved = (self.options.out or path.parent) / f"{path.stem}.{_slug(found.name)}{model}.png"
            saved.parent.mkdir(parents=True, exist_ok=True)
            save_image(draw_spots(found.image, marked), saved)
        if self.options.as_json:
            row = {"image": str(path), **found.as_dict(), "drawn": str(saved) if saved else None}
            print(json.dumps(row, ensure_ascii=False))
            return
        print(f"\n{f'{name}: ' if several else ''}{found.summary}")
        if saved is not None:
            print(f"image: {saved}")

    def _go_to(self, number: str) -> None:
        if number:
            if not number.isdecimal() or not 1 <= int(number) <= len(self.images):
                raise FieldmarkError(f"there is no image :{number}, only :1 to :{len(self.images)}")
            self.current = int(number) - 1
        for place, path in enumerate(self.images):
            print(f"{'>' if place == self.current else ' '} :{place + 1} {path}")


class AnswerPrinter:
    """Prints an answer as it comes: the reasoning dim, the answer plain, without tags."""

    def __init__(self, screen: Console) -> None:
        self.screen, self.text, self.printed = screen, "", ["", ""]

    def add(self, piece: str) -> None:
        """Print what is new."""
        self.text += piece
        for part, text in enumerate(split_thought(self.text)):
            new = text[len(self.printed[part]) :]
            if new and part and self.printed[0] and not self.printed[1]:
                self.screen.print()
            self.screen.print(new, end="", style="" if part else "dim")
            self.printed[part] = text


def _next_line() -> str | None:
    """Return what is typed next, empty lines passed over; None where the conversation ends."""
    while True:
        try:
            line = input("\nfind> ").strip()
        except EOFError:
            return None
        if line:
            return None if line.lower() in QUIT else line


def _slug(name: str) -> str:
    """Return a name that is valid on every file system."""
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")[:60] or "thing"

"""`fieldmark chat`: ask for things in images, in the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mllm.errors import FieldmarkError

if TYPE_CHECKING:
    from mllm.boxes import Box
    from mllm.inference.assistant import Assistant
    from mllm.inference.grounding import Grounding, Spot

HELP = """Name a thing, or ask in words.
  #1          in a question stands for the first box that was found: What is at #1?
  :2          goes to the second image; : lists them
  an empty line ends"""


def command(
    checkpoint: Annotated[
        str,
        typer.Argument(help="Checkpoint folder, adapter folder, Hub name, pocket, or a server: http://.../v1#NAME."),
    ],
    image: Annotated[list[Path], typer.Argument(help="One image or several.")],
    once: Annotated[str | None, typer.Option(help="Ask this of each image and end (for scripts).")] = None,
    versus: Annotated[str | None, typer.Option(help="A second model that answers the same questions.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write each answer as one line of JSON.")] = False,
    domain: Annotated[str | None, typer.Option(help="Kind of thing: bird, car, ... (for the wording).")] = None,
    style: Annotated[
        str | None,
        typer.Option(help="Prompt style: direct, think, plain; default: the one the model was trained with."),
    ] = None,
    family: Annotated[
        str | None, typer.Option(help="Model family, where neither fieldmark.json nor the server says it.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the images with boxes; default: beside IMAGE.")] = None,
    memory: Annotated[int, typer.Option(min=0, help="Earlier questions and answers that go along with each.")] = 0,
    max_new_tokens: Annotated[int | None, typer.Option(help="Room for reasoning and answer [1024].")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    quantize: Annotated[str | None, typer.Option(help="4bit holds the base in NF4, as QLoRA trained it.")] = None,
) -> None:
    """Ask for a thing in IMAGE by its name: see the reasoning and the box, then ask on.

    With --once the exit code is 0 when every image got a box, 3 when one did not.
    """
    from mllm.inference.assistant import load
    from mllm.io.images import open_image

    for path in image:
        open_image(path)  # before the weights: a wrong path should not cost a minute
    names = [checkpoint] if versus is None else [checkpoint, versus]
    assistants = {name: load(name, device=device, dtype=dtype, family=family, quantize=quantize) for name in names}
    options = {"domain": domain, "style": style, "max_new_tokens": max_new_tokens}
    talk = _Talk(assistants, image, out, memory, as_json, options)
    if once is not None:
        found = [talk.ask(once, number) for number in range(len(image))]
        raise typer.Exit(0 if all(found) else 3)
    typer.echo(f"{' and '.join(names)} at {image[0]}. {HELP}", err=as_json)
    while line := _asked():
        talk.hear(line)


class _Talk:
    """A talk about images: which one is looked at, the boxes found in each, and what the models remember."""

    def __init__(
        self,
        assistants: dict[str, Assistant],
        images: list[Path],
        out: Path | None,
        memory: int,
        as_json: bool,
        options: dict[str, Any],
    ) -> None:
        self.assistants, self.images, self.out = assistants, images, out
        self.memory, self.as_json, self.options = memory, as_json, options
        self.at = 0
        self.boxes: dict[int, list[Box]] = {}
        self.said: dict[tuple[str, int], list[tuple[str, str]]] = {}

    def hear(self, line: str) -> None:
        """Do what one line asks for; what the person can put right is said, and the talk goes on."""
        try:
            if line.startswith(":"):
                self._turn(line[1:].strip())
            else:
                self.ask(line, self.at)
        except FieldmarkError as error:
            typer.echo(str(error), err=True)

    def ask(self, question: str, number: int) -> bool:
        """Put a question about one image to every model; whether all of them gave a box."""
        from mllm.inference.grounding import number_spots

        about = tuple(self.boxes.get(number, ()))
        found = [self._answer(name, question, number, about) for name in self.assistants]
        places = number_spots(found)
        for name, one, marked in zip(self.assistants, found, places, strict=True):
            self._tell(one, name, number, marked)
        self.boxes[number] = [spot.box for marked in places for spot in marked] or list(about)
        return all(one.boxes for one in found)

    def _answer(self, name: str, question: str, number: int, about: tuple[Box, ...]) -> Grounding:
        """Ask one model once, show what is written while it is written."""
        if len(self.assistants) > 1 and not self.as_json:
            typer.secho(f"\n{name}:", bold=True)
        said = self.said.setdefault((name, number), [])
        history = said[-self.memory :] if self.memory else ()
        on_text = None if self.as_json else _Pen().write
        found = self.assistants[name].ground(
            self.images[number], question, about=about, history=history, on_text=on_text, **self.options
        )
        said.append(found.turn)
        return found

    def _tell(self, found: Grounding, name: str, number: int, marked: Sequence[Spot]) -> None:
        """Say how it went; save the image with its numbered boxes."""
        from mllm.inference.grounding import draw_spots

        path, saved = self.images[number], None
        if found.boxes:
            saved = self._file(path, name, found)
            saved.parent.mkdir(parents=True, exist_ok=True)
            draw_spots(found.image, marked).save(saved)
        if self.as_json:
            told = {"image": str(path), **found.as_dict(), "drawn": str(saved) if saved else None}
            typer.echo(json.dumps(told, ensure_ascii=False))
            return
        who = f"{name}: " if len(self.assistants) > 1 else ""
        typer.echo(f"\n{who}{found.summary}")
        if saved is not None:
            typer.echo(f"image: {saved}")

    def _file(self, path: Path, name: str, found: Grounding) -> Path:
        """Return where the image with its boxes goes."""
        model = f".{_slug(Path(name).name)}" if len(self.assistants) > 1 else ""
        return (self.out or path.parent) / f"{path.stem}.{_slug(found.name)}{model}.png"

    def _turn(self, wanted: str) -> None:
        """Go to another image, or list them."""
        if wanted:
            if not wanted.isdecimal() or not 1 <= int(wanted) <= len(self.images):
                raise FieldmarkError(f":{wanted} is no image; there are :1 to :{len(self.images)}")
            self.at = int(wanted) - 1
        for number, path in enumerate(self.images):
            typer.echo(f"{'>' if number == self.at else ' '} :{number + 1} {path}")


class _Pen:
    """Writes an answer as it comes: the reasoning faint, the answer plain, tags left out."""

    def __init__(self) -> None:
        self.text, self.shown = "", ["", ""]

    def write(self, piece: str) -> None:
        """Write what is new."""
        from mllm.inference.grounding import split_thought

        self.text += piece
        for part, now in enumerate(split_thought(self.text)):
            new = now[len(self.shown[part]) :]
            if new and part and self.shown[0] and not self.shown[1]:
                typer.echo("")
            typer.secho(new, nl=False, dim=part == 0)
            self.shown[part] = now


def _asked() -> str:
    """Read a line from the terminal; empty at its end."""
    try:
        return input("\nfind> ").strip()
    except (EOFError, KeyboardInterrupt):
        return ""


def _slug(name: str) -> str:
    """Return a name that any file system takes."""
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")[:60] or "thing"

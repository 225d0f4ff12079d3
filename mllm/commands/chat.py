"""`fieldmark chat`: ask for things of a picture by name, in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mllm.chat import Assistant


def command(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint folder, adapter folder, Hub name, or pocket.")],
    image: Annotated[Path, typer.Argument(help="A picture.")],
    once: Annotated[str | None, typer.Option(help="Ask for this one thing and end (for scripts).")] = None,
    domain: Annotated[str | None, typer.Option(help="Kind of thing: bird, car, ... (for the wording).")] = None,
    style: Annotated[
        str | None, typer.Option(help="Prompt style; default: the one the model was trained with.")
    ] = None,
    family: Annotated[
        str | None, typer.Option(help="Model family, where no fieldmark.json lies beside the weights.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures with boxes; default: beside IMAGE.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Room for reasoning and answer.")] = 1024,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
) -> None:
    """Ask for a thing in IMAGE by its name: see the reasoning and the box, then ask again.

    With --once the exit code is 0 when a box was read, 3 when none was.
    """
    from mllm import pictures
    from mllm.chat import load

    pictures.load(image)  # before the weights: a wrong path should not cost a minute
    assistant = load(checkpoint, device=device, dtype=dtype, family=family)
    options = {"domain": domain, "style": style, "max_new_tokens": max_new_tokens}
    folder = out or image.parent
    if once is not None:
        raise typer.Exit(0 if _answer(assistant, image, once, folder, options) else 3)
    typer.echo(f"{checkpoint} looks at {image}. Name a thing; an empty line ends.")
    while name := _asked():
        _answer(assistant, image, name, folder, options)


def _asked() -> str:
    """Read a name from the terminal; empty at its end."""
    try:
        return input("\nfind> ").strip()
    except (EOFError, KeyboardInterrupt):
        return ""


def _answer(assistant: Assistant, image: Path, name: str, folder: Path, options: dict) -> bool:
    """Ask once, show what is written while it is written, save the picture; whether a box was read."""
    found = assistant.ground(image, name, tell=lambda text: typer.echo(text, nl=False), **options)
    typer.echo("")
    if found.box is None:
        cut = " It ran out of room: raise --max-new-tokens." if found.clipped else ""
        typer.echo(f"no box for {found.name!r}: {found.problem}.{cut}")
        return False
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{image.stem}.{_slug(found.name)}.png"
    found.picture().save(path)
    typer.echo(f"box in pixels: {', '.join(map(str, found.pixels or ()))}\npicture: {path}")
    return True


def _slug(name: str) -> str:
    """Return a name that any file system takes."""
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")[:60] or "thing"

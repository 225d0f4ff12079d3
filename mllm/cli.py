"""The `fieldmark` command. Heavy libraries are imported by the commands that need them, so that help comes at once."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mllm.errors import FieldmarkError

if TYPE_CHECKING:
    from mllm.chat import Assistant

app = typer.Typer(
    help="Fieldmark: multimodal models that tell one species from its double, and point at it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Out = Annotated[Path, typer.Option(help="Where to write.")]


@app.command()
def chat(
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


@app.command()
def report(
    runs: Annotated[
        list[str], typer.Option(help="NAME=FOLDER of a benchmark run; repeat for each run, or several after one flag.")
    ],
    more: Annotated[list[str] | None, typer.Argument(help="More NAME=FOLDER runs.")] = None,
    logs: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER of a training run, for the learning curves.")
    ] = None,
    out: Out = Path("report.html"),
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "",
    gallery: Annotated[int, typer.Option(help="Samples to show with pictures.")] = 10,
) -> None:
    """Set benchmark runs side by side: one self-contained page, the same as Markdown and json."""
    from mllm import report as pages

    made = pages.build(_named([*runs, *(more or [])]), logs=_named(logs or []), title=title, gallery=gallery)
    page, text, _ = pages.write(made, out)
    typer.echo(text.read_text(encoding="utf-8"))
    typer.echo(f"written: {page}")


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A samples file (jsonl).")],
    rows: Annotated[int, typer.Option(help="How many rows to show.")] = 3,
    pictures: Annotated[
        bool, typer.Option(help="Open every picture's header and compare its size with the row.")
    ] = True,
) -> None:
    """Show the first rows of a samples file and check all of them: fields, ids, boxes, pictures and their sizes."""
    from mllm import pictures as files
    from mllm.records import image_path, load_samples
    from mllm.rows import encode

    samples = load_samples(file, images=pictures)
    for sample in samples[: max(rows, 0)]:
        typer.echo(json.dumps(json.loads(encode(sample)), indent=2, ensure_ascii=False))
    if pictures:
        for path, size in {(image_path(file, sample), sample.size) for sample in samples}:
            files.check_size(path, size)
    typer.echo(f"{file}: {len(samples)} samples on {len({sample.image for sample in samples})} pictures, all sound")
    typer.echo("splits: " + _counted(sample.split for sample in samples))
    typer.echo("domains: " + _counted(sample.domain for sample in samples))
    typer.echo("entities: " + str(len({sample.entity for sample in samples})) + ", seen in training: " + _seen(samples))
    typer.echo("things in a picture: " + _counted(len(sample.things) for sample in samples))
    typer.echo(f"with a thought: {sum(sample.thought is not None for sample in samples)}")


@app.command()
def demo(
    out: Out = Path("runs/demo"),
    fast: Annotated[bool, typer.Option("--fast", help="A few steps of everything: does it run?")] = False,
) -> None:
    """Run the whole pipeline on the pocket world, from drawing pictures to the report."""
    from mllm.demo import run_demo

    typer.echo(f"report: {run_demo(out, fast=fast, tell=typer.echo)}")


@app.command()
def pets(
    data: Annotated[
        Path,
        typer.Option(envvar="FIELDMARK_TEST_DATA", help="Folder that holds oxford_pets_sample/ and fg_knowledge/."),
    ] = Path("../shared/data"),
    out: Out = Path("runs/pets"),
    model: Annotated[str, typer.Option(help="What to start from.")] = "pocket",
    fast: Annotated[bool, typer.Option("--fast", help="A few steps of everything: does it run?")] = False,
) -> None:
    """Run the whole chain on real photos of cats and dogs."""
    from mllm.pets import run_pets

    typer.echo(f"report: {run_pets(data, out, model=model, fast=fast, tell=typer.echo)}")


@app.command("table-spine")
def table_spine(out: Out = Path("runs/spine")) -> None:
    """Make the results table of docs/log.md: every arm, three seeds. Hours; goes on where it was stopped."""
    from mllm.spine import Plan, Spine

    typer.echo(Spine(out, Plan(), typer.echo).run())


@app.command()
def doctor() -> None:
    """Say what this machine has: versions, cores, memory, GPUs, disk, and whether the pocket weights are there."""
    from mllm import provenance

    typer.echo(f"{platform.platform()}, {_cores()} cores for us, {_memory()} GB memory")
    for name, version in provenance.versions().items():
        typer.echo(f"  {name:<14} {version}")
    typer.echo(f"  {'torchvision':<14} {'installed' if find_spec('torchvision') else 'not installed (not needed)'}")
    import torch

    if torch.cuda.is_available():
        for k in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(k)
            typer.echo(
                f"GPU {k}: {card.name}, {card.total_memory / 2**30:.0f} GB, bfloat16 {torch.cuda.is_bf16_supported()}"
            )
    else:
        typer.echo("no CUDA GPU: the pocket example runs on the CPU, larger models need a GPU")
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    typer.echo(f"disk: {free:.0f} GB free here")
    from mllm.pocket.model import weights_folder

    typer.echo(f"pocket weights: {weights_folder()}")


def main() -> None:
    """Run the command; what a person can put right is one line on stderr, not a traceback."""
    try:
        app()
    except FieldmarkError as error:
        sys.exit(f"fieldmark: {error}")


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


def _named(pairs: Iterable[str]) -> dict[str, str]:
    """Read NAME=FOLDER pairs; a bare folder is named after itself."""
    named: dict[str, str] = {}
    for pair in pairs:
        name, found, folder = pair.partition("=")
        name, folder = (name, folder) if found else (Path(pair).name, pair)
        if not name or not folder:
            raise FieldmarkError(f"{pair!r}: NAME=FOLDER is needed, for instance SFT=runs/pocket/eval/sft")
        if name in named:
            raise FieldmarkError(f"two folders are called {name!r}: give them different names")
        named[name] = folder
    return named


def _slug(name: str) -> str:
    """Return a name that any file system takes."""
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")[:60] or "thing"


def _counted(values: Iterable[object]) -> str:
    return ", ".join(
        f"{value} {count}" for value, count in sorted(Counter(values).items(), key=lambda item: str(item[0]))
    )


def _seen(samples: Iterable) -> str:
    names = {True: "yes", False: "no", None: "not known"}
    return _counted(names[sample.seen] for sample in samples)


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> str:
    import os

    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f}"
    except (ValueError, AttributeError):  # not every system tells
        return "?"


if __name__ == "__main__":
    main()

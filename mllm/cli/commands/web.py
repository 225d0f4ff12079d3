"""`fieldmark web`: a page to ask one model, or two side by side."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

from mllm.errors import FieldmarkError


def command(
    model: Annotated[
        str,
        typer.Argument(help="Checkpoint folder, adapter folder, Hub name, pocket, or a server: http://.../v1#NAME."),
    ],
    versus: Annotated[str | None, typer.Argument(help="A second model that answers the same questions.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; there is no password.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = False,
    family: Annotated[
        str | None, typer.Option(help="Model family, where neither fieldmark.json nor the server says it.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    quantize: Annotated[str | None, typer.Option(help="4bit holds the base in NF4, as QLoRA trained it.")] = None,
    upload_mb: Annotated[int, typer.Option(min=1, help="Largest file that is taken, in megabytes.")] = 20,
    megapixels: Annotated[int, typer.Option(min=1, help="Largest image that is taken, in millions of pixels.")] = 25,
    max_tokens: Annotated[int, typer.Option(min=64, help="Longest answer that may be asked for.")] = 2048,
    together: Annotated[int, typer.Option(min=1, help="Questions answered at the same time; others wait.")] = 4,
    waiting: Annotated[int, typer.Option(min=1, help="Questions that may wait; more are turned away.")] = 32,
) -> None:
    """Open a page: drop images, ask in words, watch the reasoning, see the boxes, ask about one; two models compared.

    Only this machine can reach it, unless --host says otherwise; put a proxy with a password in front for others.
    """
    if find_spec("gradio") is None:
        raise FieldmarkError("gradio not installed; pip install 'fieldmark[web]'")
    from mllm.inference.assistant import load
    from mllm.inference.web import page

    limits = page.WebLimits(
        upload=upload_mb * 2**20, pixels=megapixels * 10**6, tokens=max_tokens, together=together, waiting=waiting
    )
    names = [model] if versus is None else [model, versus]
    options = {"device": device, "dtype": dtype, "family": family, "quantize": quantize, "batch": max(together, 2)}
    assistants = [load(name, **options) for name in names]
    typer.echo(f"{' and '.join(names)}: http://{host}:{port}")
    page.run(assistants, limits, host=host, port=port, inbrowser=browser)

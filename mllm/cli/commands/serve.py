"""`fieldmark serve`: an OpenAI-compatible server for a checkpoint."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

from mllm.errors import FieldmarkError


def command(
    model: Annotated[str, typer.Argument(help="Checkpoint folder, adapter folder, Hub name, or pocket.")],
    host: Annotated[str, typer.Option(help="Address to listen on; other machines reach only others than this.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    name: Annotated[str | None, typer.Option(help="What clients call the model [MODEL as written].")] = None,
    family: Annotated[
        str | None, typer.Option(help="Model family, where no fieldmark.json lies beside the weights.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    quantize: Annotated[str | None, typer.Option(help="4bit holds the base in NF4, as QLoRA trained it.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Requests answered together, at most.")] = 8,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer that a request may ask for.")] = 4096,
    max_requests: Annotated[int, typer.Option(min=1, help="Requests under way; more are told to come back.")] = 64,
) -> None:
    """Serve MODEL to any OpenAI client: http://127.0.0.1:8000/v1, chat completions with images.

    There is no password: leave it on this machine, or put a proxy that has one in front.
    """
    if missing := [package for package in ("starlette", "uvicorn") if find_spec(package) is None]:
        raise FieldmarkError(f"{' and '.join(missing)} not installed; pip install 'fieldmark[serve]'")
    from mllm.inference import server
    from mllm.inference.openai_schema import ServerLimits
    from mllm.models import checkpoint

    options = checkpoint.LoadOptions(dtype=dtype, device=device, quantize=quantize)
    loaded = checkpoint.load(model, options, family=family)
    limits = ServerLimits(tokens=max_tokens, requests=max_requests)
    service = server.Service(loaded, name or model, limits=limits, batch=batch)
    typer.echo(f"{name or model}: http://{host}:{port}/v1")
    server.run(service, host, port)

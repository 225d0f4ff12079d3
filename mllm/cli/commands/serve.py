"""Serve a checkpoint to any OpenAI client, at http://127.0.0.1:8000/v1: chat completions with images.

It asks for no password: do not open it to other machines, or put a proxy with a password in front. Clients take turns.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, ClassVar

from tyro.conf import Positional

from mllm.cli.options import ModelOptions
from mllm.cli.programs import Range
from mllm.errors import FieldmarkError


@dataclass(frozen=True)
class Options:
    RENAMED: ClassVar = {"--batch": "--batch-size", "--max-tokens": "--max-new-tokens"}

    model: Positional[str]
    """checkpoint folder, adapter folder, Hub name, or pocket"""
    host: str = "127.0.0.1"
    """address to listen on; 127.0.0.1 keeps other machines out"""
    port: Annotated[int, Range(0, 65535)] = 8000
    """port to listen on"""
    name: str | None = None
    """what clients call the model; default: MODEL as written"""
    batch_size: Annotated[int, Range(1)] = 8
    """most requests answered at once"""
    max_new_tokens: Annotated[int, Range(1)] = 4096
    """longest answer that a request may ask for, in tokens"""
    max_requests: Annotated[int, Range(1)] = 64
    """most open requests; further ones are asked to retry"""
    allow_host: tuple[str, ...] = ()
    """a name that clients call this server by, besides localhost and this machine's own (may be repeated)"""
    loading: ModelOptions = ModelOptions()


def command(options: Options) -> None:
    if missing := [package for package in ("starlette", "uvicorn") if find_spec(package) is None]:
        raise FieldmarkError(f"{' and '.join(missing)} not installed; pip install 'fieldmark[serve]'")
    from mllm.inference import server
    from mllm.inference.openai_schema import ServerLimits
    from mllm.models import checkpoint

    bound = server.bind(options.host, options.port)  # before minutes of reading weights
    load, name = options.loading, options.name or options.model
    how = checkpoint.LoadOptions(dtype=load.dtype, device=load.device, quantize=load.quantize)
    loaded = checkpoint.load(options.model, how, family=load.family)
    limits = ServerLimits(tokens=options.max_new_tokens, requests=options.max_requests)
    service = server.Service(
        loaded, name, limits=limits, batch=options.batch_size, hosts=(options.host, *options.allow_host)
    )
    bound.listen()
    print(f"{name}: http://{options.host}:{bound.getsockname()[1]}/v1", flush=True)  # who connects now is answered
    server.run(service, bound)
    raise KeyboardInterrupt  # only Ctrl-C ends a server in order, and uvicorn swallows it

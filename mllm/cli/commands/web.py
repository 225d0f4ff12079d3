"""Open a page to ask one model, or two side by side.

Drop images, ask in words, watch the reasoning, see the boxes, and ask about one. Only this machine can reach the page
unless --host says otherwise; there is no password, so put a proxy with one in front for others.
"""

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Annotated, ClassVar

from tyro.conf import Positional

from mllm.cli.options import ModelOptions
from mllm.cli.programs import Range
from mllm.errors import FieldmarkError


@dataclass(frozen=True)
class Options:
    RENAMED: ClassVar = {"--max-tokens": "--max-new-tokens"}

    model: Positional[str]
    """checkpoint folder, adapter folder, Hub name, pocket, or a server: http://.../v1#NAME"""
    versus: Positional[str | None] = None
    """a second model that answers the same questions"""
    host: str = "127.0.0.1"
    """address to listen on"""
    port: Annotated[int, Range(1, 65535)] = 7860
    """port to listen on"""
    browser: bool = False
    """open the page in a browser"""
    upload_mb: Annotated[int, Range(1)] = 20
    """largest upload, in megabytes"""
    megapixels: Annotated[int, Range(1)] = 25
    """largest image, in millions of pixels"""
    max_new_tokens: Annotated[int, Range(64)] = 2048
    """longest answer that a visitor may ask for, in tokens"""
    together: Annotated[int, Range(1)] = 4
    """questions answered at the same time; others wait"""
    waiting: Annotated[int, Range(1)] = 32
    """most questions that wait; further ones are refused"""
    allow_host: tuple[str, ...] = ()
    """a name that browsers find this page under, besides localhost and this machine's own (may be repeated)"""
    loading: ModelOptions = ModelOptions()


def command(options: Options) -> None:
    if find_spec("gradio") is None:
        raise FieldmarkError("gradio not installed; pip install 'fieldmark[web]'")
    from mllm.inference.assistant import load
    from mllm.inference.web import page

    limits = page.WebLimits(
        upload=options.upload_mb * 2**20,
        pixels=options.megapixels * 10**6,
        tokens=options.max_new_tokens,
        together=options.together,
        waiting=options.waiting,
    )
    names = [options.model] if options.versus is None else [options.model, options.versus]
    assistants = [load(name, **asdict(options.loading), batch=max(options.together, 2)) for name in names]
    print(f"{' and '.join(names)}: http://{options.host}:{options.port}")
    hosts = options.allow_host
    page.run(assistants, limits, host=options.host, port=options.port, hosts=hosts, inbrowser=options.browser)
    raise KeyboardInterrupt  # only Ctrl-C ends the page, and gradio swallows it

"""Fieldmark: multimodal models that tell look-alike species apart and point at them.

For notebooks there are three functions, which import torch only when they are first used:

    import mllm
    model = mllm.load("runs/pocket/rl")                    # a checkpoint folder, a hub name, or "pocket"
    answer = model.ground("field.jpg", "black redstart")   # thought, box in the unit frame, raw text
    answer = mllm.ground("field.jpg", "black redstart")    # the same with the pocket model
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "caption", "ground", "load"]

if TYPE_CHECKING:
    from mllm.inference.assistant import caption, ground, load

_LAZY = ("caption", "ground", "load")


def __getattr__(name: str) -> Any:
    """Import a lazy name from `mllm.inference.assistant`."""
    if name in _LAZY:
        from mllm.inference import assistant

        return getattr(assistant, name)
    raise AttributeError(f"module 'mllm' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the lazy names too, for completion in notebooks."""
    return sorted({*globals(), *_LAZY})

"""Fieldmark: multimodal models that tell one species from its double, and point at it.

For people in a notebook, three names that load nothing until they are used:

    import mllm
    model = mllm.load("runs/pocket/rl")                    # a checkpoint folder, a hub name, or "pocket"
    answer = model.ground("field.jpg", "black redstart")   # thought, box in the unit frame, raw text
    answer = mllm.ground("field.jpg", "black redstart")    # the same with the pocket model
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "caption", "ground", "load"]

if TYPE_CHECKING:
    from mllm.inference.assistant import caption, ground, load

_LAZY = ("caption", "ground", "load")


def __getattr__(name: str) -> Any:
    """Fetch a lazy name from `mllm.inference.assistant`, which is where torch is first imported."""
    if name in _LAZY:
        from mllm.inference import assistant

        return getattr(assistant, name)
    raise AttributeError(f"module 'mllm' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the lazy names too, so that completion in a notebook finds them."""
    return sorted({*globals(), *_LAZY})

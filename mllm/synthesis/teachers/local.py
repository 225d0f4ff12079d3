"""A teacher in this process: any checkpoint that `mllm.models.checkpoint` loads, asked in batches.

Threads that ask at the same time share a batch, so give the program as many workers as `batch`. Replies are not kept
on the disk: weights under one name change, and what was asked of them is in the program's own log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mllm.errors import ConfigError
from mllm.inference.batcher import Batcher
from mllm.synthesis.prompted_teacher import Ask, Asking, ModelTeacher, Reply
from mllm.synthesis.usage import Ledger

if TYPE_CHECKING:
    from mllm.inference.backends import Generation
    from mllm.inference.batched import Job


class Config(Asking):
    """Settings; those in `HOW` change how replies are got and not what they say."""

    HOW: ClassVar[frozenset[str]] = frozenset({"device", "batch", "patience"})

    model: str = ""
    """Checkpoint folder, adapter folder, Hub name, or `pocket`."""
    family: str | None = None
    """Model family, where no fieldmark.json lies beside the weights."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Of the weights."""
    quantize: Literal["4bit"] | None = None
    """Holds the base in NF4 (needs a GPU and bitsandbytes)."""
    visual_tokens: int | None = Field(default=None, ge=1)
    """Most visual tokens of an image; None keeps the checkpoint's own."""
    device: str = "auto"
    """`auto` takes an accelerator if there is one."""
    batch: int = Field(default=8, ge=1)
    """Questions answered at once, at most."""
    patience: float = Field(default=0.05, ge=0)
    """Seconds that a first question waits for others to share its batch."""


class Teacher(ModelTeacher):
    """All abilities, by questions to a model in this process."""

    def __init__(self, config: Config) -> None:
        """Load the model. Raises ConfigError where none is named, FieldmarkError as `mllm.models.checkpoint.load`."""
        from mllm.models import checkpoint

        if not config.model:
            raise ConfigError("teacher local: no model named: set `model` to a checkpoint folder or a Hub name")
        self._loaded = checkpoint.load(
            config.model,
            checkpoint.LoadOptions(config.dtype, None if config.quantize else config.device, quantize=config.quantize),
            family=config.family,
            visual_tokens=config.visual_tokens,
        )
        super().__init__(self._loaded.family, self._loaded.convention.budget, config, Ledger(config.model))
        self._batcher: Batcher[Job, Generation] = Batcher(self._work, max_batch=config.batch, max_wait=config.patience)

    def close(self) -> None:
        """Finish what is under way and let go of the model's thread; the report stays."""
        self._batcher.close()

    def _write(self, ask: Ask) -> Reply:
        from mllm.inference import batched
        from mllm.inference.backends import Prompt
        from mllm.inference.sampling import Sampling

        content = [*({"type": "image"} for _ in ask.views), {"type": "text", "text": ask.text}]
        system = self._loaded.convention.system
        before = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
        messages = [*before, {"role": "user", "content": content}]
        job = batched.prepare(
            self._loaded,
            Prompt(messages, [view.open() for view in ask.views]),
            Sampling(ask.max_tokens, ask.temperature, seed=ask.seed),
        )
        self._ledger.tried()
        written = self._batcher(job)
        self._ledger.answered(job.tokens, written.tokens)
        return Reply(written.text, written.truncated, job.tokens, written.tokens)

    def _work(self, jobs: Sequence[Job]) -> list[Generation]:
        from mllm.inference import batched

        return batched.generate(self._loaded, jobs)

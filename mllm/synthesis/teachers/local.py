"""A teacher in this process: any checkpoint that `mllm.models.checkpoint` loads, prompted in batches.

Threads that ask at the same time share a batch, so give the program as many workers as `batch`. Replies are not cached
on disk, because the weights behind a name can change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mllm.errors import ConfigError
from mllm.inference.batcher import Batcher
from mllm.prompting import answers
from mllm.synthesis.prompted_teacher import PromptedTeacher, SamplingConfig, TeacherReply, TeacherRequest
from mllm.synthesis.usage import Usage

if TYPE_CHECKING:
    from mllm.inference.backends import Generation
    from mllm.inference.batched import Job


class Config(SamplingConfig):
    """Settings; those in `HOW` change how replies are generated, not what they say."""

    HOW: ClassVar[frozenset[str]] = frozenset({"device", "batch", "patience"})

    model: str = ""
    """Checkpoint folder, adapter folder, Hub name, or `pocket`."""
    family: str | None = None
    """Model family, if there is no fieldmark.json beside the weights."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Data type of the weights."""
    quantize: Literal["4bit"] | None = None
    """Loads the base in NF4 (needs a GPU and bitsandbytes)."""
    visual_tokens: int | None = Field(default=None, ge=1)
    """Maximum visual tokens per image; None keeps the checkpoint's own limit."""
    device: str = "auto"
    """`auto` uses an accelerator if there is one."""
    batch: int = Field(default=8, ge=1)
    """Maximum number of prompts in a batch."""
    patience: float = Field(default=0.05, ge=0)
    """Seconds that the first prompt waits for others to join its batch."""


class Teacher(PromptedTeacher):
    """All capabilities, by prompting a model in this process."""

    def __init__(self, config: Config) -> None:
        """Load the model. Raises ConfigError if none is named, FieldmarkError as `mllm.models.checkpoint.load`."""
        from mllm.inference import batched
        from mllm.models import checkpoint

        if not config.model:
            raise ConfigError("teacher local: no model is named: set `model` to a checkpoint folder or a Hub name")
        self._loaded = checkpoint.load(
            config.model,
            checkpoint.LoadOptions(config.dtype, None if config.quantize else config.device, quantize=config.quantize),
            family=config.family,
            visual_tokens=config.visual_tokens,
        )
        super().__init__(self._loaded.family, self._loaded.convention.budget, config, Usage(config.model))
        self._batcher: Batcher[Job, Generation] = Batcher(
            lambda jobs: batched.generate(self._loaded, jobs), max_batch=config.batch, max_wait=config.patience
        )

    def close(self) -> None:
        """Finish running requests and stop the model's thread; the report stays available."""
        self._batcher.close()

    def _generate(self, request: TeacherRequest) -> TeacherReply:
        from mllm.inference import batched
        from mllm.inference.backends import Prompt
        from mllm.inference.sampling import Sampling
        from mllm.models.processors import template_opening

        content = [*({"type": "image"} for _ in request.views), {"type": "text", "text": request.text}]
        system = self._loaded.convention.system
        before = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
        messages = [*before, {"role": "user", "content": content}]
        job = batched.prepare(
            self._loaded,
            Prompt(messages, [view.open() for view in request.views]),
            Sampling(request.max_tokens, request.temperature, seed=request.seed),
        )
        self._usage.add(calls=1)
        written = self._batcher(job)
        self._usage.answered(job.tokens, written.tokens)
        text = answers.whole(template_opening(self._loaded.processor), written.text)
        return TeacherReply(text, written.truncated, job.tokens, written.tokens)

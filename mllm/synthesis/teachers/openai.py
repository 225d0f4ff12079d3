"""A teacher behind any OpenAI-compatible server: vLLM, SGLang, Ollama, a hosted one, or `fieldmark serve`.

Replies are kept on the disk, so that a stopped run goes on without paying twice. Calls that fail in passing are
repeated, after as long as the server asks for; a request that fails for good is one `TeacherError`, listed in the
report, and ends no run. What makes every request fail ends it: a refused key, an unknown model, a server that is gone.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, SecretStr

from mllm.errors import ConfigError, FieldmarkError
from mllm.inference import openai_errors
from mllm.models import families
from mllm.synthesis.capabilities import TeacherError
from mllm.synthesis.prompted_teacher import Ask, Asking, ModelTeacher, Reply
from mllm.synthesis.reply_cache import Shelf
from mllm.synthesis.usage import Failure, Ledger


class Config(Asking):
    """Settings; those in `HOW` change how replies are got and not what they say."""

    HOW: ClassVar[frozenset[str]] = frozenset(
        "base_url api_key timeout tries backoff longest_wait concurrency give_up_after cache price_in price_out".split()
    )

    model: str = Field(default_factory=lambda: os.environ.get("FIELDMARK_TEACHER_MODEL", ""))
    """Name of the model on the server; from FIELDMARK_TEACHER_MODEL where it is not given."""
    base_url: str | None = Field(default_factory=lambda: os.environ.get("OPENAI_BASE_URL"))
    """Address that ends in /v1; from OPENAI_BASE_URL where it is not given."""
    api_key: SecretStr = Field(default_factory=lambda: SecretStr(os.environ.get("OPENAI_API_KEY", "none")))
    """From OPENAI_API_KEY where it is not given (better: files are copied). Own servers take any."""
    family: str = "qwen3_vl"
    """How the model writes boxes (a name of mllm/families); the scale is also stated in each request."""
    seed: int = 0
    """Added to the seed of every request: another one, other replies."""
    system: str | None = None
    """System text, where the model wants one."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further fields of a request that the server understands, such as vLLM's `top_k` or `chat_template_kwargs`."""
    timeout: float = Field(default=300, gt=0)
    """Seconds without a byte after which a call is given up, and repeated."""
    tries: int = Field(default=6, ge=1)
    """Calls for one request, at most."""
    backoff: float = Field(default=1.0, ge=0)
    """Seconds before the second call; doubled with each further one, and a random part of it added."""
    longest_wait: float = Field(default=120, ge=0)
    """Seconds to wait before a call, at most; where a server asks for more (Retry-After) the request fails at once."""
    concurrency: int = Field(default=8, ge=1)
    """Calls under way at the same time, at most, however many threads ask."""
    give_up_after: int = Field(default=10, ge=1)
    """So many requests failed one after the other, with none going well between, end the run."""
    cache: Path = Field(default_factory=lambda: _cache_folder())
    """Folder of kept replies. A server that has other weights under the same model name needs another folder."""
    price_in: float | None = Field(default=None, ge=0)
    """Price of a million tokens read, for the report."""
    price_out: float | None = Field(default=None, ge=0)
    """Price of a million tokens written."""


class Teacher(ModelTeacher):
    """All abilities, by questions to a server."""

    def __init__(self, config: Config) -> None:
        """Check the settings; nothing is sent yet.

        Raises:
            ConfigError: no model named, an unknown family.
            FieldmarkError: the `openai` extra is not installed.
        """
        if not config.model:
            raise ConfigError("teacher openai: no model named: set FIELDMARK_TEACHER_MODEL or `model`")
        family = families.load(config.family)
        super().__init__(family, family.budget, config, Ledger(config.model, config.price_in, config.price_out))
        self._config, self._shelf = config, Shelf(config.cache)
        self._client = _client(config)
        self._slots = threading.BoundedSemaphore(config.concurrency)
        self._failed_in_a_row = 0
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections; the report stays."""
        self._client.close()

    def _write(self, ask: Ask) -> Reply:
        reply, known = self._shelf.get(self._identity(ask), lambda: self._fetch(ask))
        if known:
            self._ledger.remembered()
        return Reply(**reply)

    def _identity(self, ask: Ask) -> dict[str, Any]:
        """Return all that the reply depends on, images by the hash of their bytes: the name it is kept under."""
        images = [view.identity() for view in ask.views]
        return {**self._body(ask), "messages": [self._config.system, images, ask.text]}

    def _body(self, ask: Ask) -> dict[str, Any]:
        """Return the request without its messages."""
        return {
            "model": self._config.model,
            "temperature": ask.temperature,
            "max_tokens": ask.max_tokens,
            "seed": (self._config.seed + ask.seed) % 2**31,
            "extra_body": self._config.extra_body,
        }

    def _messages(self, ask: Ask) -> list[dict[str, Any]]:
        """Return the messages as the wire has them, images as data URLs before the text."""
        parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": v.data_url()}} for v in ask.views]
        system = [] if self._config.system is None else [{"role": "system", "content": self._config.system}]
        return [*system, {"role": "user", "content": [*parts, {"type": "text", "text": ask.text}]}]

    def _fetch(self, ask: Ask) -> dict[str, Any]:
        """Call the server until it answers or there is no more hope."""
        import tenacity

        messages, tried = self._messages(ask), 0

        def call() -> Any:
            nonlocal tried
            with self._slots:  # not held while waiting for the next try
                tried += 1
                self._ledger.tried()
                return openai_errors.check_completion(
                    self._client.chat.completions.create(messages=messages, **self._body(ask))
                )

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(openai_errors.is_transient),
            stop=self._is_over,
            wait=self._wait,
            reraise=True,
        )
        try:
            completion = retrying(call)
        except openai_errors.errors() as error:
            raise self._failure(ask, error, tried) from None
        with self._lock:
            self._failed_in_a_row = 0
        usage, choice = completion.usage, completion.choices[0]
        counts = (usage.prompt_tokens, usage.completion_tokens) if usage is not None else (None, None)
        self._ledger.answered(*counts)
        told = {"text": choice.message.content or "", "truncated": choice.finish_reason == "length"}
        return {**told, "tokens_in": counts[0], "tokens_out": counts[1]}

    def _wait(self, state: Any) -> float:
        """Return the seconds before the next try: what the server asks for, and never less than our own pause."""
        import tenacity

        limit = self._config.longest_wait
        pause = tenacity.wait_exponential(self._config.backoff, max=limit)(state)
        pause += tenacity.wait_random(0, self._config.backoff)(state)
        return min(max(pause, openai_errors.retry_after(state.outcome.exception()) or 0.0), limit)

    def _is_over(self, state: Any) -> bool:
        """Whether to stop trying: often enough, or the server asks for more patience than we have."""
        asked = openai_errors.retry_after(state.outcome.exception()) or 0.0
        return state.attempt_number >= self._config.tries or asked > self._config.longest_wait

    def _failure(self, ask: Ask, error: Exception, tried: int) -> FieldmarkError:
        """Note a request that failed for good; returns what to raise."""
        where = self._config.base_url or "the OpenAI API"
        if hopeless := openai_errors.fatal_reason(error):
            return FieldmarkError(
                f"teacher {self._config.model!r} at {where}: {hopeless} ({openai_errors.short(error)})"
            )
        reason = openai_errors.reason(error)
        self._ledger.failed(Failure(ask.what, reason, openai_errors.short(error), tried))
        with self._lock:
            self._failed_in_a_row += 1
            lost = self._failed_in_a_row >= self._config.give_up_after
        if lost:
            return FieldmarkError(
                f"teacher {self._config.model!r} at {where}: {self._failed_in_a_row} requests failed one after the "
                f"other, the last because of: {reason} ({openai_errors.short(error)}). Look at the server, then start again; "
                f"replies so far are kept in {self._config.cache}"
            )
        return TeacherError(reason, openai_errors.short(error))


def _cache_folder() -> Path:
    """Return the folder of kept replies: $FIELDMARK_CACHE/replies, else below the user's own cache folder."""
    own = os.environ.get("FIELDMARK_CACHE")
    root = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fieldmark"
    return root / "replies"


def _client(config: Config) -> Any:
    """Return the official client; repeating is ours, since its own pauses cannot be set and end at 8 seconds."""
    try:
        import tenacity  # noqa: F401
        from openai import OpenAI
    except ImportError as error:
        raise FieldmarkError(f"teacher openai: {error}; install it with: pip install 'fieldmark[openai]'") from None
    key = config.api_key.get_secret_value() or "none"
    return OpenAI(base_url=config.base_url, api_key=key, timeout=config.timeout, max_retries=0)

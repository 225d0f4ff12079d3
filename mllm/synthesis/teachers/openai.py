"""A teacher behind any OpenAI-compatible server: vLLM, SGLang, Ollama, a hosted one, or `fieldmark serve`.

Replies are cached on disk. Calls that fail temporarily are retried; a request that fails permanently raises
`TeacherError`; what makes every request fail (a rejected key, an unknown model, a server that is gone) ends the run.
"""

import os
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, SecretStr

from mllm.errors import ConfigError, FieldmarkError
from mllm.inference import openai_errors, openai_http
from mllm.models import families
from mllm.synthesis.capabilities import TeacherError
from mllm.synthesis.prompted_teacher import PromptedTeacher, SamplingConfig, TeacherReply, TeacherRequest
from mllm.synthesis.reply_cache import ReplyCache
from mllm.synthesis.usage import Failure, Usage


class Config(SamplingConfig):
    """Settings; those in `HOW` change how replies are fetched, not what they say."""

    HOW: ClassVar[frozenset[str]] = frozenset(
        "base_url api_key timeout longest tries backoff longest_wait".split()
        + "concurrency give_up_after cache price_in price_out".split()
    )

    model: str = Field(default_factory=lambda: os.environ.get("FIELDMARK_TEACHER_MODEL", ""))
    """Name of the model on the server; default: $FIELDMARK_TEACHER_MODEL."""
    base_url: str | None = Field(default_factory=lambda: os.environ.get("OPENAI_BASE_URL"))
    """Address that ends in /v1; default: $OPENAI_BASE_URL."""
    api_key: SecretStr = Field(default_factory=lambda: SecretStr(os.environ.get("OPENAI_API_KEY", "none")))
    """Default: $OPENAI_API_KEY, which is safer than a file that may be copied. Your own servers accept any key."""
    family: str = "qwen3_vl"
    """How the model writes boxes (a name in mllm/models/families); the scale is also stated in each request."""
    seed: int = 0
    """Added to the seed of every request: another value gives other replies."""
    system: str | None = None
    """System prompt, if the model needs one."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further fields of a request that the server understands, such as vLLM's `top_k` or `chat_template_kwargs`."""
    timeout: float = Field(default=300, gt=0)
    """Seconds without a byte after which a call is aborted and retried."""
    longest: float = Field(default=1800, gt=0)
    """Seconds after which a call is aborted and retried although bytes arrive."""
    tries: int = Field(default=6, ge=1)
    """Maximum number of calls for one request."""
    backoff: float = Field(default=1.0, ge=0)
    """Seconds before the second call; doubled for each further call, plus a random part."""
    longest_wait: float = Field(default=120, ge=0)
    """Maximum seconds to wait before a call; if the server asks for more (Retry-After), the request fails at once."""
    concurrency: int = Field(default=8, ge=1)
    """Maximum number of concurrent calls, whatever the number of threads."""
    give_up_after: int = Field(default=10, ge=1)
    """This many failed requests in a row end the run."""
    cache: Path = Field(default_factory=lambda: _cache_folder())
    """Folder of cached replies. A server with other weights under the same model name needs another folder."""
    price_in: float | None = Field(default=None, ge=0)
    """Price of a million input tokens, for the report."""
    price_out: float | None = Field(default=None, ge=0)
    """Price of a million output tokens."""


class Teacher(PromptedTeacher):
    """All capabilities, by prompting a server."""

    def __init__(self, config: Config) -> None:
        """Check the settings, without a request. Raises ConfigError, or FieldmarkError without the `openai` extra."""
        if not config.model:
            raise ConfigError("teacher openai: no model is named: set FIELDMARK_TEACHER_MODEL or `model`")
        family = families.load(config.family)
        super().__init__(family, family.budget, config, Usage(config.model, config.price_in, config.price_out))
        self._config, self._cache = config, ReplyCache(config.cache)
        self._key = config.api_key.get_secret_value()
        self._client = openai_http.client(
            "teacher openai", config.base_url, self._key, timeout=config.timeout, longest=config.longest, retries=0
        )  # its own retries end at pauses of 8 seconds
        self._slots, self._lock = threading.BoundedSemaphore(config.concurrency), threading.Lock()
        self._failed_in_a_row = 0

    def close(self) -> None:
        """Close the connections; the report stays available."""
        self._client.close()

    def _generate(self, request: TeacherRequest) -> TeacherReply:
        # The cache's key is everything that the reply depends on, images by the hash of their bytes.
        images = [view.identity() for view in request.views]
        key = {**self._body(request), "messages": [self._config.system, images, request.text]}
        reply, known = self._cache.get(key, lambda: self._fetch(request))
        if known:
            self._usage.add(cached=1)
        return TeacherReply(**reply)

    def _body(self, request: TeacherRequest) -> dict[str, Any]:
        """Return the request without its messages."""
        return {
            "model": self._config.model,
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
            "seed": (self._config.seed + request.seed) % 2**31,
            "extra_body": self._config.extra_body,
        }

    def _fetch(self, request: TeacherRequest) -> dict[str, Any]:
        """Call the server until it answers or the request has failed permanently."""
        import tenacity

        images = [{"type": "image_url", "image_url": {"url": view.data_url()}} for view in request.views]
        system = [] if self._config.system is None else [{"role": "system", "content": self._config.system}]
        messages = [*system, {"role": "user", "content": [*images, {"type": "text", "text": request.text}]}]
        calls = 0

        def call() -> Any:
            nonlocal calls
            with self._slots:  # not held while waiting for the next call
                calls += 1
                self._usage.add(calls=1)
                with openai_errors.reading():
                    reply = self._client.chat.completions.create(messages=messages, **self._body(request))
                return openai_errors.check_completion(reply)

        transient = tenacity.retry_if_exception(openai_errors.is_transient)
        retrying = tenacity.Retrying(retry=transient, stop=self._is_over, wait=self._wait, reraise=True)
        try:
            completion = retrying(call)
        except openai_errors.errors() as error:
            raise self._failure(request, error, calls) from None
        with self._lock:
            self._failed_in_a_row = 0
        usage, choice = completion.usage, completion.choices[0]
        read, written = (usage.prompt_tokens, usage.completion_tokens) if usage is not None else (None, None)
        self._usage.answered(read, written)
        truncated = choice.finish_reason == "length"
        return asdict(TeacherReply(choice.message.content or "", truncated, read, written))

    def _wait(self, state: Any) -> float:
        """Return the seconds before the next call: what the server asks for, but at least our own pause."""
        import tenacity

        limit = self._config.longest_wait
        pause = tenacity.wait_exponential(self._config.backoff, max=limit)(state)
        pause += tenacity.wait_random(0, self._config.backoff)(state)
        return min(max(pause, openai_errors.retry_after(state.outcome.exception()) or 0.0), limit)

    def _is_over(self, state: Any) -> bool:
        """Whether to stop retrying: the calls are used up, or the server asks for a longer wait than allowed."""
        asked = openai_errors.retry_after(state.outcome.exception()) or 0.0
        return state.attempt_number >= self._config.tries or asked > self._config.longest_wait

    def _failure(self, request: TeacherRequest, error: Exception, calls: int) -> FieldmarkError:
        """Count a request that failed permanently and return the error to raise."""
        where = self._config.base_url or "the OpenAI API"
        detail = openai_errors.short(error, self._key)
        if hopeless := openai_errors.fatal_reason(error):
            return FieldmarkError(f"teacher {self._config.model!r} at {where}: {hopeless} ({detail})")
        reason = openai_errors.reason(error)
        self._usage.failed(Failure(request.what, reason, detail, calls))
        with self._lock:
            self._failed_in_a_row += 1
            give_up = self._failed_in_a_row >= self._config.give_up_after
        if give_up:
            return FieldmarkError(
                f"teacher {self._config.model!r} at {where}: {self._failed_in_a_row} requests failed in a row, "
                f"the last because of: {reason} ({detail}). Check the server, then start again; "
                f"replies so far are cached in {self._config.cache}"
            )
        return TeacherError(reason, detail)


def _cache_folder() -> Path:
    """Return the folder of cached replies: $FIELDMARK_CACHE/replies, or one below the user's cache folder."""
    own = os.environ.get("FIELDMARK_CACHE")
    root = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fieldmark"
    return root / "replies"

"""How completions are sampled: the one set of options that every way of generating takes."""

from dataclasses import dataclass

from mllm.errors import FieldmarkError


@dataclass(frozen=True, slots=True)
class Sampling:
    """Options of generation.

    max_new_tokens: most tokens of a completion, at least 1; a completion that reaches it is marked `truncated`. None is
        1024, or what is left of the model's context where that is less.
    temperature: 0 is greedy decoding; above 0 tokens are sampled. Values below 1e-6 become 0: the logits divided by
        them would overflow.
    top_p: probability mass that tokens are sampled from, in (0, 1]; used where the temperature is above 0.
    seed: of the sampling; the caller's random state is not touched.

    Raises `FieldmarkError` for a value outside these ranges.
    """

    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise FieldmarkError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            found = f"{self.temperature} and {self.top_p}"
            raise FieldmarkError(f"temperature must be >= 0 and top_p in (0, 1], got {found}")
        if self.temperature < 1e-6:
            object.__setattr__(self, "temperature", 0.0)  # frozen

    @property
    def limit(self) -> int:
        """`max_new_tokens`, or its default."""
        return self.max_new_tokens or 1024

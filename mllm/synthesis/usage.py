"""What a teacher cost and what failed: counted while several threads ask it, reported at the end."""

import threading
from collections import Counter
from dataclasses import dataclass, replace

MOST_SHOWN = 20
"""Maximum number of failures written out in a report's text; `UsageReport.failures` has all of them."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One request without a usable reply: what it was for, a short stable reason, details, number of calls."""

    what: str
    reason: str
    detail: str
    calls: int


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The counts of a teacher. Tokens are as counted by the server; `uncounted` replies came without a count."""

    name: str
    answered: int = 0
    """Requests that were sent and answered."""
    cached: int = 0
    """Requests that were answered from the cache on disk."""
    calls: int = 0
    """Calls of the server, retries included."""
    tokens_in: int = 0
    tokens_out: int = 0
    uncounted: int = 0
    price_in: float | None = None
    """Price of a million input tokens, in any currency."""
    price_out: float | None = None
    """Price of a million output tokens."""
    failures: tuple[Failure, ...] = ()

    @property
    def cost(self) -> float | None:
        """Cost of the counted tokens, in the currency of the prices; None without prices."""
        if self.price_in is None or self.price_out is None:
            return None
        return (self.tokens_in * self.price_in + self.tokens_out * self.price_out) / 1e6

    def __str__(self) -> str:
        """Format the report: one line of counts, then failures by reason, then the first of them."""
        cost = "" if self.cost is None else f", cost {self.cost:.4f}"
        missing = f" ({self.uncounted} replies came without a count)" if self.uncounted else ""
        lines = [
            f"{self.name}: {self.answered} answered in {self.calls} calls, {self.cached} cached, "
            f"{self.tokens_in} tokens read, {self.tokens_out} written{missing}{cost}, {len(self.failures)} failed"
        ]
        reasons = Counter(failure.reason for failure in self.failures)
        lines += [f"  {count} x {reason}" for reason, count in reasons.most_common()]
        for failure in self.failures[:MOST_SHOWN]:
            calls = f" (tried {failure.calls} times)" if failure.calls > 1 else ""
            lines.append(f"  - {failure.what}: {failure.reason}{calls}: {failure.detail}")
        if len(self.failures) > MOST_SHOWN:
            lines.append(f"  ... and {len(self.failures) - MOST_SHOWN} more")
        return "\n".join(lines).encode(errors="backslashreplace").decode()  # names may hold half a character


class Usage:
    """Thread-safe counter of a teacher's requests, tokens and failures."""

    def __init__(self, name: str, price_in: float | None = None, price_out: float | None = None) -> None:
        self._report = UsageReport(name, price_in=price_in, price_out=price_out)
        self._failures: list[Failure] = []
        self._lock = threading.Lock()

    def add(self, **counts: int) -> None:
        """Add to fields of the report: `calls=1` for a call of the server, `cached=1` for a reply from the cache."""
        with self._lock:
            self._report = replace(self._report, **{k: getattr(self._report, k) + n for k, n in counts.items()})

    def answered(self, tokens_in: int | None, tokens_out: int | None) -> None:
        """Count a reply; token counts are None if the server did not report them."""
        known = tokens_in is not None and tokens_out is not None
        self.add(answered=1, tokens_in=tokens_in or 0, tokens_out=tokens_out or 0, uncounted=0 if known else 1)

    def failed(self, failure: Failure) -> None:
        """Record a request without a usable reply."""
        with self._lock:
            self._failures.append(failure)

    def report(self) -> UsageReport:
        """Return the counts so far."""
        with self._lock:
            return replace(self._report, failures=tuple(self._failures))

"""What a teacher cost and what failed: counted while it is asked from several threads, told at the end."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, replace

MOST_SHOWN = 20
"""So many failures are written out in a report's text; `Report.failures` has them all."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One request without a usable reply: what it was for, why (short, stable), the details, how often it was tried."""

    what: str
    reason: str
    detail: str
    tries: int


@dataclass(frozen=True, slots=True)
class Report:
    """The tally of a teacher. Tokens are those that the server counted; `uncounted` replies came without a count."""

    name: str
    asked: int = 0
    """Requests that went out and came back."""
    remembered: int = 0
    """Requests that were answered from the replies on the disk."""
    tries: int = 0
    """How often the server was called, repeated calls included."""
    tokens_in: int = 0
    tokens_out: int = 0
    uncounted: int = 0
    price_in: float | None = None
    """Of a million tokens read, in any currency."""
    price_out: float | None = None
    """Of a million tokens written."""
    failures: tuple[Failure, ...] = ()

    @property
    def cost(self) -> float | None:
        """What the counted tokens cost, in the currency of the prices; None without prices."""
        if self.price_in is None or self.price_out is None:
            return None
        return (self.tokens_in * self.price_in + self.tokens_out * self.price_out) / 1e6

    def __str__(self) -> str:
        """Write the report for people: one line of counts, then failures by reason, then the first of them."""
        cost = "" if self.cost is None else f", cost {self.cost:.4f}"
        missing = f" ({self.uncounted} replies came without a count)" if self.uncounted else ""
        lines = [
            f"{self.name}: {self.asked} answered in {self.tries} calls, {self.remembered} remembered, "
            f"{self.tokens_in} tokens read, {self.tokens_out} written{missing}{cost}, {len(self.failures)} failed"
        ]
        for reason, count in Counter(failure.reason for failure in self.failures).most_common():
            lines.append(f"  {count} x {reason}")
        for failure in self.failures[:MOST_SHOWN]:
            tried = f" (tried {failure.tries} times)" if failure.tries > 1 else ""
            lines.append(f"  - {failure.what}: {failure.reason}{tried}: {failure.detail}")
        if len(self.failures) > MOST_SHOWN:
            lines.append(f"  ... and {len(self.failures) - MOST_SHOWN} more")
        return "\n".join(lines)


class Ledger:
    """Counts; methods may be called from several threads."""

    def __init__(self, name: str, price_in: float | None = None, price_out: float | None = None) -> None:
        self._report = Report(name, price_in=price_in, price_out=price_out)
        self._failures: list[Failure] = []
        self._lock = threading.Lock()

    def tried(self) -> None:
        """Count one call of the server."""
        self._add(tries=1)

    def answered(self, tokens_in: int | None, tokens_out: int | None) -> None:
        """Count a reply; None where the server did not count."""
        known = tokens_in is not None and tokens_out is not None
        self._add(asked=1, tokens_in=tokens_in or 0, tokens_out=tokens_out or 0, uncounted=0 if known else 1)

    def remembered(self) -> None:
        """Count a reply that was there already."""
        self._add(remembered=1)

    def failed(self, failure: Failure) -> None:
        """Note a request without a usable reply."""
        with self._lock:
            self._failures.append(failure)

    def report(self) -> Report:
        """Return the tally so far."""
        with self._lock:
            return replace(self._report, failures=tuple(self._failures))

    def _add(self, **counts: int) -> None:
        with self._lock:
            self._report = replace(self._report, **{k: getattr(self._report, k) + n for k, n in counts.items()})

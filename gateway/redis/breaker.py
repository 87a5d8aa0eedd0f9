"""When to stop asking a server that does not answer."""

from __future__ import annotations

FAILURES = 3
"""Round trips in a row without an answer that open a circuit."""


class Breaker:
    """A circuit breaker: open once ``failures`` round trips failed in a row, closed by any sign of life.

    A round trip that was under way when another one was answered tells nothing about a server that is gone: it was
    slow itself, so that its failure does not count. Times are seconds of one clock that never goes back.
    """

    def __init__(self, failures: int = FAILURES) -> None:
        self._most = failures
        self._failures = 0
        self._alive = float("-inf")
        """When it last answered."""

    @property
    def is_open(self) -> bool:
        """Whether nothing should be asked at the moment but for a sign of life."""
        return self._failures >= self._most

    def failed(self, began: float) -> bool:
        """Count a round trip that began at ``began`` and got no answer: whether the circuit opened just now."""
        if began < self._alive:
            return False
        self._failures += 1
        return self._failures == self._most

    def succeeded(self, now: float) -> bool:
        """Count an answer that came ``now``: whether the circuit closed just now."""
        was_open = self.is_open
        self._alive = now
        self._failures = 0
        return was_open

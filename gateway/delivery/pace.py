"""How slow a client may be."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Pace:
    """What is asked of a client that takes an answer."""

    send_timeout: float
    """Seconds in which it must take at least one byte."""
    min_rate: float
    """Bytes a second that it must take on average once ``grace`` is over; 0 asks nothing."""
    grace: float
    """Seconds from the start in which the average is not looked at."""

    def patience(self, elapsed: float, sent: int, *, silent: float = 0) -> float:
        """Seconds that may still pass without a byte; zero or less when the client is too slow already.

        Args:
            elapsed: seconds since the start.
            sent: bytes that the client took since.
            silent: seconds since the last of them.
        """
        left = self.send_timeout - silent
        if self.min_rate:
            left = min(left, self.grace + sent / self.min_rate - elapsed)
        return left

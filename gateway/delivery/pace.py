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

    def patience(self, elapsed: float, sent: int) -> float:
        """Seconds that may still pass without a byte, ``elapsed`` seconds after the start with ``sent`` bytes taken.

        Zero or less: the client is too slow already.
        """
        if not self.min_rate:
            return self.send_timeout
        too_slow_at = self.grace + sent / self.min_rate
        return min(self.send_timeout, too_slow_at - elapsed)

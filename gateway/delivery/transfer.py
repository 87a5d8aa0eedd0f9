"""What became of an answer."""

from __future__ import annotations

import dataclasses
from typing import Literal


@dataclasses.dataclass(slots=True)
class Transfer:
    """The bytes of one answer: promised, and sent so far."""

    promised: int
    """Bytes of the representation that the answer's length promises."""
    sent: int = 0
    """Bytes of the representation that the kernel accepted."""
    finished: bool = False
    """Whether the answer was sent to its end, down to the last byte it promised."""
    problem: Exception | None = None
    """Why it was cut, if it was."""
    handed_over: Literal["", "offloaded", "redirected"] = ""
    """Whether the proxy in front was told to send it, or the client where to fetch it; then all that was promised
    counts as sent."""

    def hand_over(self, how: Literal["offloaded", "redirected"]) -> None:
        """Count all that was promised as sent: somebody else sends it."""
        self.sent, self.finished, self.handed_over = self.promised, True, how

    @property
    def delivered(self) -> bool:
        """Whether the client got anything: some bytes, or an answer that is whole without any."""
        return self.finished or self.sent > 0

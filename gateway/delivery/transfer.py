"""What became of an answer."""

from __future__ import annotations

import dataclasses


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
    offloaded: bool = False
    """Whether the proxy in front was told to send it; then all that was promised counts as sent."""

    @property
    def delivered(self) -> bool:
        """Whether the client got anything: some bytes, or an answer that is whole without any."""
        return self.finished or self.sent > 0

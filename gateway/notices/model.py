"""What is told, and the seam to those who carry it."""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

MAIL = "mail"
"""The channel of mails."""
WEBHOOK = "webhook:"
"""What channels of webhooks begin with; their name follows."""


@dataclasses.dataclass(frozen=True, slots=True)
class Notice:
    """One thing that happened to an order, for one channel."""

    notice_id: int
    message: uuid.UUID
    """The same with each attempt: whoever gets it twice can tell."""
    channel: str
    tenant: str
    order_id: int
    kind: str
    """What happened, as the trigger of schema.sql names it."""
    body: Mapping[str, Any]
    """The order as it was then."""
    created: datetime.datetime
    tries: int
    """How often it was begun to be sent, this time included."""


class UndeliverableError(Exception):
    """Nobody will ever take this notice: trying again is no use. The message says why, and holds no secret."""


class RejectedError(Exception):
    """It was not taken this time; others may be. The message says why, and holds no secret."""


class UnreachableError(Exception):
    """Nothing can be sent at the moment. The message says why, and holds no secret."""


class Carrier(Protocol):
    """Sends notices of one channel."""

    give_up_seconds: float
    """After which a notice that is not taken is given up."""

    async def carry(self, notices: Sequence[Notice], outcome: Outcome) -> None:
        """Send some, one after the other, and tell what became of each as soon as that is known.

        Raises:
            UnreachableError: the others were not even begun.
        """


class Outcome(Protocol):
    """Is told what became of a notice, and whether to go on."""

    async def begin(self, notice: Notice) -> bool:
        """Whether ``notice`` is to be sent now: it is ours still, and nobody waits for us to end."""

    async def taken(self, notice: Notice) -> None:
        """It was sent."""

    async def failed(self, notice: Notice, error: UndeliverableError | RejectedError) -> None:
        """It was not."""

"""How many bytes of an answer may be sent so far: said by somebody outside who wants it slower, or ended."""

from __future__ import annotations

import asyncio
from typing import Protocol

LOOK_SECONDS = 1.0
"""How often is looked whether a client is still there for whom an allowance waits."""


class AllowanceEndedError(Exception):
    """No more bytes may be sent: the answer is cut."""


class Allowance(Protocol):
    """Says how many bytes of one answer may be sent.

    The sender asks `granted` before all that it sends, and waits for `more` once all of that is sent, never before.
    """

    def granted(self) -> int:
        """Bytes of the representation that may be sent in all, so far: a mark, which never falls. It does not wait."""
        ...

    async def more(self) -> None:
        """Wait until `granted` has grown. How long that may take is the allowance's own business.

        It may be cancelled: when the client is gone meanwhile, or the process ends.

        Raises:
            AllowanceEndedError: it will not grow.
        """
        ...


async def granted_beyond(sent: int, allowance: Allowance, transport: asyncio.BaseTransport) -> None:
    """Wait until ``allowance`` grants more than ``sent`` bytes to the client at the other end of ``transport``.

    Raises:
        AllowanceEndedError: see there.
        ConnectionError: the client is gone: nobody else would notice while nothing is sent.
    """
    if allowance.granted() > sent:
        return
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def look() -> None:
        nonlocal timer
        if transport.is_closing():
            deadline.reschedule(loop.time())
        else:
            timer = loop.call_later(LOOK_SECONDS, look)

    timer = loop.call_later(LOOK_SECONDS, look)
    deadline = asyncio.timeout(None)
    try:
        async with deadline:
            while allowance.granted() <= sent:
                await allowance.more()
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise ConnectionResetError("the client is gone") from error
    finally:
        timer.cancel()

"""Sends what the spool holds. Any number of processes may: no notice is in two hands at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping

from gateway.db import Database
from gateway.errors import GatewayError
from gateway.notices import reminders, spool
from gateway.notices.model import MAIL, Carrier, Notice, RejectedError, UndeliverableError, UnreachableError
from gateway.notifications import Notifications, Payload

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""Without being woken, senders look for what is due so often: what failed is tried again."""
UPKEEP_SECONDS = 60.0
FIRST_REST_SECONDS, _LONGEST_REST_SECONDS = 1.0, 300.0
"""For which a sender that reached nobody lets him be, whatever there is to send; doubled each time."""
LEASE_SECONDS = 180.0
"""That a notice is ours, from when it is begun to be sent on; longer than any carrier takes for one."""
_MOST = 20
"""Notices that a sender takes at a time."""
_PAUSE_SECONDS = 1.0
"""After a failure of ours."""
_NOTE_TRIES = 5
"""That it is tried to note that something was sent: else it would be sent again."""
_CLOSING_SECONDS = 5.0
"""That the notice which is being sent gets to end when the process does."""


class Sender:
    """Sends the notices of one channel."""

    def __init__(self, database: Database, channel: str, carrier: Carrier) -> None:
        self._database = database
        self._channel = channel
        self._carrier = carrier
        self._woken = asyncio.Event()
        self._ended = asyncio.Event()
        self._in_vain = 0
        """How often in a row nobody was reached."""

    def wake(self) -> None:
        """There may be something to send."""
        self._woken.set()

    def end(self) -> None:
        """Begin no further notice."""
        self._ended.set()
        self._woken.set()

    async def work(self) -> None:
        """Send what is due, until `end`."""
        while not self.ending:
            self._woken.clear()
            try:
                while not self.ending and await self.step():
                    pass
            except GatewayError as error:
                log.warning("notices cannot be sent at the moment: %r", error.__cause__ or error)
                await asyncio.sleep(_PAUSE_SECONDS)
            except Exception:
                # What was in hand is tried again when its lease ends.
                log.exception("the sender of notices failed")
                await asyncio.sleep(_PAUSE_SECONDS)
            if not self.ending:
                await self._rest()

    async def step(self) -> bool:
        """Send some; whether there may be more to send now.

        Raises:
            GatewayError: 503.
        """
        held = await spool.claim(self._database, self._channel, most=_MOST, lease_seconds=LEASE_SECONDS)
        if not held.notices:
            return False
        batch = _Batch(self._database, held, self)
        try:
            await self._carrier.carry(held.notices, batch)
            self._in_vain = 0
            return bool(batch.left) or len(held.notices) == _MOST
        except GatewayError:
            raise
        except UnreachableError as error:
            self._in_vain += 1
            log.warning("%s: cannot be reached: %s; %d notices wait", self._channel, error, len(batch.left))
            for notice in list(batch.left.values()):
                await batch.failed(notice, RejectedError(str(error)))
            return False
        except Exception as error:
            if batch.in_hand is None:
                raise
            # Others must not wait for ever behind one that something is wrong with.
            log.exception("%s: a notice cannot be sent", self._channel)
            await batch.failed(batch.in_hand, RejectedError(type(error).__name__))
            return True
        finally:
            # Of one that was begun nobody knows whether it was taken: its lease runs on.
            await batch.give_back()

    @property
    def ending(self) -> bool:
        """Whether no further notice is to be begun."""
        return self._ended.is_set()

    @property
    def give_up_seconds(self) -> float:
        """After which a notice is given up."""
        return self._carrier.give_up_seconds

    async def _rest(self) -> None:
        """Return when there may be something to send, or `end` was called."""
        if self._in_vain:
            # A wrong password shown again and again gets us locked out.
            until = self._ended
            seconds = min(FIRST_REST_SECONDS * 2.0 ** min(self._in_vain - 1, 20), _LONGEST_REST_SECONDS)
        else:
            until, seconds = self._woken, LOOK_SECONDS
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await until.wait()


class _Batch:
    """As `Outcome`: what a sender has in hand."""

    def __init__(self, database: Database, held: spool.Held, sender: Sender) -> None:
        self._database = database
        self._lease = held.lease
        self._sender = sender
        self.left = {notice.notice_id: notice for notice in held.notices}
        """Not begun yet."""
        self.in_hand: Notice | None = None
        """Begun, and it is not known yet what becomes of it."""

    async def begin(self, notice: Notice) -> bool:
        """As `Outcome`."""
        if self._sender.ending:
            return False
        is_ours = await spool.prolong(self._database, notice, self._lease, LEASE_SECONDS)
        self.left.pop(notice.notice_id, None)
        self.in_hand = notice if is_ours else None
        return is_ours

    async def taken(self, notice: Notice) -> None:
        """As `Outcome`."""
        self.in_hand = None
        for tries_left in reversed(range(_NOTE_TRIES)):
            try:
                await spool.sent(self._database, notice, self._lease)
                break
            except GatewayError:
                if not tries_left:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)
        log.info("%s: notice %s of order %d: %s: sent", notice.channel, notice.message, notice.order_id, notice.kind)

    async def failed(self, notice: Notice, error: UndeliverableError | RejectedError) -> None:
        """As `Outcome`."""
        self.left.pop(notice.notice_id, None)
        self.in_hand = None
        given_up = await spool.failed(
            self._database,
            notice,
            self._lease,
            str(error),
            for_ever=isinstance(error, UndeliverableError),
            give_up_seconds=self._sender.give_up_seconds,
        )
        log.log(
            logging.ERROR if given_up else logging.WARNING,
            "%s: notice %s of order %d: %s: %s: %s",
            *(notice.channel, notice.message, notice.order_id, notice.kind),
            "given up" if given_up else "tried again later",
            error,
        )

    async def give_back(self) -> None:
        """Leave to others what was not begun."""
        if self.left:
            with contextlib.suppress(GatewayError):
                await spool.give_back(self._database, list(self.left.values()), self._lease)


class _Senders:
    """As `Subscriber`: wakes senders."""

    def __init__(self, senders: list[Sender]) -> None:
        self._senders = senders

    def changed(self, topic: str, payload: Payload) -> None:  # noqa: ARG002 - as `Subscriber`
        if topic == spool.TOPIC:
            self.missed()

    def missed(self) -> None:
        for sender in self._senders:
            sender.wake()


@contextlib.asynccontextmanager
async def sending(
    database: Database, notifications: Notifications, carriers: Mapping[str, Carrier], *, reminder_hours: float
) -> AsyncIterator[None]:
    """Send what is to be told while the block runs, by channel; and remind owners of orders that end soon.

    At the end the notice that is being sent may still end, for a few seconds.
    """
    if not carriers:
        yield
        return
    senders = [Sender(database, channel, carrier) for channel, carrier in carriers.items()]
    notifications.subscribe(_Senders(senders))
    tasks = [asyncio.create_task(sender.work(), name="notices") for sender in senders]
    upkeep = asyncio.create_task(_upkeep(database, reminder_hours if MAIL in carriers else 0), name="notice upkeep")
    try:
        yield
    finally:
        upkeep.cancel()
        for sender in senders:
            sender.end()
        await asyncio.wait(tasks, timeout=_CLOSING_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(upkeep, *tasks, return_exceptions=True)


async def _upkeep(database: Database, reminder_hours: float) -> None:
    while True:
        try:
            if reminder_hours > 0:
                await reminders.remind(database, reminder_hours)
            await spool.forget_old(database)
        except GatewayError as error:
            log.warning("notices cannot be looked after at the moment: %r", error.__cause__ or error)
        except Exception:
            log.exception("notices cannot be looked after")
        await asyncio.sleep(UPKEEP_SECONDS)

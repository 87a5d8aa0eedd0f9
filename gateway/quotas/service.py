"""Reservations before the first byte, settlements after the last."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Literal

from gateway.catalog.model import File
from gateway.config import Quotas as QuotaSettings
from gateway.delivery.allowance import Allowance, AllowanceEndedError
from gateway.delivery.transfer import Transfer
from gateway.errors import GatewayError, unavailable
from gateway.identity.principal import Principal
from gateway.quotas.accounts import Loader
from gateway.quotas.calls import UNKNOWN_ERRORS, Answer, Calls
from gateway.quotas.capped import Capped
from gateway.quotas.epochs import CountersClosedError, Epochs
from gateway.quotas.keys import Keys
from gateway.quotas.leases import Lease, Leases, first_mark
from gateway.quotas.ledger import Ledger
from gateway.quotas.limits import Limit, accounts_of
from gateway.quotas.recovery import REMEMBER_SECONDS, Recovery
from gateway.quotas.reservation import MOST_BYTES, Reservation, limit_arguments, windows_of
from gateway.quotas.slowing import Slowing
from gateway.quotas.standing import Standing, read, refusal
from gateway.quotas.usage import Estimate, Held, Usage, usages
from gateway.redis.scripts import NEIGHBOUR_ERRORS, Scripts
from gateway.redis.server import CircuitOpenError

log = logging.getLogger(__name__)

_LOADS = 3
"""How often counters may be missing before a reservation is given up."""
_SETTLE_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
"""Seconds before the second attempt; doubled each time up to the longest."""
_AT_ONCE = 100
"""Accounts or leases that one script reads: others wait for it."""
_MOST_HELD = 1000
_CLOSE_TIMEOUT = 2
"""Seconds that settlements get when the gateway ends."""

Way = Literal["stream", "whole"]


class Quotas:
    """Counts downloads and bytes. Reserving is one round trip to Redis."""

    def __init__(
        self,
        *,
        scripts: Scripts,
        ledger: Ledger,
        epochs: Epochs,
        calls: Calls,
        recovery: Recovery,
        leases: Leases,
        settings: QuotaSettings,
    ) -> None:
        self._scripts = scripts
        self._ledger = ledger
        self._epochs = epochs
        self._calls = calls
        self._recovery = recovery
        self._leases = leases
        self._settings = settings
        self._loader = Loader(scripts, ledger, settings.window)
        self._slowing = Slowing()
        self.capped = Capped(settings.capped_downloads, time.time)
        self._settling: set[asyncio.Task[None]] = set()

    async def reserve(self, principal: Principal, file: File, transfer: Transfer) -> Lease:
        """Reserve one download of ``file``: the promised bytes of ``transfer``, which tells what of them is sent.

        Raises:
            GatewayError: 429 a limit refuses; 503 nobody knows at the moment whether one does.
        """
        reservation = self._reservation(principal, file, transfer.promised)
        try:
            answer = await self._granted(reservation, file.limits, "stream", principal)
        except UNKNOWN_ERRORS as error:
            if not self.capped.admit(reservation, file.limits):
                raise _unknown() from error
            promised = transfer.promised
            return Lease(
                reservation, file.limits, (), transfer, 0, "", mark=promised, renew=self._leases.renew, capped=True
            )
        lease = Lease(
            reservation,
            file.limits,
            read(file.limits, answer[9:]),
            transfer,
            at=int(answer[7]),
            opener=answer[8].decode(),
            mark=first_mark(transfer.promised),
            renew=self._leases.renew,
        )
        self._leases.hold(lease)
        return lease

    async def charge(self, principal: Principal, file: File, octets: int) -> tuple[Standing, ...]:
        """Charge one download of ``file``, all ``octets`` of it, which somebody else sends: there is nothing to settle.

        It is charged once for each caller, content and window.

        Raises:
            GatewayError: as `reserve`; nothing is charged then.
        """
        reservation = self._reservation(principal, file, octets)
        try:
            answer = await self._granted(reservation, file.limits, "whole", principal)
        except UNKNOWN_ERRORS as error:
            if not self.capped.admit(reservation, file.limits):
                raise _unknown() from error
            self.capped.end(reservation, octets, delivered=True)
            return ()
        return read(file.limits, answer[9:])

    async def estimate(self, principal: Principal, file: File, octets: int, way: Way = "stream") -> Estimate:
        """What a download would be charged now; nothing changes.

        Raises:
            GatewayError: 503.
        """
        reservation = self._reservation(principal, file, octets)
        try:
            answer = await self._ask(reservation, file.limits, f"?{way}")
        except UNKNOWN_ERRORS as error:
            raise _unknown() from error
        return Estimate(int(answer[2]), int(answer[3]), read(file.limits, answer[4:]))

    def pacing(self, lease: Lease) -> contextlib.AbstractContextManager[Allowance]:
        """What the download of ``lease`` may send while the block runs: slowly, if a soft limit is passed."""
        return self._slowing.pacing(lease)

    async def usage(self, tenant: str, accounts: Sequence[str]) -> dict[str, Usage]:
        """What each of ``accounts`` has used.

        Raises:
            GatewayError: 503.
        """
        found: dict[str, Usage] = {}
        try:
            await self._ensure(tenant)
            for first in range(0, len(accounts), _AT_ONCE):
                some = tuple(accounts[first : first + _AT_ONCE])
                answer = await self._loaded("usage", tenant, functools.partial(_account_keys, some), (), some)
                found.update(zip(some, usages(answer[2:]), strict=True))
        except UNKNOWN_ERRORS as error:
            raise _unknown() from error
        return found

    async def standings(self, principal: Principal, limits: tuple[Limit, ...]) -> tuple[int, tuple[Standing, ...]]:
        """Where ``principal`` stands with ``limits`` before one more download, and the time in microseconds since 1970.

        Raises:
            GatewayError: 503.
        """
        accounts = accounts_of(principal, limits)
        nothing = Reservation(principal.tenant, _identifier(), accounts, "", windows_of(limits), 0, -1)
        try:
            answer = await self._ask(nothing, limits, "?stream")
        except UNKNOWN_ERRORS as error:
            raise _unknown() from error
        return int(answer[1]), read(limits, answer[4:])

    async def held(self, tenant: str, account: str, now: int) -> list[Held]:
        """The downloads of ``account`` that run at the time ``now``, the first thousand of them.

        Raises:
            GatewayError: 503.
        """
        found: list[Held] = []
        try:
            await self._ensure(tenant)
            running = self._epochs.keys(tenant).running(account)
            names = await self._scripts.call("ZRANGE", running, f"({now}", "+inf", "BYSCORE", "LIMIT", 0, _MOST_HELD)
            for first in range(0, len(names), _AT_ONCE):
                some = [name.decode() for name in names[first : first + _AT_ONCE]]
                answer = await self._calls.run("held", tenant, functools.partial(_lease_keys, some), ())
                values = [int(value) for value in answer[1:]]
                found += [Held(*values[at : at + 3]) for at in range(0, len(values), 3)]
        except UNKNOWN_ERRORS as error:
            raise _unknown() from error
        return found

    async def settle(self, lease: Lease, *, delivered: bool) -> None:
        """Charge what was sent and end the lease; the download itself is given back unless ``delivered``.

        It returns when Redis has it, or after the first attempt failed; further attempts go on in the background. A
        caller that is cancelled meanwhile stops waiting, the settlement goes on.
        """
        attempt: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._in_background(self._settle(lease, attempt, delivered=delivered))
        await attempt

    async def ping(self) -> None:
        """Ask Redis for a sign of life.

        Raises:
            GatewayError: 503.
        """
        try:
            await self._scripts.ping()
        except NEIGHBOUR_ERRORS as error:
            raise unavailable("Redis does not answer.") from error

    async def close(self) -> None:
        """Wait, within bounds, until all that was sent is charged."""
        if not self._settling:
            return
        _, late = await asyncio.wait(self._settling, timeout=_CLOSE_TIMEOUT)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
            log.error("%s downloads are charged when their leases run out: Redis did not take them in time", len(late))

    async def again(self, lease: Lease) -> None:
        """Reserve anew what a lease that is gone has left, so that its download can go on.

        Raises:
            AllowanceEndedError: that is not granted.
        """
        old = lease.reservation
        left = dataclasses.replace(old, identifier=_identifier(), promised=old.promised - lease.mark)
        try:
            answer = await self._ask_once(left, lease.limits, "stream")
        except (*UNKNOWN_ERRORS, GatewayError) as error:
            raise AllowanceEndedError("the quota service does not answer") from error
        if answer[0] != b"granted":
            raise AllowanceEndedError("the lease ran out, and limits refuse another")
        with self._leases.replacing(lease):
            lease.base += lease.mark
            lease.reservation, lease.mark, lease.gone = left, first_mark(left.promised), False
            lease.at, lease.opener = int(answer[7]), answer[8].decode()

    async def _granted(
        self, reservation: Reservation, limits: tuple[Limit, ...], way: Way, principal: Principal
    ) -> Answer:
        if reservation.promised > MOST_BYTES:
            raise GatewayError(HTTPStatus.TOO_MANY_REQUESTS, "This is more than any quota can count.")
        answer = await self._ask_once(reservation, limits, way)
        if answer[0] == b"granted":
            return answer
        raise refusal(read(limits, answer[2:]), principal.email or "public")

    async def _ask_once(self, reservation: Reservation, limits: tuple[Limit, ...], way: Way) -> Answer:
        """As `_ask`; what may have been granted before the answer was lost is given back."""
        try:
            return await self._ask(reservation, limits, way)
        except (CountersClosedError, CircuitOpenError):
            raise
        except (*NEIGHBOUR_ERRORS, asyncio.CancelledError):
            self._in_background(self._give_back(reservation))
            raise

    async def _ask(self, reservation: Reservation, limits: tuple[Limit, ...], way: str) -> Answer:
        """What ``reserve.lua`` answers: granted, refused or possible.

        Raises:
            GatewayError: 503; it answers nothing of that.
            CountersClosedError, RedisError, OSError, TimeoutError: nobody knows.
        """
        arguments = (
            reservation.identifier,
            reservation.promised,
            first_mark(reservation.promised),
            reservation.size,
            self._window(reservation),
            self._settings.lease_ttl,
            self._settings.max_unconfirmed,
            reservation.about,
            _spaced(reservation.windows),
            way,
            *limit_arguments(limits, reservation.accounts),
        )
        await self._ensure(reservation.tenant)
        answer = await self._loaded("reserve", reservation.tenant, reservation.keys, arguments, reservation.accounts)
        kind = answer[0]
        if kind in (b"granted", b"refused", b"possible"):
            return answer
        if kind == b"behind":
            raise unavailable("Too many downloads wait to be recorded; try again.")
        if kind == b"ended":
            raise unavailable("The quota service answered too late; try again.")
        raise CountersClosedError(reservation.tenant)

    async def _ensure(self, tenant: str) -> None:
        if tenant not in self._epochs.tenancies:
            await self._recovery.ensure(tenant)

    async def _loaded(
        self,
        name: str,
        tenant: str,
        keys_of: Callable[[Keys], Sequence[str]],
        arguments: Sequence[str | int],
        accounts: Sequence[str],
    ) -> Answer:
        """What a script answers when the accounts that it asks for are loaded."""
        for _ in range(_LOADS):
            answer = await self._calls.run(name, tenant, keys_of, arguments)
            if answer[0] != b"load":
                return answer
            missing = [accounts[number - 1] for number in answer[2:]]
            await self._loader.load(self._epochs.keys(tenant), missing, int(answer[1]))
        raise CountersClosedError(tenant)

    async def _settle(self, lease: Lease, attempt: asyncio.Future[None], *, delivered: bool) -> None:
        """Settle; ``attempt`` is done once that is so, or the first attempt failed."""
        try:
            if lease.capped:
                self.capped.end(lease.reservation, lease.sent, delivered=delivered)
                return
            if lease.renewal is not None and not lease.renewal.done():
                lease.renewal.cancel()
            lease.ending = True
            await self._finish(lease.reservation, sent=lease.sent, delivered=delivered, attempt=attempt)
        finally:
            self._leases.drop(lease)
            _done(attempt)

    async def _give_back(self, reservation: Reservation) -> None:
        await self._finish(reservation, sent=0, delivered=False)

    async def _finish(
        self, reservation: Reservation, *, sent: int, delivered: bool, attempt: asyncio.Future[None] | None = None
    ) -> None:
        """Settle, however often it must be tried: until then the lease is charged what it might have sent."""
        arguments = (
            reservation.identifier,
            "settle",
            sent,
            int(delivered),
            self._window(reservation),
            REMEMBER_SECONDS,
        )
        pause = _SETTLE_PAUSE
        while True:
            try:
                await self._calls.run("finish", reservation.tenant, reservation.keys, arguments)
            except UNKNOWN_ERRORS:
                if attempt is not None:
                    _done(attempt)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                return

    def _window(self, reservation: Reservation) -> int:
        return self._settings.window if reservation.merges else 0

    def _reservation(self, principal: Principal, file: File, promised: int) -> Reservation:
        content = f"{file.checksum_algorithm}:{file.checksum.lower()}" if file.checksum else f"file:{file.file_id}"
        if principal.link is not None:
            # What a link is good for does not depend on what its owner downloads besides.
            content = f"{content}:{principal.link.identifier}"
        return Reservation(
            principal.tenant,
            _identifier(),
            accounts_of(principal, file.limits),
            content,
            windows_of(file.limits),
            promised,
            -1 if file.size is None else file.size,
        )

    def _in_background(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task


def _done(attempt: asyncio.Future[None]) -> None:
    """Let whoever waits for it go on, if he still does."""
    if not attempt.done():
        attempt.set_result(None)


def _unknown() -> GatewayError:
    return unavailable("The quota service does not answer at the moment; try again.")


def _account_keys(accounts: tuple[str, ...], keys: Keys) -> tuple[str, ...]:
    return keys.state, *keys.of_accounts(accounts)


def _lease_keys(identifiers: Sequence[str], keys: Keys) -> tuple[str, ...]:
    return keys.state, *map(keys.lease, identifiers)


def _identifier() -> str:
    return secrets.token_urlsafe(16)


@functools.lru_cache(maxsize=1024)
def _spaced(windows: tuple[int, ...]) -> str:
    return " ".join(map(str, windows))

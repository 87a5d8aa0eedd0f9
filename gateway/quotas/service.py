"""Reservations before the first byte, settlements after the last."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from urllib.parse import quote

from gateway.catalog.model import File
from gateway.config import Quotas as QuotaSettings
from gateway.config import Redis as RedisSettings
from gateway.errors import GatewayError, unavailable
from gateway.identity.principal import Principal
from gateway.quotas.limits import ANONYMOUS, Limit
from gateway.quotas.scripts import NEIGHBOUR_ERRORS, Scripts, open_scripts

log = logging.getLogger(__name__)

_TOMBSTONE_SECONDS = 600
"""Longer than any reservation can still be on its way to Redis."""
_SETTLE_ATTEMPTS = 8
_SETTLE_PAUSE = 0.25
"""Seconds before the second attempt; doubled each time, so that all attempts span about half a minute."""

_CLOSE_TIMEOUT = 2
"""Seconds that settlements get when the gateway ends."""

MOST_BYTES = 2**53
"""Redis' Lua counts in doubles, which are exact up to here."""


@dataclasses.dataclass(frozen=True, slots=True)
class Lease:
    """A granted reservation. Whoever holds it settles it, whatever happens."""

    keys: tuple[str, str, str]
    """Redis keys: usage of the caller, this lease, this caller's use of this content."""
    window: int
    """Seconds in which the same content counts as one download, 0 for never."""
    promised: int
    """Bytes of the representation that the answer will hold."""


class Quotas:
    """Counts downloads and bytes in Redis. Reserving is one round trip."""

    def __init__(self, scripts: Scripts, settings: QuotaSettings) -> None:
        self._scripts = scripts
        self._settings = settings
        self._settling: set[asyncio.Task[None]] = set()

    async def reserve(self, principal: Principal, file: File, promised: int) -> Lease:
        """Reserve one download of ``file`` with ``promised`` bytes of its representation.

        Raises:
            GatewayError: 429 the quota does not allow it; 503 Redis does not answer, so that nobody knows.
        """
        return await self._charge(principal, file, promised, ttl=self._settings.lease_ttl, whole=False)

    async def charge(self, principal: Principal, file: File, octets: int) -> None:
        """Charge one download of ``file``, all ``octets`` of it, which somebody else sends: there is nothing to settle.

        Raises:
            GatewayError: as `reserve`; nothing is charged then.
        """
        await self._charge(principal, file, octets, ttl=_TOMBSTONE_SECONDS, whole=True)

    async def settle(self, lease: Lease, *, sent: int, delivered: bool) -> None:
        """Charge ``sent`` bytes and end the lease; the download itself is given back unless ``delivered``.

        It returns when Redis has it, or after the first attempt failed; further attempts go on in the background. A
        caller that is cancelled meanwhile stops waiting, the settlement goes on.
        """
        task = self._settle_later(lease, sent=sent, delivered=delivered)
        await asyncio.wait([task], timeout=self._scripts.timeout)

    async def usage(self, principal: Principal) -> tuple[int, int]:
        """Downloads and bytes charged to ``principal`` so far, promises of running downloads included.

        Raises:
            GatewayError: 503; Redis does not answer.
        """
        try:
            return await self._scripts.usage(_usage_key(principal.tenant, principal.email))
        except NEIGHBOUR_ERRORS as error:
            raise unavailable("Redis does not answer.") from error

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
            log.error("%s downloads stay charged in full: Redis did not take their settlements in time", len(late))

    async def _charge(self, principal: Principal, file: File, promised: int, *, ttl: int, whole: bool) -> Lease:
        if promised > MOST_BYTES:
            raise GatewayError(HTTPStatus.TOO_MANY_REQUESTS, "This is more than any quota can count.")
        lease = self._lease(principal, file, promised)
        arguments = (*lifetime(file.limits), promised, lease.window, ttl, int(whole))
        try:
            answer = await self._scripts.run("reserve", lease.keys, arguments)
        except NEIGHBOUR_ERRORS as error:
            # It may have been granted before the answer was lost.
            self._settle_later(lease, sent=0, delivered=False)
            raise unavailable("The quota service does not answer at the moment; try again.") from error
        except asyncio.CancelledError:
            self._settle_later(lease, sent=0, delivered=False)
            raise
        if answer[0] == 1:
            return lease
        raise _refusal(principal, file, answer[1].decode(), used_downloads=answer[2], used_bytes=answer[3])

    def _lease(self, principal: Principal, file: File, promised: int) -> Lease:
        usage = _usage_key(principal.tenant, principal.email)
        content = f"{file.checksum_algorithm}:{file.checksum.lower()}" if file.checksum else f"file:{file.file_id}"
        identifier = secrets.token_urlsafe(16)
        # Anonymous callers are many people under one name: nothing that one does is merged with what another does.
        window = 0 if principal.is_anonymous else self._settings.window
        held = f"{usage}:content:{content}" if window else f"{usage}:once:{identifier}"
        return Lease((usage, f"{usage}:lease:{identifier}", held), window, promised)

    def _settle_later(self, lease: Lease, *, sent: int, delivered: bool) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._settle_with_retries(lease, sent, delivered))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task

    async def _settle_with_retries(self, lease: Lease, sent: int, delivered: bool) -> None:
        arguments = (sent, int(delivered), lease.window, _TOMBSTONE_SECONDS)
        for attempt in range(_SETTLE_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_SETTLE_PAUSE * 2 ** (attempt - 1))
            try:
                await self._scripts.run("settle", lease.keys, arguments)
            except NEIGHBOUR_ERRORS as error:
                problem = error
            else:
                return
        log.error("a download stays charged in full: %s bytes promised, %s sent: %r", lease.promised, sent, problem)


def lifetime(limits: Sequence[Limit]) -> tuple[int, int]:
    """Downloads and bytes that ``limits`` allow a caller's one account in all; -1 is unlimited."""
    found = {
        limit.metric: limit.value
        for limit in limits
        if limit.period == "total" and limit.account.startswith(("user:", ANONYMOUS))
    }
    return found.get("downloads", -1), found.get("bytes", -1)


@contextlib.asynccontextmanager
async def connect(settings: RedisSettings, quotas: QuotaSettings) -> AsyncIterator[Quotas]:
    """Open the connections to Redis.

    Raises:
        ConfigurationError: Redis cannot be reached.
    """
    async with open_scripts(settings) as scripts:
        service = Quotas(scripts, quotas)
        try:
            yield service
        finally:
            await service.close()


@functools.lru_cache(maxsize=4096)
def _usage_key(tenant: str, email: str | None) -> str:
    """All keys of a tenant carry its name as hash tag, so that they share a slot of a Redis Cluster."""
    who = "anonymous" if email is None else f"user:{quote(email, safe='@')}"
    return f"gateway:{{{quote(tenant, safe='')}}}:{who}"


def _refusal(principal: Principal, file: File, reason: str, *, used_downloads: int, used_bytes: int) -> GatewayError:
    """429 with the text of REGARDS; the limits are for a lifetime, so that no Retry-After would be true."""
    who = principal.email or "public"
    max_downloads, max_bytes = lifetime(file.limits)
    if reason == "downloads":
        limit = max_downloads
        detail = f"Download quota of {limit} exceeded (by {max(used_downloads - limit, 0)}) for user {who}."
    elif reason == "bytes":
        limit = max_bytes
        detail = f"Download quota of {limit} bytes would be exceeded ({used_bytes} bytes used) for user {who}."
    else:
        return unavailable("The quota service answered too late; try again.")
    return GatewayError(
        HTTPStatus.TOO_MANY_REQUESTS,
        f"{detail} This limit is for a lifetime: it does not reset with time.",
        code="QuotaExceeded",
    )

"""Where an identity provider takes log-ins: asked once for all who log in, and now and then."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from gateway.errors import unavailable
from gateway.identity.discovery import NotFetchedError

log = logging.getLogger(__name__)

FRESH_SECONDS = 600.0
"""For which endpoints are not asked for again. They change as good as never."""
PAUSE_SECONDS = 5.0
"""Between two attempts that fail."""


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoints:
    """Where an identity provider takes log-ins (OpenID Connect Discovery 1.0 §3)."""

    authorization: str
    token: str


class FoundEndpoints:
    """The endpoints of one identity provider. Made by `endpoints`.

    Anybody can begin a log-in: whoever does while they are asked for waits for the same answer.
    """

    def __init__(
        self, fetch: Callable[[], Awaitable[Mapping[str, str]]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Know none yet; ``clock`` gives seconds."""
        self._fetch = fetch
        self._clock = clock
        self._found: Endpoints | None = None
        self._next_attempt = -math.inf
        self._fetching: asyncio.Task[None] | None = None

    async def find(self) -> Endpoints:
        """The endpoints as they were told last; it is not waited for that they are told again.

        Raises:
            GatewayError: 503; it has not told them yet.
        """
        if self._fetching is None and self._clock() >= self._next_attempt:
            self._fetching = asyncio.create_task(self._fetch_once())
        if self._found is None and self._fetching is not None:
            # Whoever goes away does not end what others wait for.
            await asyncio.wait({self._fetching})
        if self._found is None:
            raise unavailable("The identity provider does not answer at the moment; try again.")
        return self._found

    async def close(self) -> None:
        """End a fetch that is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})

    async def _fetch_once(self) -> None:
        pause = PAUSE_SECONDS
        try:
            found = await self._fetch()
        except NotFetchedError as error:
            log.warning("where to log in is not known: %s", error)
        else:
            self._found = Endpoints(found["authorization_endpoint"], found["token_endpoint"])
            pause = FRESH_SECONDS
        finally:
            self._next_attempt = self._clock() + pause
            self._fetching = None


@contextlib.asynccontextmanager
async def endpoints(fetch: Callable[[], Awaitable[Mapping[str, str]]]) -> AsyncIterator[FoundEndpoints]:
    """Endpoints as ``fetch`` finds them (`fetch_endpoints`), within the block."""
    found = FoundEndpoints(fetch)
    try:
        yield found
    finally:
        await found.close()

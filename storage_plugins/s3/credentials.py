"""Credentials that signatures are made with: at hand when they are needed, and new ones before the old ones end."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Protocol

from gateway.storage import CopyUnavailableError
from storage_plugins.s3.sigv4 import Credentials

SKEW = 30
"""Seconds before their end at which credentials count as ended: clocks differ, and requests take time."""
_AHEAD = 300
"""Seconds before somebody would have to wait for new credentials at which these are fetched in the background."""
_PAUSE = 60
"""Seconds after new credentials came in which these are as good as can be had."""
_PAUSE_AFTER_TROUBLE = 5
"""Seconds between two tries when there are no good credentials: so much may a broken chain be asked."""
_MOST_CHARACTERS = 300
"""Of what a chain says when it fails."""


def seconds_left(credentials: Credentials, now: float) -> float:
    """How long ``credentials`` can be relied on."""
    return math.inf if credentials.expires is None else credentials.expires - SKEW - now


class CredentialSource(Protocol):
    """Gives credentials to sign with."""

    async def credentials(self, lifetime: float) -> Credentials:
        """Credentials for ``lifetime`` seconds; they may end sooner where no better ones can be had (`seconds_left`).

        Raises:
            CopyUnavailableError: there are none that work now.
        """
        ...

    def refused(self, credentials: Credentials) -> None:
        """Tell that a server calls ``credentials`` ended or unknown, whatever we know of them."""
        ...

    async def close(self) -> None:
        """Stop whatever goes on in the background."""
        ...


class StaticCredentials:
    """Credentials that stay as they are."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    async def credentials(self, lifetime: float) -> Credentials:  # noqa: ARG002 - of the Protocol
        """See `CredentialSource`."""
        return self._credentials

    def refused(self, credentials: Credentials) -> None:
        """Nothing can be done."""

    async def close(self) -> None:
        """Nothing goes on."""


class Chain(Protocol):
    """Where new credentials come from."""

    async def fetch(self) -> Credentials | None:
        """New credentials, or None where nobody has any. It may raise whatever it likes."""
        ...

    def close(self) -> None:
        """Give back all that it holds."""
        ...


class RefreshedCredentials:
    """Credentials of a chain that end, and are then fetched anew: once for all who wait for them."""

    def __init__(self, chain: Chain, *, deadline: float = 10, now: Callable[[], float] = time.time) -> None:
        """Fetch nothing yet.

        Args:
            chain: is asked for credentials, and closed.
            deadline: seconds that it may take.
            now: the clock, in seconds since the epoch.
        """
        self._chain = chain
        self._deadline = deadline
        self._now = now
        self._credentials: Credentials | None = None
        self._refused = False
        """Whether a server refused the credentials."""
        self._trouble = ""
        """Why the last fetch gave none."""
        self._tried = -math.inf
        self._fetching: asyncio.Task[None] | None = None

    async def credentials(self, lifetime: float) -> Credentials:
        """See `CredentialSource`."""
        left = self._left()
        if left < lifetime + _AHEAD or self._refused:
            fetching = self._refresh()
            if fetching is not None and (left < lifetime or self._refused):
                await asyncio.wait([fetching])
        if self._credentials is None or self._left() <= 0:
            raise CopyUnavailableError(f"no credentials to sign with: {self._trouble or 'those at hand ended'}")
        return self._credentials

    def refused(self, credentials: Credentials) -> None:
        """See `CredentialSource`."""
        if credentials is self._credentials:
            self._refused = True

    async def close(self) -> None:
        """See `CredentialSource`."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])
        self._chain.close()

    def _left(self) -> float:
        return 0 if self._credentials is None else seconds_left(self._credentials, self._now())

    def _refresh(self) -> asyncio.Task[None] | None:
        """The fetch that goes on, or a new one; None if the last one was too short a while ago."""
        if self._fetching is None:
            troubled = self._trouble or self._refused or self._left() <= 0
            if 0 <= self._now() - self._tried < (_PAUSE_AFTER_TROUBLE if troubled else _PAUSE):
                return None
            self._fetching = asyncio.create_task(self._fetch_anew())
            self._fetching.add_done_callback(self._fetched)
        return self._fetching

    def _fetched(self, _: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _fetch_anew(self) -> None:
        """Take what the fetch gives. Whatever goes wrong is kept for those who are left without credentials."""
        found, trouble = None, "the AWS chain has none: environment, files, container and instance were asked"
        try:
            async with asyncio.timeout(self._deadline):
                found = await self._chain.fetch()
        except TimeoutError:
            trouble = f"the AWS chain did not answer within {self._deadline:g} s"
        except Exception as error:  # noqa: BLE001 - whatever a chain raises, there are no new credentials
            reason = " ".join(str(error).split())  # It may be all that a process of the chain had to say.
            trouble = f"the AWS chain failed: {type(error).__name__}: {reason[:_MOST_CHARACTERS]}"
        self._tried = self._now()
        if found is None:
            self._trouble = trouble
        else:
            self._credentials, self._refused, self._trouble = found, False, ""

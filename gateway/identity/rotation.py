"""Keys that an identity provider changes at any time."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from gateway.config import Issuer
from gateway.errors import unavailable
from gateway.identity.discovery import KeySet, NotFetchedError
from gateway.identity.jwks import FRESH_SECONDS, MOST_KEYS
from gateway.identity.keys import Trusted, VerificationKey

log = logging.getLogger(__name__)

_LONGEST_SLEEP = FRESH_SECONDS[0]
MOST_TRIED = 8
"""Keys that one token is tried with: a token without ``kid`` fits each of a set."""
MOST_WITHDRAWN = MOST_KEYS
"""Keys that are kept for their grace, the latest first."""


@dataclasses.dataclass(slots=True)
class _Held:
    key: VerificationKey
    until: float = math.inf
    """Once it vanished from the set: when its grace ends."""


class RotatingKeys:
    """The keys of one issuer, fetched when they are no longer fresh, or when a token names one that is not known.

    Whoever waits for a fetch waits for the same one, and between two of them lies at least the cool-down. When the keys
    cannot be fetched, the last ones are used for as long as the settings say, and nobody is believed after that.
    """

    def __init__(
        self,
        setting: Issuer,
        fetch: Callable[[], Awaitable[KeySet]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Know no key yet; ``clock`` gives seconds."""
        self._setting = setting
        self._fetch = fetch
        self._clock = clock
        self._held: list[_Held] = []
        self._fresh_until = -math.inf
        self._usable_until = -math.inf
        self._next_attempt = -math.inf
        self._fetching: asyncio.Task[None] | None = None
        self._generation = 0

    @property
    def generation(self) -> int:
        """How often a key was withdrawn."""
        return self._generation

    async def find(self, kid: str | None, algorithm: str) -> Sequence[Trusted]:
        """The keys that a token with these header members may be verified with.

        Raises:
            GatewayError: 503; the keys could not be fetched for too long.
        """
        if self._clock() >= self._usable_until:
            await self._refresh()
            if self._clock() >= self._usable_until:
                raise unavailable("the keys of the token's issuer cannot be fetched")
        found = self._look_up(kid, algorithm)
        if not found and kid is not None:
            await self._refresh()
            found = self._look_up(kid, algorithm)
        return found

    def _look_up(self, kid: str | None, algorithm: str) -> list[Trusted]:
        now = self._clock()
        return [
            Trusted(held.key, min(held.until, self._usable_until) - now)
            for held in self._held
            if held.key.may_have_signed(kid, algorithm) and now < held.until
        ][:MOST_TRIED]

    async def keep_fresh(self) -> None:
        """Fetch the keys now, and again whenever they are no longer fresh, until cancelled."""
        while True:
            if self._clock() >= self._fresh_until:
                await self._refresh()
            wait = max(self._fresh_until, self._next_attempt) - self._clock()
            # A fetch that a token asked for meanwhile may have made them fresh for a shorter time.
            await asyncio.sleep(min(wait, _LONGEST_SLEEP))

    async def close(self) -> None:
        """End a fetch that is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})

    async def _refresh(self) -> None:
        """Wait for the fetch that is under way, or for a new one unless the last one is too recent."""
        if self._fetching is None or self._fetching.done():
            if self._clock() < self._next_attempt:
                return
            self._fetching = asyncio.create_task(self._fetch_once())
        # A caller who goes away does not end what others wait for.
        await asyncio.wait({self._fetching})

    async def _fetch_once(self) -> None:
        try:
            published = await self._fetch()
        except NotFetchedError as error:
            log.warning("the keys of token issuer %s are not fetched: %s", self._setting.issuer, error)
        else:
            self._take(published)
        finally:
            self._next_attempt = self._clock() + self._setting.cool_down

    def _take(self, published: KeySet) -> None:
        now = self._clock()
        new = [_Held(key) for key in published.keys if all(key != held.key for held in self._held)]
        kept: list[_Held] = []
        withdrawn: list[_Held] = []
        for held in self._held:
            if held.key in published.keys:
                kept.append(_Held(held.key))
            elif math.isinf(held.until):
                # Tokens that it verified are verified again, and remembered for no longer than its grace.
                self._generation += 1
                log.info("a key of token issuer %s is withdrawn", self._setting.issuer)
                withdrawn.append(_Held(held.key, now + self._setting.grace))
            elif now < held.until:
                withdrawn.append(held)
        self._held = [*new, *kept, *withdrawn[:MOST_WITHDRAWN]]
        self._fresh_until = now + published.fresh
        self._usable_until = self._fresh_until + self._setting.max_stale


@contextlib.asynccontextmanager
async def rotating_keys(
    setting: Issuer, fetch: Callable[[], Awaitable[KeySet]], clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[RotatingKeys]:
    """Keys that are kept fresh within the block. Nothing waits for the first fetch, and none has to succeed."""
    keys = RotatingKeys(setting, fetch, clock)
    task = asyncio.create_task(keys.keep_fresh())
    try:
        yield keys
    finally:
        task.cancel()
        await asyncio.wait({task})
        await keys.close()

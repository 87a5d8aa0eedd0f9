"""Who follows an order, a restore or the like as it goes on: woken by PostgreSQL, within bounds."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from http import HTTPStatus

from gateway.errors import GatewayError, unavailable
from gateway.notifications import Payload

_RETRY_SECONDS = 30

User = tuple[str, str | None]
"""Tenant and e-mail address."""


class Follower:
    """Is woken when what it follows went on. However often it did since, it is woken once."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()
        self.ended = False
        """Whether to come to an end, whatever becomes of it."""

    def wake(self) -> None:
        """There may be news."""
        self._woken.set()

    async def news(self, seconds: float) -> bool:
        """Whether there may be some; asked anew after ``seconds`` at the latest."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        woken = self._woken.is_set()
        self._woken.clear()
        return woken


class Following:
    """All that follow something of a kind in this process."""

    def __init__(self, topic: str, most: int, most_of_user: int) -> None:
        """Let up to ``most`` follow, ``most_of_user`` of one user; ``topic`` names the kind, as notifications do."""
        self._topic = topic
        self._most = most
        self._most_of_user = most_of_user
        self._followers: dict[str, set[Follower]] = {}
        self._by_user = Counter[User]()
        self._ended = False

    @property
    def count(self) -> int:
        """How many there are."""
        return self._by_user.total()

    @contextlib.contextmanager
    def follow(self, identifier: int, user: User) -> Iterator[Follower]:
        """Be one of them while the block runs.

        Raises:
            GatewayError: 429 this user has enough of them; 503 this process has, or it is about to end.
        """
        if self._ended or self.count >= self._most:
            detail = f"No more {self._topic} can be followed at the moment; try again."
            raise unavailable(detail, retry_after=_RETRY_SECONDS)
        if self._by_user[user] >= self._most_of_user:
            raise GatewayError(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"One user can follow {self._most_of_user} {self._topic} at a time.",
                headers={"Retry-After": str(_RETRY_SECONDS)},
            )
        key, follower = str(identifier), Follower()
        self._by_user[user] += 1
        self._followers.setdefault(key, set()).add(follower)
        try:
            yield follower
        finally:
            self._by_user[user] -= 1
            if not self._by_user[user]:
                del self._by_user[user]
            self._followers[key].discard(follower)
            if not self._followers[key]:
                del self._followers[key]

    def end(self) -> None:
        """Have all come to an end at once, as the process does."""
        self._ended = True
        for follower in self._all():
            follower.ended = True
            follower.wake()

    def changed(self, topic: str, payload: Payload) -> None:
        """As `Subscriber`."""
        if topic == self._topic and payload.id is not None:
            for follower in self._followers.get(payload.id, ()):
                follower.wake()

    def missed(self) -> None:
        """As `Subscriber`."""
        for follower in self._all():
            follower.wake()

    def _all(self) -> Iterator[Follower]:
        for followers in self._followers.values():
            yield from followers

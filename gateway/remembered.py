"""What PostgreSQL said lately, remembered as long as it tells what changes."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from gateway.db import no_answer
from gateway.notifications import Notifications

A = TypeVar("A")
V = TypeVar("V")

MOST = 10_000
"""Answers that are remembered, and as many keys that lead to nothing."""
SECONDS = 60.0
"""That an answer is remembered at most, even if no change is told: what bypasses triggers (TRUNCATE) counts then."""
SECONDS_OF_NOTHING = 5.0
"""That it is remembered that there is nothing."""


class Remembered(Generic[A]):
    """Answers by key.

    Only one question for each key is under way at a time. An answer is remembered unless something changed since it
    was asked for, so that one that crosses a change is not kept.
    """

    def __init__(
        self,
        ask: Callable[[str], asyncio.Future[A | None]],
        notifications: Notifications,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._notifications = notifications
        self._clock = clock
        self._answers: dict[str, tuple[A, float]] = {}
        self._nothing: dict[str, float] = {}
        self._under_way: dict[str, asyncio.Future[A | None]] = {}
        self._changes = 0

    async def get(self, key: str) -> A | None:
        """The answer for ``key``; None if there is nothing.

        Raises:
            GatewayError: 503 nobody knows at the moment.
        """
        if key in self._answers and self._notifications.is_current:
            answer, until = self._answers[key]
            if self._clock() < until:
                return answer
        if self._clock() < self._nothing.get(key, 0.0):
            return None
        question = self._under_way.get(key)
        if question is None:
            question = self._under_way[key] = self._ask(key)
            question.add_done_callback(functools.partial(self._answered, key, self._changes))
        try:
            # Whoever asks may be cancelled; the others still wait for the same.
            return await asyncio.shield(question)
        except TimeoutError as error:
            raise no_answer() from error

    def forget(self, key: str) -> None:
        """Something changed about ``key``."""
        self._changes += 1
        for found in (self._answers, self._nothing, self._under_way):
            found.pop(key, None)

    def forget_all(self) -> None:
        """Anything may have changed."""
        self._changes += 1
        for found in (self._answers, self._nothing, self._under_way):
            found.clear()

    def _answered(self, key: str, changes: int, question: asyncio.Future[A | None]) -> None:
        if self._under_way.get(key) is question:
            del self._under_way[key]
        if question.cancelled() or question.exception() is not None or changes != self._changes:
            return
        answer = question.result()
        if answer is None:
            _put(self._nothing, key, self._clock() + SECONDS_OF_NOTHING)
        elif self._notifications.is_current:
            _put(self._answers, key, (answer, self._clock() + SECONDS))


def _put(found: dict[str, V], key: str, value: V) -> None:
    found.pop(key, None)
    while len(found) >= MOST:
        del found[next(iter(found))]
    found[key] = value

"""Whether this process can serve downloads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from gateway.errors import GatewayError
from gateway.notifications import Notifications


class Health:
    """Asks every neighbour that a download needs."""

    def __init__(
        self,
        checks: Mapping[str, Callable[[], Awaitable[object]]],
        alarms: Callable[[], Mapping[str, int]],
        notifications: Notifications,
    ) -> None:
        self._checks = dict(checks)
        self.notifications = notifications
        """Without them all works, with more questions to PostgreSQL."""
        self.alarms = alarms
        """How often what must never happen did, since the start of the process, by kind."""
        self._draining = False

    def drain(self) -> None:
        """From now on be not ready: the process is about to stop."""
        self._draining = True

    async def reasons_not_ready(self) -> dict[str, str]:
        """What keeps this process from serving, by neighbour; empty when nothing does."""
        if self._draining:
            return {"process": "is stopping"}
        names = list(self._checks)
        answers = await asyncio.gather(*(check() for check in self._checks.values()), return_exceptions=True)
        reasons = {}
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, GatewayError):
                reasons[name] = answer.detail
            elif isinstance(answer, BaseException):
                raise answer
        return reasons

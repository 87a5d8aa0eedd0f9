"""Restores of many copies where a storage is asked about each of them by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from gateway.storage import CopyUnavailableError, StageState, StorageError, ToStage


class RefusedError(CopyUnavailableError):
    """The storage answers, but will not do it for this copy: that is no reason to leave all others alone."""


AT_ONCE = 16
"""Copies that a storage is asked about at the same time."""


async def side_by_side(
    copies: Sequence[ToStage], ask: Callable[[ToStage], Awaitable[StageState]]
) -> dict[str, StageState]:
    """What ``ask`` says of each copy, by its key. Where it raises an error, that copy has failed for this time.

    Raises:
        CopyUnavailableError: it has nothing to say of any copy, and not because each is refused.
    """
    turns = asyncio.Semaphore(AT_ONCE)
    states: dict[str, StageState] = {}
    errors: dict[str, StorageError] = {}

    async def one(copy: ToStage) -> None:
        async with turns:
            try:
                states[copy.key] = await ask(copy)
            except StorageError as error:
                errors[copy.key] = error

    async with asyncio.TaskGroup() as group:
        for copy in copies:
            group.create_task(one(copy))
    silent = [error for error in errors.values() if not isinstance(error, RefusedError)]
    if silent and not states:
        raise CopyUnavailableError(str(silent[0])) from silent[0]
    return states | {key: StageState("FAILED", error=str(error)) for key, error in errors.items()}

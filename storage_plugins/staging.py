"""Restores of many copies where a storage is asked about each of them by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from gateway.storage import CopyUnavailableError, StageState, StorageError, ToStage

AT_ONCE = 16
"""Copies that a storage is asked about at the same time."""


async def side_by_side(
    copies: Sequence[ToStage], ask: Callable[[ToStage], Awaitable[StageState]]
) -> dict[str, StageState]:
    """What ``ask`` says of each copy, by its key. What it cannot say of some of them is their failure, to be retried.

    Raises:
        CopyUnavailableError: it can say nothing of any.
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
    if errors and not states:
        first = next(iter(errors.values()))
        raise CopyUnavailableError(str(first)) from first
    return states | {key: StageState("FAILED", error=str(error)) for key, error in errors.items()}

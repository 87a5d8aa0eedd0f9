"""Asking a storage for something: never for longer than a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from gateway.catalog.ingest.model import Copy
from gateway.storage import CopyUnavailableError
from gateway.text import shown

TIMEOUT = 30.0
"""Seconds that a storage may take to describe, open or read one piece of a copy."""

_T = TypeVar("_T")


class NoAnswerError(CopyUnavailableError):
    """The storage did not answer in `TIMEOUT`: whoever goes on asking it waits as long each time."""


async def in_time(answer: Awaitable[_T], copy: Copy) -> _T:
    """What the storage answers.

    Raises:
        NoAnswerError: it did not answer in `TIMEOUT`.
        StorageError: what it raises itself.
    """
    try:
        async with asyncio.timeout(TIMEOUT):
            return await answer
    except TimeoutError as error:
        raise NoAnswerError(
            f"storage {copy.storage!r} did not answer for {shown(copy.location)} in {TIMEOUT:g} s"
        ) from error

"""What errors of obstore mean to the gateway, without their text: it holds URLs, and what a server thought to say."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator

from obstore.exceptions import BaseError, NotModifiedError, PreconditionError

from gateway.storage import (
    CopyChangedError,
    CopyNotFoundError,
    CopyOfflineError,
    CopyUnavailableError,
    StorageError,
    answering_within,
)

_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")
_OFFLINE = frozenset({"BlobArchived", "BlobBeingRehydrated", "InvalidObjectState"})
"""Azure's and Amazon's names of what must be restored first."""
_NO_CONTAINER = frozenset({"ContainerNotFound", "NoSuchBucket"})
# The store in memory has no status.
_PAST_THE_END = "StartTooLarge"
_CREDENTIALS = re.compile(r"token request|signing blob|delegation key|computeMetadata|/latest/api/token")
# Words of obstore's HTTP client.
_TROUBLE = re.compile(
    r"kind: (?:(Timeout)|(Connect))|(TimedOut|ConnectionRefused|TooManyRedirects)|dns error|[\w-]+ Header missing"
)


@contextlib.asynccontextmanager
async def asking(name: str, seconds: float) -> AsyncIterator[None]:
    """Ask a store for the object that errors call ``name``, no longer than ``seconds``.

    Raises:
        StorageError: as `failure` says, or CopyUnavailableError when the time is over.
    """
    try:
        async with answering_within(seconds):
            yield
    except (BaseError, FileNotFoundError) as error:
        raise failure(name, error) from None
    except CopyUnavailableError as error:
        raise CopyUnavailableError(f"{name}: {error}") from None


def failure(name: str, error: Exception) -> StorageError:
    """The error that the gateway knows. It tells the status, the store's short name of the trouble, and no more."""
    text = str(error)
    status, code = _found(_STATUS, text), _found(_CODE, text)
    if code in _NO_CONTAINER:
        return CopyUnavailableError(f"{name}: there is no such bucket or container ({code})")
    if isinstance(error, FileNotFoundError):
        return CopyNotFoundError(f"{name}: there is no such object")
    if code in _OFFLINE:
        return CopyOfflineError(f"{name}: must be restored first ({code})")
    if isinstance(error, PreconditionError | NotModifiedError):
        return CopyChangedError(f"{name}: has another version")
    if status == "416" or _PAST_THE_END in text:
        return CopyChangedError(f"{name}: ends before the bytes that were asked for")
    asked = "the source of credentials" if _CREDENTIALS.search(text) else "the store"
    if status:
        return CopyUnavailableError(f"{name}: {asked} answers {status}{code and f' {code}'}")
    trouble = _TROUBLE.search(text)
    why = f" ({trouble[0].removeprefix('kind: ')})" if trouble else ""
    return CopyUnavailableError(f"{name}: asking {asked} failed: {type(error).__name__}{why}")


def _found(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""

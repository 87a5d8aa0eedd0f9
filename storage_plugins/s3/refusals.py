"""What S3 means when it refuses a request: its error codes, in terms of storages.

After "Error responses" of the Amazon S3 API reference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from gateway.storage import CopyNotFoundError, CopyOfflineError, CopyUnavailableError, StorageError
from storage_plugins.staging import RefusedError

_CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,64})</Code>")
_REGION = re.compile(r"[A-Za-z0-9-]{1,64}")
_ABSENT = frozenset({"NoSuchKey", "NoSuchBucket", "KeyTooLongError"})
_ENDED = frozenset({"ExpiredToken", "TokenRefreshRequired", "InvalidToken", "InvalidTokenId", "InvalidAccessKeyId"})
_OF_ONE = frozenset(
    {"AccessDenied", "InvalidArgument", "InvalidRequest", "MalformedXML", "GlacierExpeditedRetrievalNotAvailable"}
)
"""Of one object, while others may well be had."""
_EXPIRED = b"has expired"
"""What Amazon says of requests, beside the code AccessDenied, and of tokens."""
_CONDITIONS = (412, 416)
"""Statuses that say all there is to say."""


def error_code(body: bytes) -> str:
    """S3's name for what is wrong, from the beginning of its answer's XML; empty if there is none."""
    found = _CODE.search(body)
    return found[1].decode() if found else ""


def refuses_credentials(code: str, body: bytes = b"") -> bool:
    """Whether other credentials might help: these have ended, or are not known (any more)."""
    return code in _ENDED or _EXPIRED in body


def failure(name: str, code: str, hint: str = "") -> StorageError:
    """The error that S3 names ``code``, for the copy ``name``."""
    if code in _ABSENT:
        return CopyNotFoundError(f"{name}: S3 answers {code}")
    if code == "InvalidObjectState":
        return CopyOfflineError(f"{name}: S3 answers {code}: it is archived, and must be restored first")
    if code in _OF_ONE and not hint:
        return RefusedError(f"{name}: S3 answers {code}")
    return CopyUnavailableError(f"{name}: S3 answers {code}{hint}")


def explanation(name: str, status: int, headers: Mapping[str, str], body: bytes) -> StorageError | None:
    """What a refused GET or HEAD of the copy ``name`` means; None if its status alone says it."""
    code = error_code(body)
    if not code or status in _CONDITIONS:
        return None
    region, hint = headers.get("x-amz-bucket-region", ""), ""
    if 300 <= status < 400 and _REGION.fullmatch(region):
        hint = f": the bucket is in the region {region}"
    elif code == "AccessDenied" and _EXPIRED in body:
        hint = ": the request had expired when it came; do the clocks differ?"
    return failure(name, code, hint)

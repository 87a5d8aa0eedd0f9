"""Whether an object of S3 can be read: what HeadObject says of archives, and what RestoreObject is asked for.

After "HeadObject", "RestoreObject" and "Archive retrieval options" of the Amazon S3 documentation.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from typing import Any

from gateway.http.dates import parse_http_date
from gateway.storage import StageState

_ARCHIVED = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes whose objects cannot be read before they are restored; GLACIER_IR is read at any time."""
_DEEP = frozenset({"DEEP_ARCHIVE", "DEEP_ARCHIVE_ACCESS"})
_RESTORE = re.compile(r'\s*ongoing-request="(?P<ongoing>true|false)"(?:\s*,\s*expiry-date="(?P<until>[^"]*)")?\s*')
_DAY = 86400
_HOURS: Mapping[tuple[str, bool], float] = {
    ("Expedited", False): 5 / 60,
    ("Standard", False): 5,
    ("Standard", True): 12,
    ("Bulk", False): 12,
    ("Bulk", True): 48,
}
"""That restores take at most, as Amazon publishes it: by the tier, and whether the archive is a deep one."""


def state_of(fields: Mapping[str, str], now: datetime.datetime) -> StageState:
    """What the header fields of an answer to HEAD tell of an object."""
    if _archive(fields) is None:
        return StageState("ONLINE")
    found = _RESTORE.fullmatch(fields.get("x-amz-restore", ""))
    if found is None:
        return StageState("NEARLINE")
    if found["ongoing"] == "true":
        return StageState("STAGING")
    if found["until"] is None:
        return StageState("ONLINE")
    until = parse_http_date(found["until"], now)
    return StageState("ONLINE", until) if until is not None and until > now else StageState("NEARLINE")


def request_of(fields: Mapping[str, str], seconds: float, tier: str) -> dict[str, Any]:
    """The RestoreRequest by which an archived object is readable for ``seconds``, in whole days.

    What lies in an archive of INTELLIGENT_TIERING comes back for good, and no days may be given. Deep archives know no
    tier Expedited.
    """
    wanted: dict[str, Any] = {"GlacierJobParameters": {"Tier": _tier(fields, tier)}}
    if "x-amz-archive-status" not in fields:
        wanted["Days"] = max(1, math.ceil(seconds / _DAY))
    return wanted


def until_of(request: Mapping[str, Any], now: datetime.datetime) -> datetime.datetime | None:
    """When what was restored by ``request`` at ``now`` is archived again; S3 rounds that up to the next midnight."""
    return now + datetime.timedelta(days=request["Days"]) if "Days" in request else None


def hours_of(fields: Mapping[str, str], tier: str) -> float:
    """That the restore of an archived object takes at most, as Amazon publishes it."""
    return _HOURS[_tier(fields, tier), _archive(fields) in _DEEP]


def _archive(fields: Mapping[str, str]) -> str | None:
    status = fields.get("x-amz-archive-status")
    if status is not None:
        return status
    storage_class = fields.get("x-amz-storage-class", "")
    return storage_class if storage_class in _ARCHIVED else None


def _tier(fields: Mapping[str, str], tier: str) -> str:
    return "Standard" if tier == "Expedited" and _archive(fields) in _DEEP else tier

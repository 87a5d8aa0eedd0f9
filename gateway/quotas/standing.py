"""Where a caller stands with each of his limits, and what he is told of it: pure."""

from __future__ import annotations

import base64
import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Literal

from gateway.errors import GatewayError
from gateway.quotas.limits import Limit

State = Literal["within", "refused", "slowed"]

_STATES: tuple[State, ...] = ("within", "refused", "slowed")
_NEVER = -1
_UNITS = {"downloads": "requests", "rate": "requests", "bytes": "content-bytes", "concurrent": "concurrent-requests"}
"""Quota units of the IETF draft "RateLimit header fields for HTTP" (draft-ietf-httpapi-ratelimit-headers)."""
_DAY = 86400
_MOST = 10**15 - 1
"""Greatest integer of a structured field (RFC 9651 §3.3.1)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """One limit, and where the caller stands with it."""

    limit: Limit
    state: State
    used: int
    """Downloads, bytes, connections or starts that count now, promises of running downloads included."""
    reset: float | None
    """Seconds until it changes by itself: a calendar period ends; enough leaves a rolling window or the rate; the next
    lease runs out. None if it does not."""

    @property
    def remaining(self) -> int:
        """What is left of it."""
        most = self.limit.burst if self.limit.metric == "rate" else self.limit.value
        return max(most - self.used, 0)


def read(limits: Sequence[Limit], values: Sequence[bytes | int]) -> tuple[Standing, ...]:
    """Standings from what ``reserve.lua`` tells of the limits, three values for each."""
    numbers = map(int, values)
    triples = zip(limits, numbers, numbers, numbers, strict=False)
    return tuple(
        [
            Standing(limit, _STATES[state], used, None if reset == _NEVER else reset / 1e6)
            for limit, state, used, reset in triples
        ]
    )


def fields(standings: Sequence[Standing]) -> dict[str, str]:
    """``RateLimit-Policy`` and ``RateLimit`` of an answer, as the IETF draft has them; none without limits.

    Several groups may share a name of a policy: the partition key tells them apart.
    """
    if not standings:
        return {}
    policies, limits = [], []
    for standing in standings:
        name, quota, partition = _policy(standing.limit)
        policies.append(f"{name}{quota}{partition}")
        reset = "" if standing.reset is None else f";t={math.ceil(standing.reset)}"
        limits.append(f"{name};r={min(standing.remaining, _MOST)}{reset}{partition}")
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(limits)}


def refusal(standings: Sequence[Standing], who: str) -> GatewayError:
    """429 that says which limits refuse, in the words of REGARDS where it has some.

    Retry-After is there as `retry_after` says.
    """
    refused = _refused(standings)
    headers = fields(standings)
    seconds = retry_after(standings)
    if seconds is not None:
        headers["Retry-After"] = str(seconds)
    messages = [_message(standing, who) for standing in refused]
    body = {"messages": messages, "limits": [described(standing) for standing in refused]}
    return GatewayError(
        HTTPStatus.TOO_MANY_REQUESTS, " ".join(messages), code=_code(refused), headers=headers, body=body
    )


def retry_after(standings: Sequence[Standing]) -> int | None:
    """Seconds until all limits that refuse would let the same request pass if nothing else happened.

    None if one of them never would, or if none refuses.
    """
    resets = [standing.reset for standing in _refused(standings)]
    if not resets or None in resets:
        return None
    return max(1, math.ceil(max(reset for reset in resets if reset is not None)))


def described(standing: Standing) -> dict[str, object]:
    """A standing as JSON; ``reset`` in seconds, null for never."""
    limit = standing.limit
    return {
        "name": _name(limit),
        "account": limit.account,
        "metric": limit.metric,
        "period": limit.period,
        "limit": limit.value,
        **({"burst": limit.burst} if limit.metric == "rate" else {}),
        **({"slowRate": limit.slow_rate} if limit.slow_rate is not None else {}),
        "state": standing.state,
        "used": standing.used,
        "remaining": standing.remaining,
        "reset": None if standing.reset is None else math.ceil(standing.reset),
    }


def slowest(standings: Sequence[Standing]) -> tuple[str, int] | None:
    """The account and bytes per second that a download is slowed to, if it is."""
    slowed = [standing.limit for standing in standings if standing.state == "slowed"]
    if not slowed:
        return None
    limit = min(slowed, key=lambda limit: limit.slow_rate or 0)
    assert limit.slow_rate is not None  # noqa: S101 - only such limits slow down
    return limit.account, limit.slow_rate


def _refused(standings: Sequence[Standing]) -> list[Standing]:
    return [standing for standing in standings if standing.state == "refused"]


def _name(limit: Limit) -> str:
    """Like ``user-bytes-day``: no account, which may be an e-mail address."""
    return f"{limit.account.partition(':')[0]}-{limit.metric}-{limit.period}"


@functools.lru_cache(maxsize=4096)
def _policy(limit: Limit) -> tuple[str, str, str]:
    """Its name, parameters and partition key."""
    return f'"{_name(limit)}"', _quota(limit), _partition(limit)


def _quota(limit: Limit) -> str:
    window: Mapping[str, int] = {"day": _DAY, "month": 30 * _DAY}
    quota = f";q={limit.burst if limit.metric == 'rate' else min(limit.value, _MOST)}"
    if limit.period in window:
        quota += f";w={window[limit.period]}"
    elif limit.period.endswith("s"):
        quota += f";w={limit.period[:-1]}"
    unit = _UNITS[limit.metric]
    return quota + ("" if unit == "requests" else f';qu="{unit}"')


def _partition(limit: Limit) -> str:
    """Of which group or role a limit is; nothing for others, whose only one is meant."""
    subject, _, name = limit.account.partition(":")
    if subject not in ("group", "role"):
        return ""
    return f";pk=:{base64.b64encode(name.encode()).decode()}:"


def _message(standing: Standing, who: str) -> str:
    limit, used = standing.limit, standing.used
    exceeded = max(used - limit.value, 0)
    lifetime = " This limit is for a lifetime: it does not reset with time." if limit.period == "total" else ""
    period = "" if limit.period == "total" else f" in {_PERIODS.get(limit.period, limit.period)}"
    shared = "" if limit.account.startswith(("user:", "network:")) else f" shared by {limit.account}"
    if limit.metric == "downloads":
        return f"Download quota of {limit.value}{period}{shared} exceeded (by {exceeded}) for user {who}.{lifetime}"
    if limit.metric == "concurrent":
        return f"Download rate of {limit.value}{shared} exceeded (by {exceeded}) for user {who}."
    if limit.metric == "rate":
        return f"Download starts of {limit.value} in {limit.period}{shared} exceeded for user {who}."
    return (
        f"Download quota of {limit.value} bytes{period}{shared} would be exceeded ({used} bytes used) for user {who}."
        f"{lifetime}"
    )


_PERIODS = {"day": "a day", "month": "a month"}


def _code(refused: Sequence[Standing]) -> str:
    if all(standing.limit.metric in ("concurrent", "rate") for standing in refused):
        return "RateExceeded"
    return "QuotaExceeded"

"""What a download would be charged, told without downloading: pure."""

from __future__ import annotations

from collections.abc import Mapping

from multidict import MultiMapping

from gateway.http.prefer import preferences
from gateway.quotas.standing import described, fields, retry_after
from gateway.quotas.usage import Estimate

PREFERENCE = "quota"
"""Of the field Prefer: HEAD tells what a GET with the same fields would be charged."""
NOTHING = Estimate(0, 0, ())
"""The charge of what does not count, or has no bytes."""
_MOST = 10**15 - 1
"""Greatest integer of a structured field (RFC 9651 §3.3.1)."""


def is_preferred(headers: MultiMapping[str]) -> bool:
    """Whether a request prefers to be told of quota (``Prefer: quota``, RFC 7240)."""
    return preferences(headers.getall("Prefer", [])).get(PREFERENCE) == ""


def body_of(estimate: Estimate, delivery: str) -> dict[str, object]:
    """The answer to a dry run as JSON. ``delivery`` is the way of the bytes: stream, redirect or accel."""
    seconds = retry_after(estimate.standings)
    return {
        "admitted": estimate.admitted,
        "downloads": estimate.downloads,
        "bytes": estimate.octets,
        "delivery": delivery,
        "limits": [described(standing) for standing in estimate.standings],
        **({} if seconds is None else {"retryAfter": seconds}),
    }


def fields_of(estimate: Estimate) -> Mapping[str, str]:
    """The fields of an answer to HEAD that tell the same: structured fields (RFC 9651), a dictionary and a boolean."""
    seconds = retry_after(estimate.standings)
    return {
        "Preference-Applied": PREFERENCE,
        "Vary": "Authorization, Prefer",
        "Quota-Cost": f"downloads={estimate.downloads}, bytes={min(estimate.octets, _MOST)}",
        "Quota-Admitted": f"?{int(estimate.admitted)}",
        **fields(estimate.standings),
        **({} if seconds is None else {"Retry-After": str(seconds)}),
    }

"""From a request's headers and a layout to the answer."""

from __future__ import annotations

import datetime

from multidict import CIMultiDict, MultiMapping

from gateway.archive.layout import Layout
from gateway.http.evaluate import Representation, Verdict, evaluate

MEDIA_TYPE = "application/octet-stream"
"""As REGARDS documents it; the file's name says that it is a ZIP."""


def evaluate_archive(method: str, headers: MultiMapping[str], layout: Layout, now: datetime.datetime) -> Verdict:
    """Decide how to answer a request for the archive, as `gateway.http.evaluate.evaluate` does for a file.

    An archive that is not fixed yet has no validator and no ranges (RFC 9110 §14.3): nobody could resume it with the
    bytes of another answer. Its length is exact nevertheless. No entity-tag that a client may show is its own.

    Args:
        method: in capitals.
        headers: the request's.
        layout: of the archive; as old as it says.
        now: the Date of the answer, with a timezone.
    """
    if layout.is_fixed:
        return evaluate(method, headers, Representation(layout.length, layout.etag, layout.created, MEDIA_TYPE), now)
    only = CIMultiDict(("If-Match", line) for line in headers.getall("If-Match", ()))
    verdict = evaluate(method, only, Representation(layout.length, layout.etag, None, MEDIA_TYPE), now)
    if verdict.status >= 400:
        return verdict
    fields = {name: value for name, value in verdict.headers.items() if name != "ETag"}
    return Verdict(verdict.status, {**fields, "Accept-Ranges": "none"}, verdict.parts)

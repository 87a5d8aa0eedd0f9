"""How a request for a file is going to be answered, and the fields of that answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from http import HTTPStatus
from typing import Literal

from aiohttp import web

from gateway.catalog.model import File
from gateway.delivery.policy import Decision
from gateway.http.digests import digest_fields, wanted_digests
from gateway.http.disposition import content_disposition
from gateway.http.evaluate import UNKNOWN_TYPE, Representation, Verdict
from gateway.licence_links import licence_field
from gateway.sources import Candidate
from gateway.staging.model import FileState, State
from gateway.staging.waiting import state_fields
from gateway.storage import Stat, can_sign

SAFETY_FIELDS = {
    "Cache-Control": "private, no-cache",
    "Vary": "Authorization",
    # A browser must neither guess another type nor run what an archive holds.
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Referrer-Policy": "no-referrer",
}
"""Fields of every answer that is about a file, 304 included."""

PUBLIC_CACHING = "public, max-age=300"
"""Cache-Control of quicklooks and the like in datasets that everyone sees. A right withdrawn works after that time."""


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """How a request is going to be answered, before anything is spent."""

    file: File
    candidates: Sequence[Candidate]
    """The copies that can give the answer, the best first."""
    expected: Stat
    """What the best copy must be."""
    verdict: Verdict
    decision: Decision

    @property
    def charged(self) -> int:
        """Bytes that are charged if all goes well: what is handed over is handed over whole."""
        return self.verdict.representation_bytes if self.decision.way == "stream" else self.expected.size


def representation(file: File, expected: Stat) -> Representation:
    """The entity-tag is the checksum where it is known, so that it is the same for every copy and for ever."""
    tag = file.checksum.lower() if file.checksum else expected.version
    return Representation(expected.size, f'"{tag}"', expected.modified, file.mime_type or UNKNOWN_TYPE)


def fields_of(request: web.Request, plan: Plan) -> dict[str, str]:
    """The fields of the answer, but for those of quota."""
    file, verdict, location = plan.file, plan.verdict, plan.candidates[0].location
    kind: Literal["inline", "attachment"] = "inline" if _flag(request, "isContentInline") else "attachment"
    digests = wanted_digests(digest_fields(file.checksum_algorithm, file.checksum), request.headers)
    fields = {**SAFETY_FIELDS, **digests, **verdict.headers}
    if file.is_public:
        fields["Cache-Control"] = PUBLIC_CACHING
    copy = plan.candidates[0].copy
    if copy.restored_until is not None and not plan.candidates[0].is_online:
        fields |= state_fields(State(file.file_id, FileState.RESTORED, until=copy.restored_until))
    if file.licence is not None:
        fields |= licence_field(file.licence)
    if verdict.status != HTTPStatus.NOT_MODIFIED:
        fields["Content-Disposition"] = content_disposition(file.name, kind)
    answers = request.method == "GET" and verdict.parts
    if answers and location.delivery == "auto" and (can_sign(location.storage) or location.offload is not None):
        fields["Server-Timing"] = f'delivery;desc="{plan.decision.way}: {plan.decision.reason}"'
    return fields


def is_dry_run(request: web.Request) -> bool:
    """Whether it is only asked what the download would be charged (``?dryRun=true``)."""
    return request.method == "GET" and _flag(request, "dryRun")


def _flag(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() == "true"

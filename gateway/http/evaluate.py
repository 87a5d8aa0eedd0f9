"""From a request's headers and a representation to the answer: which status, which fields, which bytes."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import re
from collections.abc import Mapping
from http import HTTPStatus

from multidict import MultiMapping

from gateway.http.conditional import EntityTag, Outcome, check_preconditions, parse_entity_tag, range_holds
from gateway.http.dates import format_http_date, last_modified
from gateway.http.multipart import Literal, Part, Span, byteranges, content_range
from gateway.http.ranges import parse_range, resolve

__all__ = ["Literal", "Part", "Representation", "Span", "Verdict", "evaluate"]

UNKNOWN_TYPE = "application/octet-stream"
"""The Content-Type of a representation whose own cannot stand in a header."""

_NAME = "[0-9A-Za-z!#$%&'*+.^_`|~-]+"
_MEDIA_TYPE = re.compile(f"{_NAME}/{_NAME}(?:[ \t]*;[ -~]*)?")


@dataclasses.dataclass(frozen=True, slots=True)
class Representation:
    """The bytes that an unconditional GET would send, as far as HTTP must know them.

    Raises:
        ValueError: a member is not of the form said here.
    """

    length: int
    """Bytes."""
    etag: str
    """With its quotes, ``"…"`` or ``W/"…"``, in ASCII. A strong one must change whenever a byte does."""
    last_modified: datetime.datetime | None
    """When the bytes last changed, with a timezone; None if unknown."""
    content_type: str
    """As the catalogue has it; ``application/octet-stream`` is sent where it is no media type."""
    entity_tag: EntityTag = dataclasses.field(init=False, repr=False, compare=False)
    """``etag``, taken apart."""

    def __post_init__(self) -> None:
        if self.length < 0:
            raise ValueError(f"the length of a representation cannot be {self.length}")
        tag = parse_entity_tag(self.etag)
        if tag is None or not self.etag.isascii() or self.etag != self.etag.strip():
            raise ValueError(f"not an entity-tag in ASCII: {self.etag!r}")
        object.__setattr__(self, "entity_tag", tag)
        if self.last_modified is not None and self.last_modified.tzinfo is None:
            raise ValueError("last_modified has no timezone")


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a GET or HEAD."""

    status: HTTPStatus
    """200, 206, 304, 412 or 416."""
    headers: Mapping[str, str]
    """The fields that follow from the representation. The caller adds the others (Cache-Control and Vary on a 304,
    too), and for 412 and 416 the body with its Content-Type and Content-Length."""
    parts: tuple[Part, ...]
    """What to write, in order; empty for HEAD, 304, 412, 416 and an empty representation."""

    @property
    def length(self) -> int:
        """Bytes to write: the Content-Length of a GET's 200 or 206."""
        return sum(part.length for part in self.parts)

    @property
    def representation_bytes(self) -> int:
        """Bytes to write that are of the representation, without the framing of multipart/byteranges."""
        return sum(part.length for part in self.parts if isinstance(part, Span))


def evaluate(
    method: str, headers: MultiMapping[str], representation: Representation, now: datetime.datetime
) -> Verdict:
    """Decide how to answer a request for ``representation``.

    GET and HEAD honour the preconditions (RFC 9110 §13.2.2); GET alone honours Range (§14.2), so that HEAD answers as
    a GET without Range would. Any other method is answered as an unconditional GET. No value of a header raises.

    Args:
        method: in capitals.
        headers: the request's; names without regard to case, one entry per field line.
        representation: what is there now.
        now: the Date of the answer, with a timezone.
    """
    etag = representation.entity_tag
    modified = representation.last_modified and last_modified(representation.last_modified, now)
    validators = {"ETag": representation.etag}
    if modified:
        validators["Last-Modified"] = format_http_date(modified)

    if method in ("GET", "HEAD"):
        outcome = check_preconditions(headers, etag, modified, now)
        if outcome is Outcome.FAILED:
            return Verdict(HTTPStatus.PRECONDITION_FAILED, {}, ())
        if outcome is Outcome.NOT_MODIFIED:
            return Verdict(HTTPStatus.NOT_MODIFIED, validators, ())
    spans = None
    if method == "GET" and range_holds(headers, etag, modified, now):
        specs = parse_range(headers.getall("Range", ()))
        spans = resolve(specs, representation.length) if specs else None

    if spans == ():
        unsatisfied = {"Content-Range": f"bytes */{representation.length}"}
        return Verdict(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, unsatisfied, ())
    if spans:
        return _partial(representation, validators, tuple(Span(*span) for span in spans))
    return _whole(representation, validators, with_body=method != "HEAD")


def _whole(representation: Representation, validators: Mapping[str, str], *, with_body: bool) -> Verdict:
    fields = {
        **validators,
        "Accept-Ranges": "bytes",
        "Content-Type": _content_type(representation),
        "Content-Length": str(representation.length),
    }
    parts = (Span(0, representation.length),) if with_body and representation.length else ()
    return Verdict(HTTPStatus.OK, fields, parts)


def _partial(representation: Representation, validators: Mapping[str, str], spans: tuple[Span, ...]) -> Verdict:
    length, content_type = representation.length, _content_type(representation)
    fields = {**validators, "Accept-Ranges": "bytes"}
    parts: tuple[Part, ...] = spans
    if len(spans) == 1:
        fields["Content-Type"] = content_type
        fields["Content-Range"] = content_range(spans[0], length)
    else:
        boundary = _boundary(representation)
        fields["Content-Type"] = f"multipart/byteranges; boundary={boundary}"
        parts = byteranges(spans, length, content_type, boundary)
    fields["Content-Length"] = str(sum(part.length for part in parts))
    return Verdict(HTTPStatus.PARTIAL_CONTENT, fields, parts)


def _boundary(representation: Representation) -> str:
    """Made from the entity-tag: the same request gets the same bytes, and chance puts it in no file."""
    return hashlib.sha256(b"multipart/byteranges " + representation.etag.encode("ascii")).hexdigest()[:32]


def _content_type(representation: Representation) -> str:
    return representation.content_type if _MEDIA_TYPE.fullmatch(representation.content_type) else UNKNOWN_TYPE

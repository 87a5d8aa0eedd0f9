"""What an answer says, and whether it makes sense by itself (RFC 9110), whatever was asked."""

from __future__ import annotations

import dataclasses
import email.utils
import re

from tests.conformance.http1 import Response

Spans = tuple[tuple[int, int], ...]
"""First and last position of each range, both inclusive, in the order of the answer."""

CONTENT_RANGE = re.compile("bytes (0|[1-9][0-9]*)-(0|[1-9][0-9]*)/(0|[1-9][0-9]*)")
BOUNDARY = re.compile(r"multipart/byteranges; boundary=([0-9A-Za-z'()+_,./:=?-]{1,70})")
ENTITY_TAG = re.compile('(?:W/)?"[!#-~]*"')


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was decided."""

    status: int
    spans: Spans = ()
    """Of a 206 to GET."""


@dataclasses.dataclass(frozen=True)
class Plain:
    """The answer to a GET without conditions, which all others are measured by."""

    response: Response
    data: bytes
    """The file as it lies on the disk."""

    def __post_init__(self) -> None:
        assert self.response.status == 200
        assert self.response.body == self.data
        assert ENTITY_TAG.fullmatch(self.response.get("ETag") or "")
        assert self.response.get("Last-Modified")
        assert self.response.get("Accept-Ranges") == "bytes"  # §14.3


def read(method: str, response: Response, plain: Plain) -> Outcome:
    """Read an answer and check that it is sound.

    Raises:
        AssertionError: it is not.
    """
    assert response.get("Date"), "§6.6.1: no Date"
    if method == "HEAD":
        assert response.body == b"", "§9.3.2: HEAD has no body"
    if response.status in (200, 206, 304):
        _same_validators(response, plain.response)
    match response.status:
        case 200:
            _whole(method, response, plain)
        case 206 if method == "GET":
            return Outcome(206, _parts(response, plain))
        case 206:
            _partial_head(response, plain)
        case 304:
            assert response.body == b""
            assert response.get("Content-Range") is None
            assert response.get("Content-Length") in (None, str(len(plain.data))), "§8.6"
        case 416:
            assert response.get("Content-Range") == f"bytes */{len(plain.data)}", "§14.4"
        case _:
            assert response.get("Content-Range") is None, "§14.4: Content-Range means nothing here"
    return Outcome(response.status)


def _same_validators(response: Response, plain: Response) -> None:
    """§15.3.7 and §15.4.5: what the 200 would have had."""
    for name in ("ETag", "Cache-Control", "Vary", "Expires", "Content-Location"):
        assert response.get(name) == plain.get(name), name
    modified = response.get("Last-Modified")
    assert modified == plain.get("Last-Modified")
    changed, answered = (email.utils.parsedate_to_datetime(str(text)) for text in (modified, response.get("Date")))
    assert changed <= answered, "§8.8.2.1: Last-Modified lies after Date"


def _whole(method: str, response: Response, plain: Plain) -> None:
    assert response.get("Content-Range") is None, "§14.4"
    for name in ("Content-Length", "Content-Type", "Accept-Ranges"):
        assert response.get(name) == plain.response.get(name), name
    if method == "GET":
        assert response.body == plain.data, "not the bytes of the file"


def _partial_head(response: Response, plain: Plain) -> None:
    """A HEAD that honours Range: what a GET with it would say (§9.3.2)."""
    if content_range := response.get("Content-Range"):
        first, last = _positions(content_range, len(plain.data))
        assert response.get("Content-Length") == str(last - first + 1)


def _parts(response: Response, plain: Plain) -> Spans:
    content_type = response.get("Content-Type") or ""
    whole_type = plain.response.get("Content-Type")
    found = BOUNDARY.fullmatch(content_type)
    if found is None:
        assert content_type == whole_type
        return (_checked(response.get("Content-Range"), response.body, plain.data),)
    assert response.get("Content-Range") is None, "§15.3.7.2: Content-Range beside multipart"
    spans = []
    for header, body in split_multipart(response.body, found[1].encode("ascii")):
        assert set(header) <= {"content-type", "content-range"}, header
        assert header.get("content-type") == whole_type, "§15.3.7.2"
        spans.append(_checked(header.get("content-range"), body, plain.data))
    assert len(spans) > 1, "§15.3.7.2: multipart for a single range"
    return tuple(spans)


def _checked(content_range: str | None, body: bytes, data: bytes) -> tuple[int, int]:
    first, last = _positions(content_range or "", len(data))
    assert body == data[first : last + 1], f"not the bytes {first}-{last} of the file"
    return first, last


def _positions(content_range: str, length: int) -> tuple[int, int]:
    found = CONTENT_RANGE.fullmatch(content_range)
    assert found, f"§14.4: {content_range!r}"
    first, last, complete = map(int, found.groups())
    assert first <= last < complete == length, f"§14.4: {content_range!r} of {length} bytes"
    return first, last


def split_multipart(body: bytes, boundary: bytes) -> list[tuple[dict[str, str], bytes]]:
    """Take a multipart body apart (RFC 2046 §5.1.1): fields by name in small letters, and bytes, of each part.

    Only the empty line that may stand before the first boundary is let pass: no preamble, no epilogue, no padding.
    """
    delimiter = b"\r\n--" + boundary
    text = body if body.startswith(delimiter) else b"\r\n" + body
    before, *rest = text.split(delimiter)
    assert before == b"", f"a preamble: {before[:100]!r}"
    *inner, end = rest
    assert end == b"--\r\n", f"not closed: {end[:100]!r}"
    parts = []
    for part in inner:
        assert part.startswith(b"\r\n"), f"after a boundary: {part[:100]!r}"
        header, blank, content = part[2:].partition(b"\r\n\r\n")
        assert blank, f"a part without a header: {part[:100]!r}"
        fields: dict[str, str] = {}
        for line in header.decode("ascii").split("\r\n"):
            name, colon, value = line.partition(": ")
            assert colon, line
            assert name.lower() not in fields, f"{name} twice"
            fields[name.lower()] = value
        parts.append((fields, content))
    return parts

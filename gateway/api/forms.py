"""Parts of forms that carry files: multipart/form-data (RFC 7578).

A form is short and there as a whole: what is in it is found in one pass, however it is nested or broken.
"""

from __future__ import annotations

from email.message import Message

_MOST_BOUNDARY = 70
"""Characters (RFC 2046 section 5.1.1)."""
_MOST_FIELDS = 4096
"""Bytes of the fields of a part; one with more is none of ours."""


def part_of(content_type: str, body: bytes, name: str) -> bytes | None:
    """The content of the first part called ``name``, as it was sent; None if there is none."""
    boundary = _parameter("Content-Type", content_type, "boundary")
    if boundary is None or not 0 < len(boundary) <= _MOST_BOUNDARY or not boundary.isascii():
        return None
    # A delimiter begins a line; what stands before the first one is no part, and what the last one begins neither.
    _, *parts = (b"\r\n" + body).split(f"\r\n--{boundary}".encode())
    for part in parts[:-1]:
        if part.startswith(b"--"):
            return None
        # After the delimiter the rest of its line, then fields, an empty line, content.
        start = part.find(b"\r\n") + 2
        end = part.find(b"\r\n\r\n", start, start + _MOST_FIELDS)
        if start > 1 and end >= 0 and _is_called(name, part[start:end].decode("utf-8", "replace")):
            return part[end + 4 :]
    return None


def _is_called(name: str, fields: str) -> bool:
    for field in fields.split("\r\n"):
        called, _, value = field.partition(":")
        if called.strip().lower() == "content-disposition":
            return _parameter("Content-Disposition", value.strip(), "name") == name
    return False


def _parameter(field: str, value: str, name: str) -> str | None:
    message = Message()
    message[field] = value
    found = message.get_param(name, header=field)
    return found if isinstance(found, str) else None

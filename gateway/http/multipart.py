"""Bodies as a list of what to write, and the framing of multipart/byteranges (RFC 9110 §14.6, RFC 2046 §5.1)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, slots=True)
class Literal:
    """Bytes to write as they are."""

    data: bytes

    @property
    def length(self) -> int:
        """Bytes."""
        return len(self.data)


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """The bytes of the representation from ``start`` up to, not including, ``stop``."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """Bytes."""
        return self.stop - self.start


Part = Literal | Span


def content_range(span: Span, length: int) -> str:
    """The Content-Range of a span that is not empty, in a representation of ``length`` bytes (RFC 9110 §14.4)."""
    return f"bytes {span.start}-{span.stop - 1}/{length}"


def byteranges(spans: Sequence[Span], length: int, content_type: str, boundary: str) -> tuple[Part, ...]:
    """The body of a multipart/byteranges answer: the spans in their order, each behind its own part header."""
    parts: list[Part] = []
    before = ""
    for span in spans:
        header = (
            f"{before}--{boundary}\r\n"
            f"Content-Type: {content_type}\r\n"
            f"Content-Range: {content_range(span, length)}\r\n\r\n"
        )
        parts += (Literal(header.encode("ascii")), span)
        before = "\r\n"
    parts.append(Literal(f"\r\n--{boundary}--\r\n".encode("ascii")))
    return tuple(parts)

"""Requests as they were received, and the answers to them."""

from __future__ import annotations

import dataclasses
from typing import Protocol
from xml.sax.saxutils import escape

Fields = tuple[tuple[str, str], ...]
"""A header, line by line."""


class Content(Protocol):
    """The bytes of an object, wherever they come from."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def read(self, offset: int, count: int) -> bytes:
        """The bytes from ``offset`` on: ``count``, or fewer at the end."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that are at hand."""

    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)

    def read(self, offset: int, count: int) -> bytes:
        return self.content[offset : offset + count]


@dataclasses.dataclass(slots=True)
class Request:
    """A request as it came over the wire, and what became of it."""

    method: str
    target: str
    """Not decoded, not normalised."""
    fields: Fields
    body: bytes
    bucket: str = ""
    key: str = ""
    """Decoded; empty for the bucket itself."""
    status: int = 0
    """Of the answer, once its head was written."""
    sent: int = 0
    """Bytes of the body that were given to the kernel, or wait for that."""

    @property
    def path(self) -> str:
        """The target up to its question mark."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> list[tuple[str, str]]:
        """Names and values, not decoded."""
        text = self.target.partition("?")[2]
        return [(name, value) for name, _, value in (pair.partition("=") for pair in text.split("&") if pair)]

    def field(self, name: str) -> str | None:
        """A field of the header; the values of several lines with a comma between them."""
        values = [value for found, value in self.fields if found.lower() == name.lower()]
        return ",".join(values) if values else None


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """An answer: the head, and the part of a content that is the body."""

    status: int
    fields: Fields = ()
    content: Content = Memory(b"")
    start: int = 0
    stop: int = 0
    """One after the last byte of the body."""

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return self.stop - self.start

    def with_fields(self, **fields: str | None) -> Reply:
        """The same with other values of these fields, or without those that are None; with ``_`` for ``-``."""
        changed = {name.replace("_", "-").lower(): value for name, value in fields.items()}
        kept = tuple((name, value) for name, value in self.fields if name.lower() not in changed)
        added = tuple((name.replace("_", "-"), value) for name, value in fields.items() if value is not None)
        return dataclasses.replace(self, fields=kept + added)


class S3Error(Exception):
    """What S3 answers to a request that it does not carry out. Keyword arguments are further elements of the XML."""

    def __init__(self, status: int, code: str, message: str, **more: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.more = more

    def reply(self) -> Reply:
        """The answer."""
        elements = {"Code": self.code, "Message": self.message, **self.more}
        return xml(self.status, "Error", "".join(f"<{name}>{escape(text)}</{name}>" for name, text in elements.items()))


def xml(status: int, root: str, inner: str) -> Reply:
    """An answer with a document."""
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}>{inner}</{root}>'.encode()
    return Reply(status, (("Content-Type", "application/xml"),), Memory(text), 0, len(text))

"""HTTP/1.1 messages as bytes: what a client asks, and a strict reading of what it is answered (RFC 9112).

Strict, because the bytes that follow a head are passed on unseen: where a message ends must never be a guess.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Mapping

from multidict import CIMultiDict, CIMultiDictProxy

MAX_HEAD_BYTES = 64 * 1024
"""Most bytes of a head, interim answers before it included."""
_MAX_LINE_BYTES = 4096
"""Most bytes of a line between the chunks of a body."""
USER_AGENT = "download-gateway"

_URL = re.compile(
    r"(?P<scheme>https?)://(?:[^/?#]*(?P<userinfo>@))?(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{0,5}))?"
    r"(?P<path>/[\x21-\x22\x24-\x3e\x40-\x7e]*)?(?P<query>\?[\x21-\x22\x24-\x7e]*)?(?:#.*)?",
    re.IGNORECASE | re.DOTALL,
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_STATUS_LINE = re.compile(r"HTTP/1\.(?P<minor>[0-9]) (?P<status>[1-9][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[\t ]*(?:;.*)?", re.DOTALL)

DEFAULT_PORTS = {"http": 80, "https": 443}

Origin = tuple[str, str, int]
"""Scheme, host and port: what a connection can be used for."""


class MessageError(Exception):
    """What was received is no HTTP message, or one whose end cannot be known for sure."""


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads."""

    scheme: str
    """``http`` or ``https``."""
    host: str
    """In lower case; an IPv6 address has no brackets."""
    port: int
    authority: str
    """The field Host: host and port as they stand in the URL."""
    path: str
    """As it stands in the URL, from the first slash on; ``/`` if there is none."""
    query: str
    """Likewise, from the question mark on; empty if there is none."""

    @property
    def origin(self) -> Origin:
        """What a connection must lead to."""
        return self.scheme, self.host, self.port

    @property
    def shown(self) -> str:
        """The URL as it may be shown to operators: the query may hold a signature."""
        return f"{self.scheme}://{self.authority}{self.path}"


def parse_url(url: str) -> Target:
    """Take an ``http`` or ``https`` URL apart, without decoding or normalising its path and query.

    Raises:
        ValueError: it is none, names a user, or has characters that a URL cannot have (RFC 3986) or that a host here
            cannot have: a name with other letters than ASCII must be given in its IDNA form.
    """
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError("is no http or https URL in the characters that a URL may have")
    if found["userinfo"]:
        raise ValueError("has a user name or password in it")
    host = found["host"].lower()
    if host.startswith("["):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    scheme = found["scheme"].lower()
    port = int(found["port"] or DEFAULT_PORTS[scheme])
    if not 0 < port < 65536:
        raise ValueError(f"has the port {port}, which does not exist")
    authority = found["host"] + (f":{found['port']}" if found["port"] else "")
    return Target(scheme, host, port, authority, found["path"] or "/", found["query"] or "")


def request_head(method: str, target: Target, headers: Mapping[str, str]) -> bytes:
    """The request, which has no body. Host, User-Agent and Accept-Encoding (none) are added unless given.

    Raises:
        ValueError: a field name or value cannot be sent.
    """
    fields = CIMultiDict({"Host": target.authority, "User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
    for name, value in headers.items():
        fields[name] = value
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"the field {name!r} has characters that cannot be sent")
    lines = [f"{method} {target.path}{target.query} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@dataclasses.dataclass(frozen=True, slots=True)
class ResponseHead:
    """The head of an answer."""

    status: int
    headers: CIMultiDictProxy[str]
    length: int | None
    """Bytes of the body that follows; None if only its end will tell."""
    chunked: bool
    persistent: bool
    """Whether another request may follow on the connection (RFC 9112 §9.3)."""


def parse_response_head(head: bytes, method: str) -> ResponseHead:
    """Read the head of the answer to ``method``, up to but without the empty line that ends it.

    Raises:
        MessageError: it is malformed, or leaves open where the body ends.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    found = _STATUS_LINE.fullmatch(first)
    if found is None:
        raise MessageError("the status line of the answer is malformed")
    headers = CIMultiDict[str]()
    for line in lines:
        name, colon, value = line.partition(":")
        # A folded line starts with a space, which no name has.
        if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise MessageError("a field of the answer is malformed")
        headers.add(name, value.strip(" \t"))
    if found["status"] == "101":
        raise MessageError("the server goes on in another protocol")
    status, is_http_1_1 = int(found["status"]), found["minor"] != "0"
    declared = declared_length(headers)
    chunked = _is_chunked(headers, allowed=is_http_1_1 and declared is None)
    length = 0 if method == "HEAD" or status < 200 or status in (204, 304) else declared
    options = {option.strip().lower() for option in ",".join(headers.getall("Connection", ())).split(",")}
    persistent = is_http_1_1 and "close" not in options and (length is not None or chunked)
    return ResponseHead(status, CIMultiDictProxy(headers), length, chunked and length is None, persistent)


def declared_length(headers: Mapping[str, str]) -> int | None:
    """What Content-Length says; None if it is absent.

    Raises:
        MessageError: it is no number, or several that differ (RFC 9112 §6.3).
    """
    values = {
        part.strip(" \t")
        for name, value in headers.items()
        if name.lower() == "content-length"
        for part in value.split(",")
    }
    if not values:
        return None
    value = values.pop()
    if values or not _LENGTH.fullmatch(value):
        raise MessageError("the Content-Length of the answer is malformed")
    return int(value)


def _is_chunked(headers: CIMultiDict[str], *, allowed: bool) -> bool:
    codings = headers.getall("Transfer-Encoding", [])
    if not codings:
        return False
    if not allowed or len(codings) > 1 or codings[0].lower() != "chunked":
        raise MessageError("the Transfer-Encoding of the answer is not known, or has no place there")
    return True


class Chunks:
    """Takes the chunked coding off a body (RFC 9112 §7.1), piece by piece; trailers are dropped."""

    def __init__(self) -> None:
        self._raw = bytearray()
        self._left = 0  # Bytes of the current chunk that are still to come.
        self._expected = "size"
        self.done = False
        """The whole body was there."""
        self.surplus = False
        """Bytes came after its end."""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the coded body; returns what they hold of the body.

        Raises:
            MessageError: they are not in that coding.
        """
        self._raw += data
        body = bytearray()
        while not self.done:
            if self._expected == "data" and self._left:
                piece = self._raw[: self._left]
                if not piece:
                    break
                del self._raw[: len(piece)]
                self._left -= len(piece)
                body += piece
            else:
                line = self._line()
                if line is None:
                    break
                self._next(line)
        self.surplus = self.done and bool(self._raw)
        return bytes(body)

    def _line(self) -> bytes | None:
        end = self._raw.find(b"\r\n", 0, _MAX_LINE_BYTES)
        if end < 0:
            if len(self._raw) >= _MAX_LINE_BYTES:
                raise MessageError("a chunk of the answer is malformed")
            return None
        line = bytes(self._raw[:end])
        del self._raw[: end + 2]
        return line

    def _next(self, line: bytes) -> None:
        if self._expected == "size":
            found = _CHUNK_SIZE.fullmatch(line)
            if found is None:
                raise MessageError("a chunk of the answer is malformed")
            self._left = int(found[1], 16)
            self._expected = "data" if self._left else "trailer"
        elif self._expected == "data":
            if line:
                raise MessageError("a chunk of the answer is longer than it says")
            self._expected = "size"
        else:
            self.done = not line

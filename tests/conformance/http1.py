"""HTTP/1.1 over a bare socket, read to the letter of RFC 9112: nothing is repaired and nothing is hidden."""

from __future__ import annotations

import dataclasses
import re
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Self

STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [\t -~]*")
FIELD_LINE = re.compile(rb"([0-9A-Za-z!#$%&'*+.^_`|~-]+): ([!-~](?:[\t -~]*[!-~])?)?")
MAX_HEADER = 65536

Lines = Sequence[tuple[str, str]]
"""Field lines: name and value."""


class ProtocolError(Exception):
    """The server sent what is no answer to the request by RFC 9112, or closed the connection in it."""


class ClosedError(ProtocolError):
    """The server closed the connection before it answered anything."""


@dataclasses.dataclass(frozen=True)
class Response:
    """An answer as it came."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for known, value in self.fields if known.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The value of a field that may be there once at most."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} is given {len(values)} times: {values}"
        return values[0] if values else None


def serialize(method: str, target: str, lines: Lines) -> bytes:
    fields = "".join(f"{name}: {value}\r\n" for name, value in lines)
    return f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode("utf-8", "surrogateescape")


class Connection:
    """One connection that is kept for many requests."""

    def __init__(self, address: tuple[str, int], timeout: float = 10) -> None:
        self._socket = socket.create_connection(address, timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()
        self.is_closing = False
        """Whether the server said that it closes after its last answer."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    @property
    def surplus(self) -> bytes:
        """What came beyond the answers that were read."""
        return bytes(self._received)

    def exchange(self, method: str, target: str, lines: Lines = ()) -> Response:
        self.send(serialize(method, target, lines))
        return self.receive(method)

    def send(self, data: bytes) -> None:
        """Send requests.

        Raises:
            ClosedError: see there.
        """
        try:
            self._socket.sendall(data)
        except ConnectionError as error:
            raise ClosedError("the connection was closed before the request") from error

    def peek(self) -> None:
        """Wait until something of an answer is there."""
        self._fill("nothing")

    def receive(self, method: str) -> Response:
        """Read the answer to a request with ``method``.

        Raises:
            ProtocolError: see there.
        """
        status_line, *lines = self._header().split(b"\r\n")
        found = STATUS_LINE.fullmatch(status_line)
        if found is None:
            raise ProtocolError(f"not a status line: {status_line[:200]!r}")
        fields = tuple(_field(line) for line in lines)
        head = Response(int(found[1]), fields, b"")
        self.is_closing = "close" in (head.get("Connection") or "").lower()
        length = _body_length(method, head)
        while len(self._received) < length:
            self._fill(f"{len(self._received)} of {length} bytes of the body")
        body = bytes(self._received[:length])
        del self._received[:length]
        return dataclasses.replace(head, body=body)

    def _header(self) -> bytes:
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            if len(self._received) > MAX_HEADER:
                raise ProtocolError(f"a header without end: {bytes(self._received[:200])!r}")
            try:
                self._fill(f"{len(self._received)} bytes of a header")
            except ProtocolError as error:
                raise error if self._received else ClosedError("the connection was closed without an answer") from error
        header = bytes(self._received[:end])
        del self._received[: end + 4]
        return header

    def _fill(self, after: str) -> None:
        try:
            piece = self._socket.recv(256 * 1024)
        except ConnectionResetError:
            piece = b""
        if not piece:
            raise ProtocolError(f"the connection was closed after {after}")
        self._received += piece


def _field(line: bytes) -> tuple[str, str]:
    found = FIELD_LINE.fullmatch(line)
    if found is None:
        raise ProtocolError(f"not a field line: {line[:200]!r}")
    return found[1].decode("ascii"), (found[2] or b"").decode("ascii")


def _body_length(method: str, head: Response) -> int:
    """RFC 9112 §6.3; all servers here know the length of all they send."""
    if head.get("Transfer-Encoding") is not None:
        raise ProtocolError("Transfer-Encoding, though the length is known")
    if method == "HEAD" or head.status in (204, 304):
        return 0
    length = head.get("Content-Length")
    if length is None or not re.fullmatch("[0-9]{1,15}", length):
        raise ProtocolError(f"the length of the body is {length!r}")
    return int(length)

"""An HTTP/1.1 client for GET and HEAD that gives bytes just as they come from the server.

URLs are sent byte for byte, nothing is decoded, no redirect is followed, no proxy asked, no cookie kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from gateway.errors import ConfigurationError
from gateway.storage import CopyUnavailableError, Descriptor
from storage_plugins.http.addresses import IPAddress
from storage_plugins.http.connection import Connection, Dialer, PlainConnection
from storage_plugins.http.idle import IdleConnections
from storage_plugins.http.message import (
    MAX_HEAD_BYTES,
    Chunks,
    MessageError,
    ResponseHead,
    Target,
    parse_response_head,
    parse_url,
    request_head,
)

PIECE_BYTES = 256 * 1024
"""Most bytes that one read gives."""
_FIRST_BYTES = 64 * 1024
"""Most bytes that are received at once as long as the head is not complete: a small file comes along with it."""


class _NoAnswerError(Exception):
    """The connection ended before a byte of the answer came."""

    def __str__(self) -> str:
        return "the server closed the connection instead of an answer"


class HttpAnswer:
    """The answer to a request: its head, and its body on its way. Whoever has it closes it."""

    def __init__(
        self, head: ResponseHead, rest: bytes, connection: Connection, release: Callable[[Connection], None], shown: str
    ) -> None:
        self.status = head.status
        self.headers = head.headers
        self._persistent = head.persistent
        self._left = head.length  # Bytes of the body that are still to be given; None: until it ends.
        self._chunks = Chunks() if head.chunked else None
        self._rest = rest  # What came along with the head.
        self._connection: Connection | None = connection
        self._release = release
        self._shared: Descriptor | None = None
        self._shown = shown
        self._broken = False

    async def read(self) -> bytes:
        """The next piece of the body, up to 256 KiB, without its transfer coding; empty at its end.

        A read that is cancelled leaves nothing to do but to close.

        Raises:
            CopyUnavailableError: the body ended early, the connection broke, or a read was cancelled before.
        """
        if self._broken or self._connection is None:
            raise CopyUnavailableError(f"{self._shown}: the answer cannot be read any further")
        if self._left == 0:
            return b""
        self._broken = True
        with _failures(self._shown):
            piece = await self._next_piece(self._connection)
        self._broken = False
        return piece

    @property
    def is_on_socket(self) -> bool:
        """Whether the body comes from a socket just as it is, and its length is known: see `socket`."""
        return isinstance(self._connection, PlainConnection) and self._left is not None

    def socket(self) -> Descriptor:
        """See `gateway.storage.OnSocket.socket`. Whoever has the loop watch it ends that before `close`."""
        if self._shared is None:
            if not isinstance(self._connection, PlainConnection) or self._rest or self._left is None:
                raise RuntimeError("the next bytes do not come from a socket")
            self._shared = self._connection.share()
        return self._shared

    def waits_on(self) -> Descriptor:
        """See `gateway.storage.AtOnce.waits_on`. Whoever has the loop watch it ends that before `close`."""
        if self._shared is None:
            if self._connection is None:
                raise RuntimeError("the answer is closed")
            self._shared = self._connection.share()
        return self._shared

    def read_at_once(self) -> bytes:
        """The next piece of a body of known length, as far as it has come; empty when nothing has.

        Raises:
            CopyUnavailableError: as `read`.
        """
        if self._broken or self._connection is None or self._left is None:
            raise CopyUnavailableError(f"{self._shown}: the answer cannot be read any further")
        most = min(PIECE_BYTES, self._left)
        if self._rest:
            piece, self._rest = self._rest[:most], self._rest[most:]
        elif most:
            self._broken = True
            with _failures(self._shown):
                received = self._connection.receive_at_once(most)
                if received == b"":
                    raise MessageError(f"the answer ended {self._left} bytes early")
            self._broken = False
            piece = received or b""
        else:
            return b""
        self._left -= len(piece)
        return piece

    def took(self, count: int) -> None:
        """See `gateway.storage.OnSocket.took`."""
        if self._left is None or not 0 <= count <= self._left:
            self._broken = True
            raise ValueError(f"{count} bytes were taken, {self._left} are left")
        self._left -= count

    def close(self) -> None:
        """Let go at once. The connection is used again if the body was taken to its end, and closed otherwise."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._shared is not None:
            self._shared.close()
        if self._left == 0 and self._persistent and not self._rest and not self._broken:
            self._release(connection)
            return
        if self._shared is not None and isinstance(connection, PlainConnection):
            connection.interrupt()
        connection.close()

    async def _next_piece(self, connection: Connection) -> bytes:
        if self._chunks is not None:
            return await self._next_chunk(connection, self._chunks)
        most = PIECE_BYTES if self._left is None else min(PIECE_BYTES, self._left)
        if self._rest:
            piece, self._rest = self._rest[:most], self._rest[most:]
        else:
            piece = await connection.receive(most)
        if self._left is not None:
            if not piece:
                raise MessageError(f"the answer ended {self._left} bytes early")
            self._left -= len(piece)
        elif not piece:
            self._left = 0
        return piece

    async def _next_chunk(self, connection: Connection, chunks: Chunks) -> bytes:
        piece = b""
        while not piece and not chunks.done:
            data, self._rest = self._rest or await connection.receive(PIECE_BYTES), b""
            if not data:
                raise MessageError("the answer ended within its chunks")
            piece = chunks.feed(data)
        if chunks.done:
            self._persistent = self._persistent and not chunks.surplus
        if not piece:
            self._left = 0
        return piece


class HttpClient:
    """Asks servers over connections that it keeps for the next request.

    A connection that was kept and turns out to be closed is replaced once, before a byte of the answer has come.
    """

    def __init__(
        self,
        *,
        connect_timeout: float = 5,
        header_timeout: float = 30,
        max_idle: int = 32,
        idle_seconds: float = 15,
        permits: Callable[[IPAddress], bool] | None = None,
        ca_file: Path | None = None,
    ) -> None:
        """Nothing is opened before the first request.

        Args:
            connect_timeout: seconds for the look-up of a name, the connection and the TLS handshake together.
            header_timeout: seconds from the request to the end of the head of its answer.
            max_idle: most connections that are kept for later requests.
            idle_seconds: how long they are kept.
            permits: which addresses may be connected to; asked about the very address. None: all.
            ca_file: certificates (PEM) that servers are trusted by, instead of those of the system.

        Raises:
            ConfigurationError: the ``ca_file`` cannot be used.
        """
        self.header_timeout = header_timeout
        self._dialer = Dialer(timeout=connect_timeout, permits=permits, context=_tls_context(ca_file))
        self._idle = IdleConnections(max_idle, idle_seconds)

    async def request(self, method: Literal["GET", "HEAD"], url: str, headers: Mapping[str, str]) -> HttpAnswer:
        """Ask, and wait for the head of the answer. The part of ``url`` from its path on is sent byte for byte.

        Raises:
            CopyUnavailableError: there is no connection, or no well-formed answer in time.
            ValueError: the URL or a header field cannot be sent.
        """
        target = parse_url(url)
        request = request_head(method, target, headers)
        with _failures(target.shown):
            kept = self._idle.take(target.origin)
            if kept is not None:
                with contextlib.suppress(_NoAnswerError):
                    return await self._exchange(kept, request, method, target)
            connection = await self._dialer.dial(target.host, target.port, secure=target.scheme == "https")
            return await self._exchange(connection, request, method, target)

    async def close(self) -> None:
        """Close the connections that are kept; those with answers on their way end when these are closed."""
        self._idle.close()
        self._dialer.close()

    async def _exchange(self, connection: Connection, request: bytes, method: str, target: Target) -> HttpAnswer:
        try:
            async with asyncio.timeout(self.header_timeout):
                head, rest = await _ask(connection, request, method)
        except BaseException:
            connection.close()
            raise
        return HttpAnswer(head, rest, connection, functools.partial(self._idle.put, target.origin), target.shown)


async def _ask(connection: Connection, request: bytes, method: str) -> tuple[ResponseHead, bytes]:
    """Send the request and receive the head of its answer, with what came along after it."""
    try:
        await connection.send(request)
        data = await connection.receive(_FIRST_BYTES)
    except ConnectionError as error:
        raise _NoAnswerError from error
    if not data:
        raise _NoAnswerError
    budget = MAX_HEAD_BYTES
    while True:
        raw, found, data = data.partition(b"\r\n\r\n")
        if len(raw) > budget:
            raise MessageError(f"the head of the answer is longer than {MAX_HEAD_BYTES} bytes")
        if found:
            head = parse_response_head(raw, method)
            if head.status >= 200:
                return head, data
            budget -= len(raw)  # An interim answer: the one that counts comes after it.
        else:
            more = await connection.receive(_FIRST_BYTES)
            if not more:
                raise MessageError("the answer ended within its head")
            data = raw + more


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"ca_file: {ca_file} cannot be read as certificates in PEM: {error}") from error
    context.set_alpn_protocols(["http/1.1"])
    return context


@contextlib.contextmanager
def _failures(shown: str) -> Iterator[None]:
    """Tell failures of the network in terms of storages."""
    try:
        yield
    except (MessageError, OSError, _NoAnswerError) as error:
        raise CopyUnavailableError(f"{shown}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of the server is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason}"
    if isinstance(error, TimeoutError) and error.errno is None:
        return "no answer in time"
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.errno:
        return os.strerror(error.errno)
    return getattr(error, "strerror", None) or str(error)

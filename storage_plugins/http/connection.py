"""Connections of an HTTP client: plain sockets and TLS, without transports of the event loop.

A plain one can be read by others than this process, too: the kernel can splice from it. Nothing is received before
somebody asks for it, so a slow reader costs no memory and the network stack holds back the sender.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any, Protocol

from gateway.storage import Descriptor
from storage_plugins.http.addresses import IPAddress
from storage_plugins.threads import DaemonThreads

_TURN_BYTES = 1024 * 1024
"""Bytes that are received without waiting before others have their turn."""
_RECORD_BYTES = 16 * 1024
"""Most bytes that a TLS record has (RFC 8446 §5.1), so that one read can give them."""
_RECORDS_BYTES = 128 * 1024
"""Bytes of TLS records that are received in one go."""
_RECORDS_AT_ONCE_BYTES = 256 * 1024
"""The same where nobody waits for the piece: as much as has come."""
_RESOLVERS = 4
"""How many host names are looked up at once."""


class Connection(Protocol):
    """A connection to a server. Errors are OSError, of which ssl.SSLError is one."""

    async def send(self, data: bytes) -> None:
        """Send all of ``data``."""
        ...

    async def receive(self, most: int) -> bytes:
        """Up to ``most`` of the next bytes, as many as are at hand and at least one; empty at their end.

        If it is cancelled, no bytes are lost.
        """
        ...

    def receive_at_once(self, most: int) -> bytes | None:
        """As `receive`, but None where nothing is at hand."""
        ...

    def share(self) -> Descriptor:
        """Another descriptor of its socket, to be told by when something comes; who asked for it closes it."""
        ...

    def is_quiet(self) -> bool:
        """Whether it is open and nothing was received that nobody asked for."""
        ...

    def close(self) -> None:
        """Close at once; whoever waits for bytes gets ConnectionAbortedError."""
        ...


class PlainConnection:
    """A TCP connection; owns the non-blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._turn = 0

    async def send(self, data: bytes) -> None:
        """See `Connection.send`."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                await self._wait(self._loop.add_writer, self._loop.remove_writer)

    async def receive(self, most: int) -> bytes:
        """See `Connection.receive`."""
        if self._turn >= _TURN_BYTES:
            self._turn = 0
            await asyncio.sleep(0)
        while True:
            try:
                data = self._socket.recv(most)
            except BlockingIOError:
                self._turn = 0
                await self._wait(self._loop.add_reader, self._loop.remove_reader)
            else:
                self._turn += len(data)
                return data

    def receive_at_once(self, most: int) -> bytes | None:
        """See `Connection.receive_at_once`."""
        try:
            return self._socket.recv(most)
        except BlockingIOError:
            return None

    def is_quiet(self) -> bool:
        """See `Connection.is_quiet`."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def share(self) -> Descriptor:
        """Another descriptor of the socket, for somebody else to receive from; who asked for it closes it."""
        return Descriptor(os.dup(self._socket.fileno()))

    def interrupt(self) -> None:
        """Have all who receive see the end now, even in threads and on shared descriptors."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def close(self) -> None:
        """See `Connection.close`."""
        if self._waiter is not None:
            # Even if it is about to go on: the number may soon be that of another socket.
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            _wake(self._waiter)
            self._waiter = None
        self._socket.close()

    async def _wait(self, add: Callable[..., Any], remove: Callable[[int], Any]) -> None:
        number = self._socket.fileno()
        self._waiter = self._loop.create_future()
        add(number, _wake, self._waiter)
        try:
            await self._waiter
        finally:
            if self._waiter is not None:
                self._waiter = None
                remove(number)
        if self._socket.fileno() < 0:
            raise ConnectionAbortedError("the connection was closed")


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class SecureConnection:
    """TLS over a plain connection."""

    def __init__(self, wire: PlainConnection, context: ssl.SSLContext, host: str) -> None:
        self._wire = wire
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    async def handshake(self) -> None:
        """Agree on keys, and see that the certificate is that of the host."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            else:
                return await self._flush()

    async def send(self, data: bytes) -> None:
        """See `Connection.send`."""
        self._tls.write(data)
        await self._flush()

    async def receive(self, most: int) -> bytes:
        """See `Connection.receive`."""
        while True:
            await self._flush()  # Our part where the peer asked for new keys.
            pieces, ended = self._decrypted(most)
            if pieces or ended:
                return b"".join(pieces)
            await self._fill()

    def receive_at_once(self, most: int) -> bytes | None:
        """See `Connection.receive_at_once`. Our part where the peer asks for new keys is left to the next request."""
        pieces, ended = self._decrypted(most)
        while not pieces and not ended:
            records = self._wire.receive_at_once(_RECORDS_AT_ONCE_BYTES)
            if records is None:
                return None
            if not records:
                raise ConnectionResetError("the connection was closed")
            self._incoming.write(records)
            pieces, ended = self._decrypted(most)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def share(self) -> Descriptor:
        """See `Connection.share`."""
        return self._wire.share()

    def is_quiet(self) -> bool:
        """See `Connection.is_quiet`."""
        return not self._incoming.pending and not self._tls.pending() and self._wire.is_quiet()

    def close(self) -> None:
        """See `Connection.close`. The peer is not told: what was asked for has a length of its own."""
        self._wire.close()

    def _decrypted(self, most: int) -> tuple[list[bytes], bool]:
        """What can be had of the records received so far, and whether the last of them said that it is the last."""
        pieces: list[bytes] = []
        while most > 0:
            try:
                piece = self._tls.read(min(most, _RECORD_BYTES))
            except ssl.SSLWantReadError:
                break
            if not piece:
                return pieces, True
            pieces.append(piece)
            most -= len(piece)
        return pieces, False

    async def _fill(self) -> None:
        records = await self._wire.receive(_RECORDS_BYTES)
        if not records:
            raise ConnectionResetError("the connection was closed")
        self._incoming.write(records)

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._wire.send(self._outgoing.read())


class Dialer:
    """Opens connections."""

    def __init__(self, *, timeout: float, permits: Callable[[IPAddress], bool] | None, context: ssl.SSLContext) -> None:
        self._timeout = timeout
        self._permits = permits
        self._context = context
        # Threads of its own: a resolver that hangs stalls no other storage, nor the end of the process.
        self._resolvers = DaemonThreads(_RESOLVERS, "http-resolver")

    async def dial(self, host: str, port: int, *, secure: bool) -> Connection:
        """Connect to ``host``, by TLS if ``secure``.

        Raises:
            OSError: no address of it is permitted and can be connected to, or it is not who it should be
                (ssl.SSLError); TimeoutError, if that was not known in time.
        """
        async with asyncio.timeout(self._timeout):
            wire = PlainConnection(await self._connect(host, port))
            if not secure:
                return wire
            try:
                connection = SecureConnection(wire, self._context, host)
                await connection.handshake()
            except BaseException:
                wire.close()
                raise
            return connection

    def close(self) -> None:
        """Let the threads end; one that hangs is not waited for."""
        self._resolvers.close()

    async def _connect(self, host: str, port: int) -> socket.socket:
        """Try the addresses of ``host`` in turn, with an equal share of the time for each."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        # As bytes, or else the name would be taken for one to be encoded.
        call = self._resolvers.submit(socket.getaddrinfo, host.encode("ascii"), port, type=socket.SOCK_STREAM)
        found = await asyncio.wrap_future(call)
        # Looked at here, and nowhere before: what a name leads to may be another address at the next look.
        allowed = [(family, address) for family, _, _, _, address in found if self._is_permitted(address)]
        failure = OSError(f"its address {found[0][4][0]} is in no permitted network")
        for tried, (family, address) in enumerate(allowed):
            try:
                async with asyncio.timeout((deadline - loop.time()) / (len(allowed) - tried)):
                    return await _connected(family, address)
            except OSError as error:
                failure = error
        raise failure

    def _is_permitted(self, address: tuple[Any, ...]) -> bool:
        return self._permits is None or self._permits(ipaddress.ip_address(address[0]))


async def _connected(family: int, address: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock

"""What the tests of faults share."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import hashlib
import select
import socket
import struct
from pathlib import Path
from urllib.parse import urlsplit

from tests.harness import SCIENTIST, Catalogue, Entry, RunningGateway, token

RECEIVE_BUFFER = 16 * 1024
"""SO_RCVBUF of a `RawClient`; the kernel doubles it."""


def replace_on_disk(path: Path, content: bytes) -> None:
    """Put other content at ``path`` as careful writers do: a new file, renamed over the old one."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    new.rename(path)


async def ingest_again(catalogue: Catalogue, entry: Entry, content: bytes) -> Entry:
    """Replace the file and bring its rows up to date, as the ingest of the same Item with a new file does."""
    replace_on_disk(entry.path, content)
    found = entry.path.stat()
    digest = hashlib.sha256(content).hexdigest()
    async with catalogue.connection.transaction():
        file = await catalogue.connection.fetchval(
            "UPDATE files SET checksum = $1, size = $2 WHERE checksum = $3 RETURNING file_id",
            digest,
            len(content),
            entry.checksum,
        )
        await catalogue.connection.execute(
            "UPDATE copies SET size = $1, modified = $2, version = $3 WHERE file_id = $4",
            found.st_size,
            datetime.datetime.fromtimestamp(int(found.st_mtime), datetime.UTC),
            f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}",
            file,
        )
    return dataclasses.replace(entry, checksum=digest, content=content)


class RawClient:
    """A client that sees what really comes over its connection, and reads only when told to."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def connect(cls, url: str, stack: contextlib.ExitStack, *, receive_buffer: int = RECEIVE_BUFFER) -> RawClient:
        parts = urlsplit(url)
        connection = stack.enter_context(socket.socket())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (parts.hostname, parts.port))
        return cls(connection)

    async def ask(self, path: str, *fields: str, version: str = "HTTP/1.1") -> None:
        """Send a GET as the scientist; it may be one of several in a pipeline."""
        lines = [f"GET {path} {version}", "Host: gateway", f"Authorization: Bearer {token(SCIENTIST)}", *fields, "", ""]
        await self._loop.sock_sendall(self.connection, "\r\n".join(lines).encode())

    async def read(self, at_least: int) -> bytes:
        received = bytearray()
        while len(received) < at_least and (piece := await self._loop.sock_recv(self.connection, 256 * 1024)):
            received += piece
        return bytes(received)

    async def read_to_the_end(self) -> bytes:
        """All until the connection ends, by FIN or RST."""
        received = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while piece := await self._loop.sock_recv(self.connection, 256 * 1024):
                received += piece
        return bytes(received)

    async def ended(self) -> None:
        """Wait, without reading, until the other side has reset the connection."""
        poll = select.poll()
        poll.register(self.connection, 0)  # POLLERR and POLLHUP are told all the same
        while not poll.poll(0):
            await asyncio.sleep(0.01)

    def reset(self) -> None:
        """Leave by RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


@dataclasses.dataclass(frozen=True)
class Answer:
    """One answer, as far as it came."""

    status: int
    fields: dict[str, str]
    """By name in lower case."""
    body: bytes

    @property
    def is_whole(self) -> bool:
        return len(self.body) == int(self.fields["content-length"])


def answers(received: bytes) -> list[Answer]:
    """Take a connection's bytes apart by the lengths that its headers declare."""
    found = []
    while received:
        header, _, received = received.partition(b"\r\n\r\n")
        start, *lines = header.decode("latin-1").split("\r\n")
        fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = int(fields["content-length"])
        found.append(Answer(int(start.split()[1]), fields, received[:length]))
        received = received[length:]
    return found


async def settled_usage(gateway: RunningGateway, before: int, promised: int) -> int:
    """Bytes charged since ``before``, once the running download of ``promised`` bytes is settled as not whole."""
    deadline = asyncio.get_running_loop().time() + 10
    while (charged := (await gateway.usage(SCIENTIST))[1] - before) >= promised:
        assert asyncio.get_running_loop().time() < deadline, "the download was never settled"
        await asyncio.sleep(0.02)
    return charged


def most_in_socket_buffers() -> int:
    """Bytes that the kernel may hold between a gateway and a `RawClient`, from this machine's own limits."""
    most_to_send = int(Path("/proc/sys/net/ipv4/tcp_wmem").read_text(encoding="ascii").split()[2])
    return most_to_send + 2 * RECEIVE_BUFFER

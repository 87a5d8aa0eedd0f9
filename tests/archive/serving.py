"""Archives over a real socket: what lies where, a server whose answers are those of a `Sender`, and ways to ask it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import hashlib
import random
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from http import HTTPStatus
from pathlib import Path

from aiohttp import web
from multidict import CIMultiDict

from gateway.archive.answer import evaluate_archive
from gateway.archive.content import ArchiveContent
from gateway.archive.layout import Layout, LayoutBuilder, Member, fingerprint_of
from gateway.archive.names import Names
from gateway.delivery.allowance import Allowance
from gateway.delivery.content import Content
from gateway.delivery.pace import Pace
from gateway.delivery.sender import Sender
from gateway.delivery.source import Source
from gateway.delivery.transfer import Transfer
from gateway.hashing import Proof
from gateway.http.disposition import content_disposition
from gateway.storage import CanStream, CopyChangedError, OnDisk, Stat, StorageError

PATIENT = Pace(send_timeout=10, min_rate=0, grace=0, storage_timeout=10)
CREATED = datetime.datetime(2025, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
MODIFIED = datetime.datetime(2024, 2, 29, 23, 59, 58, tzinfo=datetime.UTC)


@dataclasses.dataclass(frozen=True)
class Lying:
    """A file, and where it lies."""

    name: str
    size: int
    crc32: int | None
    storage: OnDisk | CanStream
    location: str
    stat: Stat
    folder: str = ""

    @property
    def identity(self) -> str:
        return self.stat.version


async def lying(
    name: str, content: bytes, storage: OnDisk | CanStream, location: str, *, known: bool = True, folder: str = ""
) -> Lying:
    """A file of which the catalogue has what the storage says of it now."""
    stat = await storage.stat(location)
    return Lying(name, len(content), zlib.crc32(content) if known else None, storage, location, stat, folder)


def lay_out(files: Iterable[Lying], *, notice: bytes = b"") -> Layout:
    names, builder = Names("NOTICE.txt"), LayoutBuilder()
    for number, file in enumerate(files):
        name = names.place(file.name, file.folder)
        builder.add(name, file.size, file.crc32, MODIFIED, identity=file.identity, key=number)
    if notice:
        builder.add_text("NOTICE.txt", notice, CREATED)
    return builder.finish(CREATED)


class Shelf:
    """A `MemberSource` of files in any storages."""

    def __init__(self, files: list[Lying]) -> None:
        self.files = files
        self.begin_proof: Callable[[], Proof] | None = None
        """Where set, every member is held against its checksum on the way."""
        self.open = self.most_open = self.opened = 0

    @contextlib.asynccontextmanager
    async def opening(self, member: Member) -> AsyncIterator[Content]:
        file = self.files[member.key]
        if member.fingerprint != fingerprint_of(file.identity):
            raise CopyChangedError(f"{file.name}: the catalogue has another one by now")
        proves = self.begin_proof is not None
        source = Source(member.key, "there", file.storage, file.location, file.stat, prove=proves, prove_large=proves)
        content = Content([source], file.size, storage_timeout=10, begin_proof=self.begin_proof)
        self.open += 1
        self.opened += 1
        self.most_open = max(self.most_open, self.open)
        try:
            with contextlib.closing(content):
                yield content
        finally:
            self.open -= 1


@dataclasses.dataclass
class Served:
    """An archive that can be asked for, and what became of the answers."""

    layout: Layout
    shelf: Shelf
    allowed: Callable[[Transfer], Allowance] | None = None
    transfers: list[Transfer] = dataclasses.field(default_factory=list)
    found: dict[int, int] = dataclasses.field(default_factory=dict)


class ArchiveServer:
    """Serves archives by their paths."""

    def __init__(self) -> None:
        self.served: dict[str, Served] = {}
        self.address: tuple[str, int] = ("", 0)
        self.settled = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}"

    def serve(self, files: list[Lying], path: str = "/order.zip", *, notice: bytes = b"") -> Served:
        served = self.served[path] = Served(lay_out(files, notice=notice), Shelf(files))
        return served

    async def handle(self, request: web.Request) -> web.StreamResponse:
        served = self.served.get(request.path)
        if served is None:
            raise web.HTTPNotFound
        now = datetime.datetime.now(datetime.UTC)
        verdict = evaluate_archive(request.method, request.headers, served.layout, now)
        if verdict.status >= HTTPStatus.BAD_REQUEST:
            return web.Response(status=verdict.status, headers=verdict.headers, text="no")
        fields = CIMultiDict(verdict.headers)
        fields["Content-Disposition"] = content_disposition("order.zip")
        response = web.StreamResponse(status=verdict.status, headers=fields)
        if request.method == "HEAD" or verdict.status == HTTPStatus.NOT_MODIFIED:
            return response
        transfer = Transfer(verdict.representation_bytes)
        try:
            async with ArchiveContent(served.layout, served.shelf) as content:
                allowance = served.allowed(transfer) if served.allowed else None
                sender = Sender(request, content, verdict, transfer, pace=PATIENT, allowance=allowance)
                await sender.send(response)
                served.found |= content.found
        except StorageError as error:
            return web.Response(status=502, text=type(error).__name__)
        finally:
            served.transfers.append(transfer)
            async with self.settled:
                self.settled.notify_all()
        return response


@contextlib.asynccontextmanager
async def archive_server() -> AsyncIterator[ArchiveServer]:
    """A running server without archives yet."""
    server = ArchiveServer()
    app = web.Application()
    app.router.add_get("/{name}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.address = runner.addresses[0][:2]
        yield server
    finally:
        await runner.cleanup()


def content_of(size: int, seed: int = 0) -> bytes:
    """Bytes of a file, the same each time."""
    return random.Random(f"{seed} {size}").randbytes(size)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def received(
    server: ArchiveServer, path: str = "/order.zip", fields: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str], bytes, int]:
    """Status, fields, body as far as it came, and how much of it was promised."""
    reader, writer = await asyncio.open_connection(*server.address)
    try:
        lines = [
            f"GET {path} HTTP/1.1",
            "Host: localhost",
            *(f"{name}: {value}" for name, value in (fields or {}).items()),
        ]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        answered = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        promised = int(answered.get("Content-Length", 0))
        try:
            body = await reader.readexactly(promised)
        except asyncio.IncompleteReadError as error:
            body = error.partial
    finally:
        writer.transport.abort()
    return int(head.split(" ")[1]), answered, body, promised

"""Servers of one archive: the gateway's own code without its checks, and zipstream-ng as it is used without asyncio.

``python -m benchmarks.archive_app --directory DIR`` serves the files below DIR as ``/known.zip``, with the CRC-32 of
each known before, and as ``/unknown.zip``, where each is computed on the way. With ``--zipstream`` a synchronous server
with a thread for each connection serves them. Members are stored, in the order of their names.
"""

from __future__ import annotations

import datetime
import http.server
import zlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import click
from aiohttp import web
from zipstream import ZIP_STORED, ZipStream

from gateway.archive.answer import evaluate_archive
from gateway.archive.content import ArchiveContent
from gateway.archive.layout import Layout, LayoutBuilder, Member
from gateway.delivery.content import Content
from gateway.delivery.pace import Pace
from gateway.delivery.sender import Sender
from gateway.delivery.source import Source
from gateway.delivery.transfer import Transfer
from gateway.storage import Stat
from storage_plugins.local import LocalStorage

MIB = 2**20
MODIFIED = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
PACE = Pace(send_timeout=60, min_rate=0, grace=0, storage_timeout=60)


def lay_out(files: list[Path], *, known: bool) -> Layout:
    """An archive of ``files``."""
    builder = LayoutBuilder()
    for number, path in enumerate(files):
        crc32 = _crc32(path) if known else None
        builder.add(path.name, path.stat().st_size, crc32, MODIFIED, identity=path.name, key=number)
    return builder.finish(MODIFIED)


def write_archive(layout: Layout, files: list[Path], target: Path) -> None:
    """Write the archive into a file, for a server that knows no other way."""
    with target.open("wb") as file:
        for piece in layout.pieces(0, layout.length):
            if isinstance(piece, bytes):
                file.write(piece)
            else:
                with files[piece.member].open("rb") as member:
                    while block := member.read(MIB):
                        file.write(block)


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(MIB):
            value = zlib.crc32(block, value)
    return value


class _Directory:
    """A `MemberSource` of files of one directory."""

    def __init__(self, storage: LocalStorage, files: list[Path], stats: list[Stat]) -> None:
        self._storage = storage
        self._files = files
        self._stats = stats

    def opening(self, member: Member) -> AbstractAsyncContextManager[Content]:
        return self._opening(member)

    @asynccontextmanager
    async def _opening(self, member: Member) -> AsyncIterator[Content]:
        location, stat = self._files[member.key].name, self._stats[member.key]
        source = Source(member.key, "disk", self._storage, location, stat)
        with closing(Content([source], member.size, storage_timeout=60, begin_proof=None)) as content:
            yield content


def create_app(root: Path) -> web.Application:
    """The application that serves the files of ``root`` as archives."""
    files = listed(root)

    async def start(app: web.Application) -> AsyncIterator[None]:
        storage = LocalStorage("disk", root)
        stats = [await storage.stat(path.name) for path in files]
        app[SOURCE] = _Directory(storage, files, stats)
        app[LAYOUTS] = {known: lay_out(files, known=known) for known in (True, False)}
        yield
        await storage.close()

    async def answer(request: web.Request) -> web.StreamResponse:
        layout = request.app[LAYOUTS][request.path == "/known.zip"]
        verdict = evaluate_archive("GET", request.headers, layout, datetime.datetime.now(datetime.UTC))
        response = web.StreamResponse(status=verdict.status, headers=verdict.headers)
        transfer = Transfer(verdict.representation_bytes)
        async with ArchiveContent(layout, request.app[SOURCE]) as content:
            await Sender(request, content, verdict, transfer, pace=PACE, allowance=None).send(response)
        return response

    app = web.Application()
    app.cleanup_ctx.append(start)
    app.router.add_get("/known.zip", answer)
    app.router.add_get("/unknown.zip", answer)
    return app


SOURCE = web.AppKey("source", _Directory)
LAYOUTS = web.AppKey("layouts", dict[bool, Layout])


def listed(root: Path) -> list[Path]:
    """The files of a directory, by name."""
    return sorted(root.iterdir())


def zipstream_of(root: Path) -> ZipStream:
    """The archive by zipstream-ng; its length is known."""
    archive = ZipStream(compress_type=ZIP_STORED, sized=True)
    for path in listed(root):
        archive.add_path(path, path.name)
    return archive


def serve_zipstream(root: Path, port: int) -> None:
    """Serve the archive by zipstream-ng until the process ends."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            archive = zipstream_of(root)
            self.send_response(200)
            self.send_header("Content-Type", "application/zip")
            self.send_header("Content-Length", str(len(archive)))
            self.end_headers()
            for piece in archive:
                self.wfile.write(piece)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


@click.command()
@click.option("--port", required=True, type=int)
@click.option("--directory", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--zipstream", is_flag=True, help="Serve by zipstream-ng instead.")
def main(port: int, directory: Path, *, zipstream: bool) -> None:
    """Serve the files of a directory as an archive."""
    if zipstream:
        serve_zipstream(directory, port)
    else:
        web.run_app(create_app(directory), host="127.0.0.1", port=port, access_log=None, print=lambda *_: None)


if __name__ == "__main__":
    main()

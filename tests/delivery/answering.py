"""A server whose answers are those of a `Sender`, by every way that bytes can leave, and a client that takes them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import os
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal
from unittest import mock

from aiohttp import web

from gateway.delivery import source as source_module
from gateway.delivery.allowance import Allowance, AllowanceEndedError
from gateway.delivery.client import Client
from gateway.delivery.content import Content
from gateway.delivery.pace import Pace
from gateway.delivery.sender import Sender
from gateway.delivery.source import Source
from gateway.delivery.transfer import Transfer
from gateway.hashing import Hashers
from gateway.http.evaluate import Part, Span, Verdict
from gateway.http.multipart import byteranges
from gateway.storage import CanStream, OnDisk
from storage_plugins import local
from storage_plugins.http.plugin import HttpStorage
from storage_plugins.local import LocalStorage
from tests.storage_plugins.web import Authority, WebServer, holding
from tests.storage_plugins.web import serving as serving_web

PATIENT = Pace(send_timeout=10, min_rate=0, grace=0, storage_timeout=10)
BOUNDARY = "boundary"


@dataclasses.dataclass(frozen=True)
class Way:
    """How the bytes get from where they lie to the client."""

    lies: Literal["on disk", "http", "https"]
    through: tuple[Any, str]
    """What they pass through: a method or function, to be sure that they do."""
    in_memory: bool = True
    splices: bool = True
    tls: bool = False
    """Whether the client comes by TLS."""
    prove: bool = False

    @contextlib.contextmanager
    def set_up(self) -> Iterator[mock.Mock]:
        """Make it the way that is taken; gives what counts how often."""
        owner, name = self.through
        with contextlib.ExitStack() as stack:
            memory = (lambda _, __, count: count) if self.in_memory else (lambda *_: 0)
            stack.enter_context(mock.patch.object(local, "_bytes_in_memory", memory))
            if not self.splices:
                splice = os.splice
                stack.callback(setattr, os, "splice", splice)
                del os.splice
            original = getattr(owner, name)
            yield stack.enter_context(mock.patch.object(owner, name, autospec=True, side_effect=original))


WAYS = {
    "sendfile on the loop": Way("on disk", (LocalStorage, "sendfile_from_memory")),
    "sendfile in threads": Way("on disk", (LocalStorage, "sendfile"), in_memory=False),
    "splice": Way("http", (source_module, "splice")),
    "relay": Way("https", (source_module, "relay")),
    "pieces": Way("http", (Client, "_write_past"), splices=False),
    "file to TLS": Way("on disk", (LocalStorage, "read"), tls=True),
    "stream to TLS": Way("http", (Client, "write"), tls=True),
    "proving a file": Way("on disk", (Content, "_send_proving"), prove=True),
    "proving a stream": Way("http", (Content, "_send_proving"), prove=True),
}


class CheckedTransfer(Transfer):
    """A transfer that never counts more than is allowed."""

    allowance: Allowance | None = None

    def __setattr__(self, name: str, value: object) -> None:
        if name == "sent" and self.allowance is not None:
            assert isinstance(value, int)
            assert value <= self.allowance.granted()
        super().__setattr__(name, value)


class Marks:
    """Grants up to one mark after the other, and then ends; sees that it is asked only where all is sent.

    From the second one on, each takes ``pause`` seconds.
    """

    def __init__(self, marks: Sequence[int], *, pause: float = 0) -> None:
        self.left = list(marks)
        self.mark = 0
        self.pause = pause
        self.waits = 0
        self.transfer = Transfer(0)

    def granted(self) -> int:
        assert self.transfer.sent <= self.mark
        return self.mark

    async def more(self) -> None:
        self.waits += 1
        assert self.transfer.sent == self.mark
        await asyncio.sleep(self.pause if self.mark else 0)
        assert self.transfer.sent == self.mark
        if not self.left:
            raise AllowanceEndedError("it is enough")
        self.mark = self.left.pop(0)


@dataclasses.dataclass
class Asked:
    """A request that is going to come, and what became of it."""

    parts: tuple[Part, ...]
    allowance: Allowance | None
    pace: Pace
    transfer: CheckedTransfer
    done: asyncio.Future[AllowanceEndedError | None]
    """Once it is answered; with what was raised before a byte was sent."""
    task: asyncio.Task[Any] | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    status: int
    promised: int
    """The Content-Length."""
    body: bytes
    transfer: Transfer
    refused: AllowanceEndedError | None


class Answering:
    """A running server with one file."""

    def __init__(self, content: bytes, storage: OnDisk | CanStream, location: str, way: Way, hashers: Hashers) -> None:
        self.content = content
        self.url: tuple[str, int] = ("", 0)
        self.tls: ssl.SSLContext | None = None
        self.upstream: WebServer | None = None
        self._storage = storage
        self._location = location
        self._way = way
        self._hashers = hashers
        self._asked: dict[str, Asked] = {}

    def plan(self, *spans: Span, allowance: Allowance | None = None, pace: Pace = PATIENT) -> str:
        """The path of an answer with ``spans`` that is sent like this."""
        parts: tuple[Part, ...] = spans
        if len(spans) > 1:
            parts = byteranges(spans, len(self.content), "image/tiff", BOUNDARY)
        transfer = CheckedTransfer(sum(span.length for span in spans))
        transfer.allowance = allowance
        if isinstance(allowance, Marks):
            allowance.transfer = transfer
        path = f"/{len(self._asked)}"
        self._asked[path] = Asked(parts, allowance, pace, transfer, asyncio.get_running_loop().create_future())
        return path

    def asked(self, path: str) -> Asked:
        return self._asked[path]

    async def connect(self, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection by which ``path`` was asked for."""
        reader, writer = await asyncio.open_connection(*self.url, ssl=self.tls)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return reader, writer

    async def get(self, *spans: Span, allowance: Allowance | None = None, pace: Pace = PATIENT) -> Outcome:
        """Ask for ``spans`` and take what comes."""
        path = self.plan(*spans, allowance=allowance, pace=pace)
        reader, writer = await self.connect(path)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
            promised = int(fields["Content-Length"])
            try:
                body = await reader.readexactly(promised)
            except asyncio.IncompleteReadError as error:
                body = error.partial
        finally:
            writer.transport.abort()
        asked = self._asked[path]
        refused = await asyncio.wait_for(asked.done, 10)
        return Outcome(int(head.split(" ")[1]), promised, body, asked.transfer, refused)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        asked = self._asked[request.path]
        asked.task = asyncio.current_task()
        length = str(sum(part.length for part in asked.parts))
        verdict = Verdict(HTTPStatus.OK, {"Content-Length": length}, asked.parts)
        source = Source(
            1, "there", self._storage, self._location, None, prove=self._way.prove, prove_large=self._way.prove
        )
        digest = hashlib.sha256(self.content).hexdigest()
        content = Content(
            [source], len(self.content), storage_timeout=asked.pace.storage_timeout,
            begin_proof=lambda: self._hashers.proof("SHA-256", digest),
        )  # fmt: skip
        response = web.StreamResponse(headers=verdict.headers)
        try:
            with contextlib.closing(content):
                sender = Sender(
                    request, content, verdict, asked.transfer, pace=asked.pace, allowance=asked.allowance
                )  # fmt: skip
                await sender.send(response)
        except AllowanceEndedError as error:
            asked.done.set_result(error)
            return web.Response(status=429)
        except BaseException as error:
            asked.done.set_exception(error)
            raise
        asked.done.set_result(None)
        return response


@contextlib.asynccontextmanager
async def answering(
    way: Way, content: bytes, directory: Path, authority: Authority
) -> AsyncIterator[tuple[Answering, mock.Mock]]:
    """A server with ``content`` that sends it by ``way``, and what counts the calls of that way."""
    async with contextlib.AsyncExitStack() as stack:
        calls = stack.enter_context(way.set_up())
        hashers = stack.enter_context(contextlib.closing(Hashers(1)))
        upstream = None
        storage: LocalStorage | HttpStorage
        if way.lies == "on disk":
            (directory / "file").write_bytes(content)
            storage, location = LocalStorage("there", directory, threads=2), "file"
        else:
            tls = authority.server if way.lies == "https" else None
            upstream = await stack.enter_async_context(serving_web(holding(content, 'ETag: "1"'), tls=tls))
            options = {"networks": ["127.0.0.0/8"], "schemes": [way.lies], "ca_file": str(authority.ca_file)}
            options["hosts"] = [f"127.0.0.1:{upstream.port}"]
            storage, location = HttpStorage.from_options("there", options), upstream.url()
        stack.push_async_callback(storage.close)
        server = Answering(content, storage, location, way, hashers)
        server.upstream = upstream
        app = web.Application()
        app.router.add_get("/{number}", server.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=authority.server if way.tls else None).start()
        server.url = runner.addresses[0][:2]
        server.tls = ssl.create_default_context(cafile=authority.ca_file) if way.tls else None
        yield server, calls

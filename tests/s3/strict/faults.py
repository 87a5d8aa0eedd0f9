"""What may go wrong with an answer, for the next so many requests."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
from collections.abc import Callable
from typing import Literal, TypedDict, Unpack

from tests.s3.strict.messages import Content, Memory, Reply, Request, S3Error
from tests.s3.strict.store import Store

End = Literal["go on", "reset", "fin", "stall"]
BEFORE_HEAD = -1


class Which(TypedDict, total=False):
    """The requests that a fault befalls."""

    times: int
    """How many of them, by default one."""
    method: str
    """By default any, but GET for what befalls a body."""
    key: str
    """Of the object, by default any."""


@dataclasses.dataclass(eq=False)
class Fault:
    """A fault that waits for its requests."""

    which: Which
    at: int = BEFORE_HEAD
    """Bytes of the body that are sent before."""
    end: End = "go on"
    """What becomes of the connection at that point."""
    alter: Callable[[Reply], Reply] = lambda reply: reply
    """What the answer becomes."""
    act: Callable[[Request], None] = lambda request: None
    """What happens at that point besides."""
    hits: int = 0
    """Requests that it befell."""
    _taken: int = 0
    _hit: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    _released: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    def matches(self, request: Request) -> bool:
        """Whether it befalls this request."""
        return (
            self._taken < self.which.get("times", 1)
            and self.which.get("method", request.method) == request.method
            and self.which.get("key", request.key) == request.key
        )

    def take(self) -> None:
        """One request fewer to wait for."""
        self._taken += 1

    def strike(self, request: Request) -> None:
        """It happens now."""
        self.hits += 1
        self._hit.set()
        self.act(request)

    async def reached(self) -> None:
        """Wait until it has befallen a request."""
        await self._hit.wait()

    def release(self) -> None:
        """Let stalled answers go on, those to come included."""
        self._released.set()

    async def released(self) -> None:
        """Wait for the release."""
        await self._released.wait()


class Faults:
    """Faults in the order in which they were asked for: a request meets the first that fits, and no other.

    Counts and offsets are bytes of the body of the one answer, from 0, unless they say otherwise.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[Fault] = []

    def next(self, request: Request) -> Fault | None:
        """The fault that befalls this request."""
        for fault in self._waiting:
            if fault.matches(request):
                fault.take()
                return fault
        return None

    def clear(self) -> None:
        """From now on all goes well; what stalls goes on."""
        for fault in self._waiting:
            fault.release()
        self._waiting.clear()

    def reset_before_head(self, **which: Unpack[Which]) -> Fault:
        """RST instead of an answer."""
        return self._add(Fault(which, end="reset"))

    def reset_after(self, sent: int, **which: Unpack[Which]) -> Fault:
        """RST once the client's kernel has the head and ``sent`` bytes."""
        return self._add(Fault(_bodies(which), at=sent, end="reset"))

    def short_body(self, sent: int, **which: Unpack[Which]) -> Fault:
        """FIN after ``sent`` bytes of a body that was announced as longer."""
        return self._add(Fault(_bodies(which), at=sent, end="fin"))

    def stall_before_head(self, **which: Unpack[Which]) -> Fault:
        """No answer until the release, or until the client leaves."""
        return self._add(Fault(which, end="stall"))

    def stall_after(self, sent: int, **which: Unpack[Which]) -> Fault:
        """Nothing after ``sent`` bytes until the release, or until the client leaves."""
        return self._add(Fault(_bodies(which), at=sent, end="stall"))

    def internal_error(self, **which: Unpack[Which]) -> Fault:
        """500."""
        return self._fail(S3Error(500, "InternalError", "We encountered an internal error. Please try again."), which)

    def slow_down(self, **which: Unpack[Which]) -> Fault:
        """503."""
        return self._fail(S3Error(503, "SlowDown", "Please reduce your request rate."), which)

    def wrong_length(self, by: int, **which: Unpack[Which]) -> Fault:
        """A Content-Length that is ``by`` off, while the body is right; then FIN."""
        return self._alter(lambda reply: reply.with_fields(Content_Length=str(reply.length + by)), _bodies(which))

    def longer_body(self, by: int, **which: Unpack[Which]) -> Fault:
        """``by`` bytes after the end of the body that the head announces; then FIN."""

        def alter(reply: Reply) -> Reply:
            longer = reply.content.read(reply.start, reply.length) + bytes(by)
            altered = reply.with_fields(Content_Length=str(reply.length))
            return dataclasses.replace(altered, content=Memory(longer), start=0, stop=len(longer))

        return self._alter(alter, _bodies(which))

    def corrupt(self, offset: int, **which: Unpack[Which]) -> Fault:
        """Another byte at ``offset`` of the object, wherever a part of it begins."""
        return self._alter(
            lambda reply: dataclasses.replace(reply, content=_Corrupted(reply.content, offset)), _bodies(which)
        )

    def gzip(self, **which: Unpack[Which]) -> Fault:
        """The body packed on the way, with ``Content-Encoding: gzip`` and the same ETag."""

        def alter(reply: Reply) -> Reply:
            packed = gzip.compress(reply.content.read(reply.start, reply.length))
            altered = reply.with_fields(Content_Encoding="gzip", Content_Length=str(len(packed)))
            return dataclasses.replace(altered, content=Memory(packed), start=0, stop=len(packed))

        return self._alter(alter, _bodies(which))

    def replace_after(
        self, sent: int, content: bytes | Content, *, then: End = "reset", **which: Unpack[Which]
    ) -> Fault:
        """Another object at the same key once ``sent`` bytes of the old one were sent; this answer keeps to the old."""

        def act(request: Request) -> None:
            self._store.put(request.bucket, request.key, content)

        return self._add(Fault(_bodies(which), at=sent, end=then, act=act))

    def _fail(self, error: S3Error, which: Which) -> Fault:
        return self._alter(lambda _: error.reply(), which)

    def _alter(self, alter: Callable[[Reply], Reply], which: Which) -> Fault:
        return self._add(Fault(which, alter=alter))

    def _add(self, fault: Fault) -> Fault:
        self._waiting.append(fault)
        return fault


def _bodies(which: Which) -> Which:
    return {"method": "GET", **which}


@dataclasses.dataclass(frozen=True, slots=True)
class _Corrupted:
    content: Content
    offset: int

    @property
    def size(self) -> int:
        return self.content.size

    def read(self, offset: int, count: int) -> bytes:
        piece = bytearray(self.content.read(offset, count))
        if offset <= self.offset < offset + len(piece):
            piece[self.offset - offset] ^= 0xFF
        return bytes(piece)

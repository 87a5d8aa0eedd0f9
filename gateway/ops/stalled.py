"""Connections whose client no longer reads: the framework would wait for it without end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator

from aiohttp import web

from gateway.delivery.watch import held_for_client, reset

LOOKS = 4
"""How often within the deadline all connections are looked at."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Waiting:
    held: int
    since: float


@contextlib.asynccontextmanager
async def cutting_stalled(runner: web.AppRunner, seconds: float) -> AsyncIterator[None]:
    """While the block runs, reset connections with something to send whose client takes no byte for ``seconds``.

    The sender sees to its own deadline; this is for answers without a file: many small ones, asked for in a pipeline.
    """
    task = asyncio.create_task(_watch(runner, seconds))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _watch(runner: web.AppRunner, seconds: float) -> None:
    waiting: dict[object, _Waiting] = {}
    while True:
        await asyncio.sleep(seconds / LOOKS)
        now = asyncio.get_running_loop().time()
        before, waiting = waiting, {}
        for connection in runner.server.connections if runner.server else ():
            transport = connection.transport
            if not isinstance(transport, asyncio.Transport) or not transport.get_write_buffer_size():
                continue
            held = held_for_client(transport)
            known = before.get(connection)
            since = known.since if known and held >= known.held else now
            if now - since >= seconds:
                reset(transport)
            else:
                waiting[connection] = _Waiting(held, since)

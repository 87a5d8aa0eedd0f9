"""Serving an application until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web

from gateway.api.keys import DOWNLOADS, HEALTH
from gateway.config import Server
from gateway.errors import ConfigurationError
from gateway.ops.access_log import access_logger
from gateway.ops.stalled import cutting_stalled

KEEPALIVE_SECONDS = 75
"""Longer than nginx keeps an upstream connection (60 s), so that it is never we who close one it is about to use."""


@contextlib.asynccontextmanager
async def serving(
    app: web.Application, settings: Server, access_log: Callable[[str], None] | None = None
) -> AsyncIterator[str]:
    """Serve ``app`` while the block runs; gives the base URL it listens on.

    ``access_log`` gets a line for each request, and must not wait.

    Raises:
        ConfigurationError: the address cannot be listened on, or the application cannot start.
    """
    logging: Any = {"access_log": None} if access_log is None else {"access_log_class": access_logger(access_log)}
    runner = web.AppRunner(
        app,
        **logging,
        keepalive_timeout=KEEPALIVE_SECONDS,
        shutdown_timeout=settings.shutdown_timeout,
        handle_signals=False,
    )
    try:
        await runner.setup()
        site = web.TCPSite(runner, settings.host, settings.port)
        try:
            await site.start()
        except OSError as error:
            raise ConfigurationError(
                f"server: cannot listen on {settings.host} port {settings.port}: {error.strerror or error}"
            ) from error
        async with cutting_stalled(runner, app[DOWNLOADS].pace.send_timeout):
            yield _base_url(settings.host, runner.addresses[0][1])
        app[HEALTH].drain()
    finally:
        await runner.cleanup()


async def until_stopped() -> None:
    """Return when the process is told to stop by SIGINT (Ctrl-C) or SIGTERM."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    try:
        await stopped.wait()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _base_url(host: str, port: int) -> str:
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - this is the URL to reach it by, not what is listened on
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

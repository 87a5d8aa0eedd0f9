"""The peer of a relay in Python: a Starlette route that streams what an upstream gives, as it is usually written.

``python -m benchmarks.starlette_app --upstream URL`` serves below ``/httpx/`` and ``/aiohttp/`` what the upstream has
below its own root, fetched with the one client or the other, without any check. ``--ca-file`` has the certificate that
an upstream with TLS is believed by. It runs under uvicorn with uvloop and httptools, which is how it is fastest.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import click
import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

CLIENTS = "httpx", "aiohttp"
CHUNK_BYTES = 2**20
CONNECTIONS = 256


def create_app(upstream: str, ca_file: Path | None) -> Starlette:
    """Make the application that relays ``upstream``, a URL without a slash at its end."""
    trust = ssl.create_default_context(cafile=ca_file)

    @contextlib.asynccontextmanager
    async def clients(_: Starlette) -> AsyncIterator[dict[str, Any]]:
        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        connector = aiohttp.TCPConnector(limit=CONNECTIONS, ssl=trust)
        async with (
            httpx.AsyncClient(verify=trust, limits=limits) as of_httpx,
            aiohttp.ClientSession(connector=connector, read_bufsize=CHUNK_BYTES) as of_aiohttp,
        ):
            yield {"httpx": of_httpx, "aiohttp": of_aiohttp}

    async def with_httpx(request: Request) -> StreamingResponse:
        client: httpx.AsyncClient = request.state.httpx
        answer = await client.send(client.build_request("GET", upstream + request.path_params["path"]), stream=True)

        async def body() -> AsyncIterator[bytes]:
            async with contextlib.aclosing(answer):
                async for piece in answer.aiter_raw():
                    yield piece

        return StreamingResponse(body(), answer.status_code, {"Content-Length": answer.headers["Content-Length"]})

    async def with_aiohttp(request: Request) -> StreamingResponse:
        client: aiohttp.ClientSession = request.state.aiohttp
        answer = await client.get(upstream + request.path_params["path"])

        async def body() -> AsyncIterator[bytes]:
            async with answer:
                async for piece in answer.content.iter_any():
                    yield piece

        return StreamingResponse(body(), answer.status, {"Content-Length": answer.headers["Content-Length"]})

    ways = {"httpx": with_httpx, "aiohttp": with_aiohttp}
    return Starlette(routes=[Route(f"/{name}{{path:path}}", way) for name, way in ways.items()], lifespan=clients)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--upstream", required=True, help="URL without a slash at its end.")
@click.option("--ca-file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--port", default=8083, show_default=True, type=click.IntRange(1, 65535))
def main(upstream: str, ca_file: Path | None, port: int) -> None:
    """Serve what an upstream has."""
    app = create_app(upstream, ca_file)
    # Named, so that it fails where one is missing instead of running with a slower one.
    uvicorn.run(app, host="127.0.0.1", port=port, loop="uvloop", http="httptools", access_log=False, log_level="error")


if __name__ == "__main__":
    main()

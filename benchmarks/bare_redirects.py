"""The least that a framework does for a redirect: a 307 to a URL that never changes, without any check or log.

``python -m benchmarks.bare_redirects --framework aiohttp`` serves it where the gateway has its downloads; ``starlette``
and ``fastapi`` run under uvicorn with uvloop and httptools, which is how they are fastest.
"""

from __future__ import annotations

import click
import fastapi
import uvicorn
from aiohttp import web
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.routing import Route

FRAMEWORKS = "aiohttp", "starlette", "fastapi"
PATH = "/collections/{collection}/items/{item}/download/{asset}"
LOCATION = "http://127.0.0.1:9000/archive/granule.tif?X-Amz-Signature=" + 64 * "0"


def aiohttp_app() -> web.Application:
    """Make the application with aiohttp."""

    async def download(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": LOCATION})

    app = web.Application()
    app.router.add_get(PATH, download)
    return app


def starlette_app() -> Starlette:
    """Make the application with Starlette."""

    async def download(_: Request) -> RedirectResponse:
        return RedirectResponse(LOCATION)

    return Starlette(routes=[Route(PATH, download)])


def fastapi_app() -> fastapi.FastAPI:
    """Make the application with FastAPI."""
    app = fastapi.FastAPI()

    @app.get(PATH)
    async def download(collection: str, item: str, asset: str) -> RedirectResponse:  # noqa: ARG001 - as every route
        return RedirectResponse(LOCATION)

    return app


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--framework", type=click.Choice(FRAMEWORKS), required=True)
@click.option("--port", default=8082, show_default=True, type=click.IntRange(1, 65535))
def main(framework: str, port: int) -> None:
    """Serve bare redirects."""
    if framework == "aiohttp":
        web.run_app(aiohttp_app(), host="127.0.0.1", port=port, access_log=None, print=None)
        return
    app = starlette_app() if framework == "starlette" else fastapi_app()
    # Named, so that it fails where one is missing instead of running with a slower one.
    uvicorn.run(app, host="127.0.0.1", port=port, loop="uvloop", http="httptools", access_log=False, log_level="error")


if __name__ == "__main__":
    main()

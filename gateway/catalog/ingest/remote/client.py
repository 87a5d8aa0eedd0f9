"""The HTTP client of a load: one origin, deadlines, further attempts, bounded answers."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import io
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus

import aiohttp
from yarl import URL

from gateway import __version__
from gateway.catalog.ingest import jsonstream
from gateway.catalog.ingest.events import SourceError
from gateway.catalog.ingest.model import JsonObject
from gateway.catalog.ingest.remote.origin import Origin
from gateway.catalog.ingest.remote.patience import RETRIED, Patience, retry_after
from gateway.catalog.ingest.remote.stac_api import Request

MOST_BYTES = 64 * 1024 * 1024
"""Of an answer, unpacked."""
MOST_DOCUMENT = 16 * 1024 * 1024
"""Of a document that is read as a whole."""
MOST_REDIRECTS = 5
_REDIRECTS = frozenset((301, 302, 303, 307, 308))


@dataclasses.dataclass(frozen=True, slots=True)
class Credentials:
    """What a source knows the gateway by."""

    fields: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    """Header fields."""


class _FailedError(Exception):
    """An attempt failed, and another one may not."""

    def __init__(self, reason: str, asked: float | None = None) -> None:
        super().__init__(reason)
        self.asked = asked
        """Seconds that the source asks to be left alone for."""


class Client:
    """Asks one source. Made by `open_client`."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        origin: Origin,
        patience: Patience,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._session = session
        self._patience = patience
        self._sleep = sleep
        self.origin = origin

    async def fetch(self, request: Request, most: int = MOST_BYTES) -> io.BytesIO:
        """The body that ``request`` is answered with, asked for again as often as `Patience` says.

        Raises:
            SourceError: there is none; the message says why.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._attempt(request, most)
            except _FailedError as error:
                pause = self._patience.pause(attempt, error.asked, random.random())  # noqa: S311 - no secret
                if pause is None:
                    asked = "" if error.asked is None else f", and asks to be left alone for {error.asked:.0f} s"
                    raise SourceError(f"{_shown(request.url)} {error} (attempt {attempt}){asked}") from error
            await self._sleep(pause)

    async def document(self, url: str) -> JsonObject:
        """The JSON object at ``url``.

        Raises:
            SourceError: there is none.
        """
        body = await self.fetch(Request(url), MOST_DOCUMENT)
        return await asyncio.to_thread(_object, body, url)

    async def _attempt(self, request: Request, most: int) -> io.BytesIO:
        try:
            async with asyncio.timeout(self._patience.total):
                return await self._follow(request, most)
        except TimeoutError as error:
            raise _FailedError("did not answer in time") from error
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
            raise SourceError(
                f"{_shown(request.url)} has a certificate that this machine does not trust: {error}"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            # What the message of the error says may quote what was answered.
            raise _FailedError(f"gave no whole answer: {type(error).__name__}") from error

    async def _follow(self, request: Request, most: int) -> io.BytesIO:
        url = request.url
        for _ in range(MOST_REDIRECTS + 1):
            async with self._session.request(
                request.method,
                URL(url, encoded=True),
                json=request.body if request.method == "POST" else None,
                headers=request.fields,
                allow_redirects=False,
            ) as response:
                if response.status in _REDIRECTS and "Location" in response.headers:
                    if request.method == "POST" and response.status not in (307, 308):
                        raise SourceError(f"{_shown(url)} redirects a search by {response.status}: not followed")
                    url = self.origin.resolve(response.headers["Location"], url)
                    continue
                self._check(response, url)
                return await _body(response, url, most)
        raise SourceError(f"{_shown(request.url)} redirects more than {MOST_REDIRECTS} times")

    def _check(self, response: aiohttp.ClientResponse, url: str) -> None:
        status = response.status
        if status == HTTPStatus.OK:
            return
        if status in RETRIED:
            asked = retry_after(response.headers.get("Retry-After"), datetime.datetime.now(datetime.UTC))
            raise _FailedError(f"answered {status}", asked)
        hint = {
            401: ": it wants a token or an API key",
            403: ": the token or API key is not good for it",
        }.get(status, "")
        raise SourceError(f"{_shown(url)} answered {status}{hint}")


@contextlib.asynccontextmanager
async def open_client(origin: Origin, credentials: Credentials, patience: Patience) -> AsyncIterator[Client]:
    """A client without cookies or proxies of the environment. Certificates are verified.

    Raises:
        SourceError: credentials would go over the network for everyone to read.
    """
    if credentials.fields and not origin.is_private:
        raise SourceError(f"{origin} is no https: a token or API key is not sent there")
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=patience.connect, sock_read=patience.read)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=16),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        timeout=timeout,
        headers={
            "Accept": "application/geo+json, application/json",
            "User-Agent": f"download-gateway/{__version__}",
            **credentials.fields,
        },
    ) as session:
        yield Client(session, origin, patience)


async def _body(response: aiohttp.ClientResponse, url: str, most: int) -> io.BytesIO:
    body = io.BytesIO()
    async for chunk in response.content.iter_any():
        body.write(chunk)
        if body.tell() > most:
            raise SourceError(f"{_shown(url)} gave more than {most} bytes; ask for smaller pages")
    body.seek(0)
    return body


def _object(body: io.BytesIO, url: str) -> JsonObject:
    """Read what is one JSON object, with all its members."""
    try:
        value = jsonstream.whole(body.getvalue())
    except ValueError as error:
        raise SourceError(f"{_shown(url)} {error}") from error
    if not isinstance(value, dict):
        raise SourceError(f"{_shown(url)} is no JSON object")
    return value


def _shown(url: str) -> str:
    """``url`` for messages, without its query: a source may put secrets of its own there."""
    path, mark, _ = url.partition("?")
    return f"{path}?…" if mark else path

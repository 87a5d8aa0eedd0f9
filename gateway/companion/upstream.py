"""The upstream STAC API: asked for documents, which pass through, and for items."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ssl
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus

import aiohttp
import yarl

from gateway.config import Companion
from gateway.errors import ConfigurationError, GatewayError

MOST_ITEM_BYTES = 16 * 1024 * 1024
"""Of an item that a download looks up."""
_CONNECTIONS = 64
_PIECE_BYTES = 64 * 1024
_FAILURES = (aiohttp.ClientError, OSError, ValueError)


def unreachable(
    detail: str = "The catalogue behind this gateway does not answer at the moment; try again.",
) -> GatewayError:
    """502 with Retry-After: the upstream gave no answer that can be used."""
    return GatewayError(HTTPStatus.BAD_GATEWAY, detail, code="UpstreamFailed", headers={"Retry-After": "10"})


def too_late() -> GatewayError:
    """504 with Retry-After: the upstream did not answer in time."""
    detail = "The catalogue behind this gateway does not answer in time; try again."
    return GatewayError(HTTPStatus.GATEWAY_TIMEOUT, detail, code="UpstreamTimeout", headers={"Retry-After": "10"})


@dataclasses.dataclass(frozen=True, slots=True)
class Wish:
    """A request for the upstream."""

    method: str
    path: str
    """Behind its root, as it is to be sent: percent-encoded, with its query."""
    headers: Mapping[str, str]
    body: bytes | None = None


class Answer:
    """What the upstream answers; its body is read piece by piece."""

    def __init__(self, response: aiohttp.ClientResponse, seconds: float) -> None:
        self._response = response
        self._seconds = seconds

    @property
    def status(self) -> int:
        """Of the answer."""
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """Of the answer."""
        return self._response.headers

    @property
    def media_type(self) -> str:
        """Without parameters, in small letters."""
        return self._response.content_type.lower()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body.

        Raises:
            GatewayError: 502, 504; it broke off.
        """
        try:
            while True:
                async with asyncio.timeout(self._seconds):
                    piece = await self._response.content.read(_PIECE_BYTES)
                if not piece:
                    return
                yield piece
        except TimeoutError as error:
            raise too_late() from error
        except _FAILURES as error:
            raise unreachable() from error

    async def whole(self, most: int) -> bytes:
        """The body, if it has no more than ``most`` bytes.

        Raises:
            GatewayError: 502, 504; it broke off, or is longer.
        """
        body = bytearray()
        async for piece in self.pieces():
            body += piece
            if len(body) > most:
                raise unreachable("The catalogue behind this gateway gave a document that is too long.")
        return bytes(body)


class Upstream:
    """Asks the upstream. Made by `open_upstream`."""

    def __init__(self, settings: Companion, session: aiohttp.ClientSession) -> None:
        self.root = settings.upstream
        """Its URL, without a slash at the end."""
        self._settings = settings
        self._session = session

    @contextlib.asynccontextmanager
    async def ask(self, wish: Wish, authorization: str | None = None) -> AsyncIterator[Answer]:
        """Its answer to ``wish``, while the block runs; redirects are answers like others.

        Args:
            wish: what it is asked.
            authorization: the caller's field, which it gets only where the settings say so.

        Raises:
            GatewayError: 502, 504; there is none.
        """
        headers = {"Accept": "application/json, application/geo+json", "User-Agent": "download-gateway", **wish.headers}
        own = self._settings.authorization
        shown = authorization if self._settings.forward_authorization else own and own.get_secret_value()
        if shown:
            headers["Authorization"] = shown
        url = yarl.URL(self.root + wish.path, encoded=True)
        try:
            async with asyncio.timeout(self._settings.timeout):
                response = await self._session.request(
                    wish.method, url, headers=headers, data=wish.body, allow_redirects=False
                )
        except TimeoutError as error:
            raise too_late() from error
        except _FAILURES as error:
            raise unreachable() from error
        try:
            yield Answer(response, self._settings.timeout)
        finally:
            response.close()


@contextlib.asynccontextmanager
async def open_upstream(settings: Companion) -> AsyncIterator[Upstream]:
    """The upstream, with connections that end with the block; nothing is asked yet.

    Raises:
        ConfigurationError: the ``ca_file`` cannot be used.
    """
    try:
        context = await asyncio.to_thread(ssl.create_default_context, cafile=settings.ca_file)
    except OSError as error:
        raise ConfigurationError(f"companion.ca_file: {settings.ca_file} cannot be used: {error.strerror}") from error
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=context),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None),
    ) as session:
        yield Upstream(settings, session)

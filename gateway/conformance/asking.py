"""Requests to the server under test: bounded in time and bytes, its token kept to itself."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from urllib.parse import urljoin

import aiohttp
import yarl
from multidict import CIMultiDictProxy

MOST_HOPS = 5
"""Redirects that are followed."""
_PIECE_BYTES = 64 * 1024
_LENGTH = re.compile("[0-9]{1,18}", re.ASCII)


class NoAnswerError(Exception):
    """Nothing that is HTTP came back in time. The message holds nothing of a URL but its host."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What was answered to one request."""

    url: str
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    """Its beginning, if there is more of it than is read."""
    is_whole: bool
    """Whether the body was read to its end."""

    @property
    def media_type(self) -> str:
        """Without parameters, in lower case; empty if there is none."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @property
    def length(self) -> int | None:
        """Content-Length."""
        value = self.headers.get("Content-Length", "")
        return int(value) if _LENGTH.fullmatch(value) else None

    def json(self) -> object:
        """The body, if it is JSON; else None."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


class Asking:
    """Sends requests; follows nothing by itself."""

    def __init__(
        self, session: aiohttp.ClientSession, root: str, token: str | None, *, seconds: float, most_bytes: int
    ) -> None:
        """Prepare to ask.

        Args:
            session: that neither decodes bodies nor keeps cookies.
            root: of the STAC API: only its origin is shown the token.
            token: bearer token; None to ask anonymously.
            seconds: that a request may take, its body included.
            most_bytes: of a body that are read.
        """
        self._session = session
        self._origin = yarl.URL(root).origin()
        self.token = token
        self.seconds = seconds
        self.most_bytes = most_bytes

    async def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        token: str | None = None,
        read: bool = True,
    ) -> Answer:
        """Ask ``url``, which is sent byte for byte.

        Args:
            method: GET or HEAD.
            url: absolute.
            headers: that are sent.
            token: instead of that of all requests; empty for none.
            read: whether the body matters.

        Raises:
            NoAnswerError: nothing that is HTTP came back in time.
        """
        target = _http_url(url)
        fields = {"Accept-Encoding": "identity", "Accept": "*/*", **(headers or {})}
        token = self.token if token is None else token
        if token and target.origin() == self._origin:
            fields["Authorization"] = f"Bearer {token}"
        try:
            async with self._session.request(
                method,
                target,
                headers=fields,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self.seconds),
            ) as response:
                body, whole = await self._read(response) if read and method != "HEAD" else (b"", False)
                if not whole and method != "HEAD":
                    response.close()
                return Answer(url, response.status, response.headers, body, whole)
        except TimeoutError as error:
            raise NoAnswerError(f"{target.host} did not answer within {self.seconds:g} s") from error
        except aiohttp.ClientConnectorError as error:
            raise NoAnswerError(f"{target.host} cannot be connected to: {error.os_error.strerror}") from error
        except aiohttp.ClientPayloadError as error:
            raise NoAnswerError(f"{target.host} broke off in the middle of a body") from error
        except (aiohttp.ClientError, OSError) as error:
            # The messages of others quote the URL, which may be a signed one.
            raise NoAnswerError(f"{target.host} gave no answer that is HTTP: {type(error).__name__}") from error

    async def _read(self, response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
        pieces, size = [], 0
        while piece := await response.content.read(_PIECE_BYTES):
            pieces.append(piece)
            size += len(piece)
            if size > self.most_bytes:
                return b"".join(pieces)[: self.most_bytes], False
        return b"".join(pieces), True


def joined(base: str, reference: str) -> str:
    """The URL that ``reference`` is on a page at ``base``.

    Raises:
        NoAnswerError: none.
    """
    try:
        return urljoin(base, reference)
    except ValueError as error:
        raise NoAnswerError("what a link names is no URL") from error


def _http_url(url: str) -> yarl.URL:
    try:
        found = yarl.URL(url, encoded=True)
        usable = found.scheme in ("http", "https") and bool(found.host) and url.isascii() and url.isprintable()
    except ValueError:
        usable = False
    if not usable:
        raise NoAnswerError("what a link names is no http or https URL")
    return found

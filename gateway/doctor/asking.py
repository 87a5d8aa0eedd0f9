"""Requests as a client sends them that was redirected to a storage: with nothing but the URL."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import AsyncIterator, Mapping

import aiohttp
import yarl
from multidict import CIMultiDictProxy

_MOST_READ = 4096
"""Bytes of a body that are looked at."""
_CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,64})</Code>")


class NoAnswerError(Exception):
    """The server does not answer. The message says why, and holds nothing of the URL but the host."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered."""

    status: int
    headers: CIMultiDictProxy[str]
    beginning: bytes
    """Of the body."""
    before: float
    """Our time when it was asked, in seconds since the epoch."""
    after: float
    """Our time when the header was here."""

    @property
    def succeeded(self) -> bool:
        """Whether it gave what was asked for."""
        return 200 <= self.status < 300

    def __str__(self) -> str:
        """The status, and the name of the error as S3 and others write it."""
        code = _CODE.search(self.beginning)
        return f"{self.status} {code[1].decode()}" if code and not self.succeeded else str(self.status)


class Asking:
    """Sends requests. Certificates are verified as this machine does it, redirects are not followed."""

    def __init__(self, session: aiohttp.ClientSession, seconds: float) -> None:
        self._session = session
        self._seconds = seconds

    async def ask(self, method: str, url: str, headers: Mapping[str, str]) -> Answer:
        """Ask ``url``, which is sent byte for byte.

        Raises:
            NoAnswerError: nothing that is HTTP came back in time.
        """
        before = time.time()
        try:
            async with self._session.request(
                method, yarl.URL(url, encoded=True), headers=headers, allow_redirects=False
            ) as response:
                after = time.time()
                beginning = b"" if method == "HEAD" else await response.content.read(_MOST_READ)
                return Answer(response.status, response.headers, beginning, before, after)
        except aiohttp.ClientConnectorCertificateError as error:
            raise NoAnswerError(
                f"its certificate is not one that this machine trusts: {error.certificate_error}"
            ) from error
        except aiohttp.ClientConnectorError as error:
            raise NoAnswerError(f"cannot be connected to: {error.os_error}") from error
        except TimeoutError as error:
            raise NoAnswerError(f"did not answer within {self._seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            # The messages of others quote the URL.
            raise NoAnswerError(f"gave no answer: {type(error).__name__}") from error


@contextlib.asynccontextmanager
async def asking(seconds: float) -> AsyncIterator[Asking]:
    """A client that waits for each answer at most so long."""
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=seconds),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity", "User-Agent": "download-gateway-doctor"},
    ) as session:
        yield Asking(session, seconds)

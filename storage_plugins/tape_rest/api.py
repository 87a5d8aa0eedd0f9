"""A client of the WLCG Tape REST API, version 1: the reference document of the WLCG's storage providers (2022).

What sites differ in: EOS leaves files of which it knows nothing without a locality, dCache ignores what it does not
know of a request, and some answer 200 where the document has 201.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

import aiohttp

from gateway.errors import ConfigurationError
from gateway.storage import CopyUnavailableError
from gateway.text import escaped
from storage_plugins.http.message import parse_url
from storage_plugins.staging import RefusedError
from storage_plugins.tape_rest.options import Options
from storage_plugins.tape_rest.token import Token

WELL_KNOWN = "/.well-known/wlcg-tape-rest-api"
_SECONDS = 30
"""That an answer may take."""
_MOST_BYTES = 8 * 1024 * 1024
"""Of an answer."""
_OF_SOME = (400, 403, 413, 422)
"""Statuses that may be about some of the files of a request, while others can be had."""
_BELIEVED_SECONDS = 3600
"""That the place of the API is remembered."""
_ERROR_CHARACTERS = 300


class GoneError(CopyUnavailableError):
    """The site knows no such request (any more)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Locality:
    """Where a file is."""

    locality: str | None
    """DISK, TAPE, DISK_AND_TAPE, LOST, NONE, UNAVAILABLE; None where the site does not say."""
    error: str | None


class TapeApi:
    """Asks one site."""

    def __init__(self, options: Options, token: Token) -> None:
        """Ask nobody yet.

        Raises:
            ConfigurationError: the ``ca_file`` cannot be used.
        """
        self._options = options
        self._token = token
        try:
            self._tls = ssl.create_default_context(cafile=options.ca_file)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"ca_file: {options.ca_file} cannot be read as certificates in PEM") from error
        self._session: aiohttp.ClientSession | None = None
        self._found: tuple[str, float] | None = None
        self._finding = asyncio.Lock()

    async def archiveinfo(self, paths: Sequence[str]) -> dict[str, Locality]:
        """Where files are, by their paths; of some it may say nothing.

        Raises:
            RefusedError: some of them may not be asked after.
            CopyUnavailableError: the site does not answer, or not so.
        """
        answer = await self._ask("POST", "/archiveinfo", {"paths": list(paths)})
        if not isinstance(answer, list):
            raise CopyUnavailableError("archiveinfo: the answer is no JSON array")
        found = {}
        for entry in answer:
            if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
                raise CopyUnavailableError("archiveinfo: the answer has an entry without a path")
            locality = entry.get("locality")
            found[entry["path"]] = Locality(locality if isinstance(locality, str) else None, _error(entry))
        return found

    async def stage(self, lifetimes: Mapping[str, float]) -> str:
        """Ask that files be on disk, each for its seconds; gives the id of the request.

        Raises:
            RefusedError, CopyUnavailableError: see `archiveinfo`.
        """
        files = [{"path": path, "diskLifetime": _duration(seconds)} for path, seconds in lifetimes.items()]
        answer = await self._ask("POST", "/stage", {"files": files})
        found = answer.get("requestId") if isinstance(answer, dict) else None
        if not isinstance(found, str) or not found:
            raise CopyUnavailableError("stage: the answer has no requestId")
        return found

    async def progress(self, request_id: str) -> dict[str, Mapping[str, Any]]:
        """What the site says of each file of a request, by its path: ``error``, ``onDisk``, ``state``.

        Raises:
            GoneError: it does not know the request.
            CopyUnavailableError: see `archiveinfo`.
        """
        answer = await self._ask("GET", f"/stage/{quote(request_id, safe='')}")
        files = answer.get("files") if isinstance(answer, dict) else None
        if not isinstance(files, list):
            raise CopyUnavailableError("stage: the answer has no array 'files'")
        return {
            file["path"]: {**file, "error": _error(file)}
            for file in files
            if isinstance(file, dict) and isinstance(file.get("path"), str)
        }

    async def let_go(self, request_id: str, paths: Sequence[str], how: Literal["release", "cancel"]) -> None:
        """Tell that files of a request are needed no more: ``release`` those on disk, ``cancel`` those on their way.

        Raises:
            GoneError: it does not know the request.
            CopyUnavailableError: see `archiveinfo`.
        """
        named = quote(request_id, safe="")
        where = f"/release/{named}" if how == "release" else f"/stage/{named}/cancel"
        await self._ask("POST", where, {"paths": list(paths)}, empty=True)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, method: str, where: str, body: object = None, *, empty: bool = False) -> Any:
        base = await self._base()
        status, answer = await self._send(method, base + where, body)
        what = f"{method} {base}{where}"
        if status == 404 and where.startswith(("/stage/", "/release/")):
            raise GoneError(f"{what}: the site answers 404{_detail(answer)}")
        if not 200 <= status < 300:
            if status == 404:
                self._found = None  # It may have moved.
            kind = RefusedError if status in _OF_SOME else CopyUnavailableError
            raise kind(f"{what}: the site answers {status}{_detail(answer)}")
        if empty:
            return None
        try:
            return json.loads(answer)
        except (ValueError, RecursionError) as error:
            raise CopyUnavailableError(f"{what}: the answer is no JSON") from error

    async def _base(self) -> str:
        if self._options.api is not None:
            return self._options.api
        async with self._finding:
            if self._found is None or self._found[1] < time.monotonic():
                self._found = await self._discover(), time.monotonic() + _BELIEVED_SECONDS
            return self._found[0]

    async def _discover(self) -> str:
        """The base of version 1, as the site tells it."""
        target = self._options.target
        url = f"{target.scheme}://{target.authority}{WELL_KNOWN}"
        status, answer = await self._send("GET", url)
        if status != 200:
            raise CopyUnavailableError(f"GET {url}: the site answers {status}")
        try:
            [uri] = [
                endpoint["uri"] for endpoint in json.loads(answer)["endpoints"] if endpoint.get("version") == "v1"
            ][:1]
            found = parse_url(uri)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CopyUnavailableError(f"GET {url}: the site tells no endpoint of version v1") from error
        if not self._options.trusts(found):
            raise CopyUnavailableError(f"GET {url}: leads to {found.shown}, which is at none of the option hosts")
        return str(uri).rstrip("/")

    async def _send(self, method: str, url: str, body: object = None) -> tuple[int, bytes]:
        fields = {"Accept": "application/json", **await self._token.fields()}
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls, limit=16),
                timeout=aiohttp.ClientTimeout(total=_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        try:
            async with self._session.request(method, url, json=body, headers=fields, allow_redirects=False) as response:
                answer = bytearray()
                async for piece in response.content.iter_any():
                    answer += piece
                    if len(answer) > _MOST_BYTES:
                        raise CopyUnavailableError(f"{method} {url}: answers more than {_MOST_BYTES} bytes")
                return response.status, bytes(answer)
        except TimeoutError as error:
            raise CopyUnavailableError(f"{method} {url}: no answer within {_SECONDS} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise CopyUnavailableError(f"{method} {url}: {type(error).__name__}: {error}") from error


def _duration(seconds: float) -> str:
    """In whole hours, as ISO 8601 has it."""
    return f"PT{max(1, math.ceil(seconds / 3600))}H"


def _error(entry: Mapping[str, Any]) -> str | None:
    error = entry.get("error")
    return escaped(error, _ERROR_CHARACTERS) if isinstance(error, str) and error else None


def _detail(answer: bytes) -> str:
    """What a problem says of itself (RFC 9457): title and detail."""
    try:
        problem = json.loads(answer)
        texts = [problem[name] for name in ("title", "detail") if isinstance(problem.get(name), str)]
    except (ValueError, AttributeError, RecursionError):
        return ""
    return f": {escaped(': '.join(texts), _ERROR_CHARACTERS)}" if texts else ""

"""Copies behind HTTP servers: what HEAD says of them, and their bytes by range requests (RFC 9110 §14)."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from urllib.parse import quote

from multidict import CIMultiDictProxy

from gateway.http.conditional import parse_entity_tag
from gateway.http.dates import parse_http_date
from gateway.storage import (
    ByteStream,
    CopyChangedError,
    CopyNotFoundError,
    CopyUnavailableError,
    Descriptor,
    Stat,
    StorageError,
)
from storage_plugins.http.client import HttpAnswer, HttpClient
from storage_plugins.http.message import declared_length

Explain = Callable[[int, Mapping[str, str], bytes], StorageError | None]
"""What a refusal means to a kind of storage that knows more than its status: from the status, the header fields and up
to 4 KiB of the body (none for HEAD); None leaves it to the general rule."""

_NO_FIELDS: Mapping[str, str] = MappingProxyType({})
_EXPLANATION_BYTES = 4096
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", re.IGNORECASE)
_EXPLANATION_SECONDS = 2.0
_OPAQUE = re.compile("[\x21\x23-\x7e\x80-\xff]+")
"""What may stand between the quotes of an entity-tag in a field that can be sent (RFC 9110 §8.8.3)."""
_WEAK = "W/"
"""What the version of a copy without a strong entity-tag starts with."""


class HttpStream:
    """Bytes of a copy from the body of an answer; see `gateway.storage.ByteStream`."""

    def __init__(self, answer: HttpAnswer, stat: Stat) -> None:
        self._answer = answer
        self.stat = stat

    async def read(self) -> bytes:
        """See `gateway.storage.ByteStream.read`. One that is cancelled leaves nothing to do but to close."""
        return await self._answer.read()

    def close(self) -> None:
        """See `gateway.storage.ByteStream.close`."""
        self._answer.close()


class HttpSocketStream(HttpStream):
    """The same over a plain connection; see `gateway.storage.OnSocket`."""

    def socket(self) -> Descriptor:
        """See `gateway.storage.OnSocket.socket`."""
        return self._answer.socket()

    def took(self, count: int) -> None:
        """See `gateway.storage.OnSocket.took`."""
        self._answer.took(count)


class HttpSecureStream(HttpStream):
    """The same over TLS; see `gateway.storage.AtOnce`."""

    def waits_on(self) -> Descriptor:
        """See `gateway.storage.AtOnce.waits_on`."""
        return self._answer.waits_on()

    def read_at_once(self) -> bytes:
        """See `gateway.storage.AtOnce.read_at_once`."""
        return self._answer.read_at_once()


async def stat(
    client: HttpClient,
    url: str,
    *,
    name: str,
    headers: Mapping[str, str] = _NO_FIELDS,
    explain: Explain | None = None,
    any_coding: bool = False,
) -> Stat:
    """Describe the copy at ``url`` by HEAD.

    Args:
        client: asks.
        url: is sent byte for byte.
        name: what errors call the copy; without a signature.
        headers: fields to send, an authorization for instance.
        explain: sees refusals first.
        any_coding: the server sends bytes as they are stored, whatever Content-Encoding says of them.

    Raises:
        CopyNotFoundError, CopyUnavailableError: see these; or what ``explain`` returned.
    """
    fields = await head(client, url, name=name, headers=headers, explain=explain, any_coding=any_coding)
    size = _length(fields)
    if size is None:
        raise CopyUnavailableError(f"{name}: the server does not tell its size")
    return describe(fields, size)


async def head(
    client: HttpClient,
    url: str,
    *,
    name: str,
    headers: Mapping[str, str] = _NO_FIELDS,
    explain: Explain | None = None,
    any_coding: bool = False,
) -> CIMultiDictProxy[str]:
    """The header fields that answer a HEAD of the copy at ``url``. Arguments and errors are those of `stat`."""
    answer = await client.request("HEAD", url, headers)
    with contextlib.closing(answer):
        if answer.status != 200:
            raise await _refusal(client, answer, name, explain)
        _check_coding(answer, name, any_coding=any_coding)
        return answer.headers


async def stream_range(
    client: HttpClient,
    url: str,
    start: int,
    stop: int,
    version: str | None,
    *,
    name: str,
    headers: Mapping[str, str] = _NO_FIELDS,
    explain: Explain | None = None,
    any_coding: bool = False,
) -> ByteStream:
    """Ask for the bytes from ``start`` up to, not including, ``stop``, at least one; see `gateway.storage.CanStream`.

    The answer must be of ``version`` (see `describe`), if that is given, and promise exactly these bytes. What it
    returns is `gateway.storage.OnSocket` if the connection is a plain one. The other arguments are those of `stat`.

    Raises:
        CopyNotFoundError, CopyUnavailableError: see these; or what ``explain`` returned.
        CopyChangedError: it has another version, or ends before ``stop``.
    """
    fields = {**headers, "Range": f"bytes={start}-{stop - 1}"}
    if version is not None and _is_strong(version):
        fields["If-Match"] = f'"{version}"'
    answer = await client.request("GET", url, fields)
    try:
        if answer.status not in (200, 206):
            raise await _refusal(client, answer, name, explain)
        _check_coding(answer, name, any_coding=any_coding)
        first, last, size = _promised(answer, name)
        found = describe(answer.headers, size)
        if version is not None and found.version != version:
            raise CopyChangedError(f"{name}: has the version {found.version!r} instead of {version!r}")
        if size < stop:
            raise CopyChangedError(f"{name}: has {size} bytes, at least {stop} were expected")
        if (first, last) != (start, stop - 1):
            asked = f"bytes {start}-{stop - 1} were asked for"
            raise CopyUnavailableError(f"{name}: {asked}, the server sends {first}-{last}")
    except BaseException:
        answer.close()
        raise
    return HttpSocketStream(answer, found) if answer.is_on_socket else HttpSecureStream(answer, found)


def describe(headers: CIMultiDictProxy[str], size: int) -> Stat:
    """What the header fields of an answer say of a copy of ``size`` bytes.

    The version is the strong entity-tag, without its quotes. Servers that have none are taken at their word that bytes
    with the same weak tag, date and size are the same; such a version starts with ``W/``.
    """
    tags, dates = headers.getall("ETag", []), headers.getall("Last-Modified", [])
    tag = parse_entity_tag(tags[0]) if len(tags) == 1 else None
    date = ", ".join(dates)
    modified = parse_http_date(date, datetime.datetime.now(datetime.UTC))
    if tag is not None and not tag.weak and _is_strong(tag.opaque):
        return Stat(size, modified, tag.opaque)
    # Quoted, so that it can be an entity-tag itself.
    return Stat(size, modified, f"{_WEAK}{quote(', '.join(tags), safe='')}/{quote(date, safe='')}/{size}")


def _is_strong(version: str) -> bool:
    return not version.startswith(_WEAK) and _OPAQUE.fullmatch(version) is not None


def _promised(answer: HttpAnswer, name: str) -> tuple[int, int, int]:
    """The first and the last byte that the answer is to give, and the size of the whole copy."""
    length = _length(answer.headers)
    if not length:
        raise CopyUnavailableError(f"{name}: the server does not tell how many bytes it sends, or sends none")
    if answer.status == 200:
        return 0, length - 1, length
    found = _CONTENT_RANGE.fullmatch(", ".join(answer.headers.getall("Content-Range", [])))
    if found is None:
        raise CopyUnavailableError(f"{name}: the server does not tell which bytes it sends")
    first, last, size = map(int, found.groups())
    if not first <= last < size or length != last + 1 - first:
        raise CopyUnavailableError(f"{name}: the server sends {length} bytes as those from {first} to {last} of {size}")
    return first, last, size


def _length(headers: CIMultiDictProxy[str]) -> int | None:
    return None if "Transfer-Encoding" in headers else declared_length(headers)


def _check_coding(answer: HttpAnswer, name: str, *, any_coding: bool) -> None:
    codings = {
        coding.strip().lower() for field in answer.headers.getall("Content-Encoding", []) for coding in field.split(",")
    }
    if not any_coding and codings - {"", "identity"}:
        raise CopyUnavailableError(f"{name}: the server encodes the bytes, though it was asked not to")


async def _refusal(client: HttpClient, answer: HttpAnswer, name: str, explain: Explain | None) -> StorageError:
    body = await _beginning(answer, client.header_timeout)
    if explain is not None and (error := explain(answer.status, answer.headers, body)) is not None:
        return error
    status = answer.status
    if status in (404, 410):
        return CopyNotFoundError(f"{name}: the server answers {status}, there is nothing")
    if status in (412, 416):
        return CopyChangedError(f"{name}: the server answers {status}, it has another version or fewer bytes")
    if 300 <= status < 400:
        return CopyUnavailableError(f"{name}: the server answers {status}; redirects are not followed")
    if status in (401, 403):
        return CopyUnavailableError(f"{name}: the server answers {status}, it may not be read")
    return CopyUnavailableError(f"{name}: the server answers {status}")


async def _beginning(answer: HttpAnswer, seconds: float) -> bytes:
    """As much of the body as explains a refusal. If it is all, the connection can be used again."""
    body = b""
    with contextlib.suppress(TimeoutError, CopyUnavailableError):
        async with asyncio.timeout(min(seconds, _EXPLANATION_SECONDS)):
            while len(body) < _EXPLANATION_BYTES and (piece := await answer.read()):
                body += piece
    return body[:_EXPLANATION_BYTES]

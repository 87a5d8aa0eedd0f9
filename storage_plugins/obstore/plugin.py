"""Copies in Google Cloud Storage and Azure Blob Storage, through the library obstore.

Needs the extra ``obstore``: ``pip install 'download-gateway[obstore]'``. Options are described in
`storage_plugins.obstore.options`. S3 works through obstore as well, but the plug-in ``s3`` does more for it.

URLs are signed with the account key of Azure or the key file of a Google service account, by ourselves: obstore's own
signatures say nothing of Content-Type and Content-Disposition, and those for Azure are wrong for names that have to be
percent-encoded. A storage with other credentials (a machine's identity, a lent token) is streamed from.

What obstore does not do, as of its version 0.12:

- It has no way to ask for names with empty segments, a slash at either end, or control characters. Names with a
  backslash are refused as well: Azure takes it for a slash.
- It follows redirects of the store, and retries as it likes: a read that broke goes on where it ended, of the same
  entity-tag. Deadlines hold all the same.
- It restores nothing: archived blobs of Azure are told to be offline.

An object of Google's that is stored with ``Content-Encoding: gzip`` is given as it is stored, not unpacked on the way;
a client that is redirected may get it unpacked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Literal
from urllib.parse import quote, unquote

from gateway.http.conditional import parse_entity_tag
from gateway.storage import CopyChangedError, CopyNotFoundError, CopyUnavailableError, SignedUrl, Stat

try:
    import obstore
except ImportError as missing:
    raise ImportError("the library obstore is missing: pip install 'download-gateway[obstore]'") from missing

from obstore.store import ObjectStore

from storage_plugins.obstore.errors import asking
from storage_plugins.obstore.options import DEFAULT_TIMEOUT, Options, Start, has_dot_segments, is_askable
from storage_plugins.obstore.signing import LONGEST_LIFETIME, Signer, Wish, signer_of

PIECE_BYTES = 256 * 1024
"""Of a stream at a time, at least. Each costs a change of threads: TLS alone would give 16 KiB at once."""
_LETTING_GO_SECONDS = 0.05
_WEAK = "W/"
"""What the version of an object without a strong entity-tag starts with."""


class ObstoreStream:
    """Bytes of an object on their way; see `gateway.storage.ByteStream`."""

    def __init__(self, name: str, stat: Stat, count: int, pieces: AsyncIterator[bytes], timeout: float) -> None:
        self.stat = stat
        self._name = name
        self._left = count
        self._pieces: AsyncIterator[bytes] | None = pieces
        self._timeout = timeout

    async def read(self) -> bytes:
        """See `gateway.storage.ByteStream.read`."""
        if self._pieces is None:
            raise RuntimeError(f"{self._name}: the stream is closed")
        if not self._left:
            return b""
        async with asking(self._name, self._timeout):
            piece = await anext(self._pieces, b"")
        if not piece or len(piece) > self._left:
            problem = "ended early" if not piece else "gave more than was asked for"
            raise CopyUnavailableError(f"{self._name}: the store {problem}, {self._left} bytes from the end")
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        """See `gateway.storage.ByteStream.close`: a stream without an owner closes its connection."""
        self._pieces = None


class ObstoreStorage:
    """Objects below a prefix of a bucket or container. A location is what the object's name has after the prefix."""

    def __init__(
        self,
        name: str,
        store: ObjectStore,
        *,
        prefix: str = "",
        starts: tuple[Start, ...] = (),
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        self.name = name
        self._open_store: ObjectStore | None = store
        self._prefix = prefix
        self._starts = starts
        self._timeout = timeout

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, object]) -> ObstoreStorage:
        """See `gateway.storage.Storage.from_options`. What it makes can sign where the store and its options can."""
        parsed = Options.parse(options)
        store = parsed.open_store()
        signer, starts, timeout = signer_of(store), parsed.starts(store), parsed.timeout
        if signer is None:
            return cls(name, store, prefix=parsed.prefix, starts=starts, timeout=timeout)
        return SigningObstoreStorage(name, store, signer, prefix=parsed.prefix, starts=starts, timeout=timeout)

    def locate(self, href: str) -> str | None:
        """The location of an href that is below ``url``, letter for letter, or below its ``https`` form.

        Raises:
            ValueError: it has a segment ``.`` or ``..``, or cannot be asked for.
        """
        for start in self._starts:
            if href.startswith(start.text):
                key = _decoded(href[len(start.text) :]) if start.encoded else href[len(start.text) :]
                if key is None or not key.startswith(self._prefix) or key == self._prefix:
                    return None
                location = key.removeprefix(self._prefix)
                if has_dot_segments(location) or not is_askable(location):
                    raise ValueError("the name has an empty segment, '.', '..', a backslash or a control character")
                return location
        return None

    async def stat(self, location: str) -> Stat:
        """See `gateway.storage.CanStat.stat`.

        Raises:
            ValueError: the location has a segment ``.`` or ``..``.
        """
        key = self._key(location)
        async with asking(location, self._timeout):
            return describe(await obstore.head_async(self._store, key))

    async def stream(self, location: str, start: int, stop: int, version: str | None) -> ObstoreStream:
        """See `gateway.storage.CanStream.stream`.

        Raises:
            ValueError: the location has a segment ``.`` or ``..``.
        """
        key = self._key(location)
        options: obstore.GetOptions = {"range": (start, stop)}
        if version is not None and not version.startswith(_WEAK):
            options["if_match"] = f'"{version}"'
        async with asking(location, self._timeout):
            result = await obstore.get_async(self._store, key, options=options)
        stat = describe(result.meta)
        if version is not None and stat.version != version:
            raise CopyChangedError(f"{location}: has the version {stat.version!r} instead of {version!r}")
        if stat.size < stop:
            raise CopyChangedError(f"{location}: has {stat.size} bytes, at least {stop} were expected")
        if result.range != (start, stop):
            given = "{}-{}".format(*result.range)
            raise CopyUnavailableError(f"{location}: bytes {start}-{stop} were asked for, the store gives {given}")
        pieces = result.stream(min_chunk_size=PIECE_BYTES)
        return ObstoreStream(location, stat, stop - start, pieces, self._timeout)

    async def close(self) -> None:
        """Let go of the connections.

        A thread of obstore that has just given a result needs Python once more to drop it; were the process to end
        right then, it would abort. There is nothing to wait for but time.
        """
        if self._open_store is not None:
            self._open_store = None
            await asyncio.sleep(_LETTING_GO_SECONDS)

    @property
    def _store(self) -> ObjectStore:
        if self._open_store is None:
            raise RuntimeError(f"storage {self.name!r} is closed")
        return self._open_store

    def _key(self, location: str) -> str:
        if has_dot_segments(location):
            raise ValueError(f"location {location!r} has a segment '.' or '..'")
        if not is_askable(location):
            raise CopyNotFoundError(f"{location!r}: is no name that can be asked for")
        return self._prefix + location


class SigningObstoreStorage(ObstoreStorage):
    """The same with a key of its own, so that nobody has to be asked for a signature."""

    def __init__(
        self,
        name: str,
        store: ObjectStore,
        signer: Signer,
        *,
        prefix: str = "",
        starts: tuple[Start, ...] = (),
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        super().__init__(name, store, prefix=prefix, starts=starts, timeout=timeout)
        self._signer = signer

    async def sign(
        self,
        location: str,
        *,
        method: Literal["GET", "HEAD"],
        lifetime: float,
        content_type: str | None = None,
        disposition: str | None = None,
    ) -> SignedUrl:
        """See `gateway.storage.CanSign.sign`. Whole seconds, at least one and no more than 7 days of them.

        Raises:
            CopyUnavailableError: on Azure, for HEAD: a URL that reads would give the bytes, too.
            ValueError: the location has a segment ``.`` or ``..``.
        """
        key = self._key(location)
        seconds = max(1, min(int(lifetime), LONGEST_LIFETIME))
        wish = Wish(key, method, seconds, content_type, disposition)
        async with asking(location, self._timeout):
            return SignedUrl(await self._signer(wish), seconds)


def describe(meta: obstore.ObjectMeta) -> Stat:
    """What a store says of an object.

    The version is the strong entity-tag, without its quotes. Stores that have none are taken at their word that bytes
    with the same weak tag, date and size are the same; such a version starts with ``W/``.
    """
    size, modified, text = meta["size"], meta["last_modified"], meta["e_tag"] or ""
    tag = parse_entity_tag(text)
    if tag is not None and tag.opaque and not tag.weak and not tag.opaque.startswith(_WEAK):
        return Stat(size, modified, tag.opaque)
    return Stat(size, modified, f"{_WEAK}{quote(text, safe='')}/{modified.timestamp():.6f}/{size}")


def _decoded(path: str) -> str | None:
    """The name that the rest of a URL says; None if it says more than a name."""
    return None if "?" in path or "#" in path else unquote(path, errors="strict")

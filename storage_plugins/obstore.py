"""Copies in Google Cloud Storage and Azure Blob Storage, through the library obstore.

Needs the extra ``obstore``: ``pip install 'download-gateway[obstore]'``. Options are described in
`storage_plugins.obstore_options`. S3 works through obstore as well, but the plug-in ``s3`` does more for it.

What obstore does not do, as of its version 0.12:

- A signed URL says nothing of Content-Type and Content-Disposition (Google's ``response-content-type``, Azure's
  ``rsct`` and their like): a client that is redirected gets the type that is stored with the object, and takes the
  file's name from the URL. With ``delivery = "stream"`` both are those of the catalogue.
- It signs some names wrongly: `SigningObstoreStorage.sign` refuses these rather than hand out a URL of another object
  or one that does not work.
- It does not tell when credentials end that were lent to it, so a signed URL may end with them before its time.
- It has no way to ask for names with empty segments, a slash at either end, or control characters.
- It follows redirects of the store, and retries as it likes: a read that broke goes on where it ended, of the same
  entity-tag. Deadlines hold all the same.

An object of Google's that is stored with ``Content-Encoding: gzip`` is given as it is stored, not unpacked on the way;
a client that is redirected may get it unpacked. Restoring archived blobs is not offered; Azure's are told to be
offline.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Mapping
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

from gateway.http.conditional import parse_entity_tag
from gateway.storage import CopyChangedError, CopyNotFoundError, CopyUnavailableError, SignedUrl, Stat

try:
    import obstore
except ImportError as missing:
    raise ImportError("the library obstore is missing: pip install 'download-gateway[obstore]'") from missing

from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from storage_plugins.obstore_errors import asking
from storage_plugins.obstore_options import (
    DEFAULT_TIMEOUT,
    GOOGLE,
    Options,
    Start,
    has_dot_segments,
    is_askable,
    settings_of,
)

PIECE_BYTES = 256 * 1024
"""Of a stream at a time, at least. Each costs a change of threads: TLS alone would give 16 KiB at once."""
LONGEST_LIFETIME = 604800
"""Seconds that Google and Amazon let a signed URL live; Azure does the same where the key itself is lent."""
_UNSIGNABLE = frozenset({"sas_key", "bearer_token", "base_url"})
"""Settings without a key of their own; and another base than Google's, for whose host obstore signs all the same."""
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
        kind = SigningObstoreStorage if can_sign(store) else cls
        return kind(name, store, prefix=parsed.prefix, starts=parsed.starts(store), timeout=parsed.timeout)

    def locate(self, href: str) -> str | None:
        """The location of an href that is below ``url``, letter for letter, or below its ``https`` form.

        Raises:
            ValueError: it is one that obstore cannot ask for, or has a segment ``.`` or ``..``.
        """
        for start in self._starts:
            if href.startswith(start.text):
                key = _decoded(href[len(start.text) :]) if start.encoded else href[len(start.text) :]
                if key is None or not key.startswith(self._prefix) or key == self._prefix:
                    return None
                location = key.removeprefix(self._prefix)
                if has_dot_segments(location) or not is_askable(location):
                    raise ValueError("the name has an empty segment, '.', '..' or a control character")
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
            raise CopyNotFoundError(f"{location!r}: is no name that obstore can ask for")
        return self._prefix + location


class SigningObstoreStorage(ObstoreStorage):
    """The same with credentials that can sign: a service account of Google's, an account key or a lent one of Azure."""

    async def sign(
        self,
        location: str,
        *,
        method: Literal["GET", "HEAD"],
        lifetime: float,
        content_type: str | None = None,  # noqa: ARG002 - obstore has no way to sign it
        disposition: str | None = None,  # noqa: ARG002
    ) -> SignedUrl:
        """See `gateway.storage.CanSign.sign`. ``content_type`` and ``disposition`` are without effect.

        Without a key of its own (a machine's identity, an OAuth token) obstore asks the store to sign each URL.

        Raises:
            CopyUnavailableError: there are no credentials to sign with; or obstore cannot sign this, which is so on
                Azure for HEAD (a URL that reads would give the bytes, too) and for names with a space, ``%``, ``#``,
                ``?`` or other than ASCII characters (it signs them percent-encoded, Azure compares them decoded).
            ValueError: the location has a segment ``.`` or ``..``.
        """
        key, store = self._key(location), self._store
        on_azure = isinstance(store, AzureStore)
        if not isinstance(store, AzureStore | GCSStore | S3Store) or (on_azure and method == "HEAD"):
            raise CopyUnavailableError(f"{location}: obstore cannot sign {method} for this store")
        seconds = max(1, min(int(lifetime), LONGEST_LIFETIME))
        # For Google it puts the name into the URL just as it is, so that '?', '#' and '%' would get another meaning.
        path = quote(key, safe="/~") if isinstance(store, GCSStore) else key
        async with asking(location, self._timeout):
            url = await obstore.sign_async(store, method, path, datetime.timedelta(seconds=seconds))
        named = urlsplit(url).path
        if not (named if on_azure else unquote(named)).endswith(f"/{key}"):
            raise CopyUnavailableError(f"{location}: obstore cannot sign such a name")
        if isinstance(store, GCSStore) and not url.startswith(f"{GOOGLE}/"):
            raise CopyUnavailableError(f"{location}: obstore signs for {GOOGLE} only")
        return SignedUrl(url, seconds)


def can_sign(store: ObjectStore) -> bool:
    """Whether the store has signed URLs and its options are not such that obstore cannot make any."""
    if not isinstance(store, AzureStore | GCSStore | S3Store):
        return False
    settings = settings_of(store)
    unsigned = settings.get("skip_signature", "false").lower() not in ("0", "false", "off", "no", "n")
    return not unsigned and _UNSIGNABLE.isdisjoint(settings)


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

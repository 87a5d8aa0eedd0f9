"""Objects of S3: of Amazon's, and of Ceph, Swift, MinIO and others that speak the same."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import functools
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from gateway.storage import (
    ByteStream,
    CopyNotFoundError,
    SignedUrl,
    StageState,
    Stat,
    StorageError,
    ToStage,
)
from storage_plugins.http import copies as http_copies
from storage_plugins.http.client import HttpClient
from storage_plugins.s3.archive import hours_of, request_of, state_of
from storage_plugins.s3.buckets import has_dot_segments, location_of
from storage_plugins.s3.credentials import CredentialSource, RefreshedCredentials, StaticCredentials, seconds_left
from storage_plugins.s3.endpoint import Endpoint
from storage_plugins.s3.options import Options
from storage_plugins.s3.refusals import error_code, explanation, refuses_credentials
from storage_plugins.s3.sigv4 import MOST_SECONDS, Credentials, Origin, Signer, encoded_path
from storage_plugins.staging import RefusedError, side_by_side

if TYPE_CHECKING:
    from storage_plugins.s3.keeping import Keeper
    from storage_plugins.s3.restore import Restorer

_OWN_SECONDS = 300
"""That the URLs work by which the gateway itself fetches: so far may its clock be behind that of the server."""


class _UntoldError(StorageError):
    """S3 refused a HEAD, whose answer has no body that would tell why."""


class S3Storage:
    """Objects in some buckets. A location is ``bucket/key`` as ``s3://`` hrefs name it, wherever the object lies today.

    Options: ``region``; ``buckets``, a list of ``bucket`` or ``bucket/prefix`` with all that it serves, or a table from
    such names to the buckets and prefixes that hold them today, the longest name winning; ``endpoint`` (default
    Amazon's of the region), and ``public_endpoint`` where clients reach it by another URL; ``addressing``, ``path`` or
    ``virtual`` (default ``virtual`` for Amazon, ``path`` for others); ``access_key_id`` and ``secret_access_key`` with
    ``session_token`` if need be, otherwise the AWS chain gives credentials, of ``profile`` if that is set; ``ca_file``,
    certificates to trust instead of the system's; ``restore_tier``, ``Standard`` (default), ``Bulk`` or ``Expedited``;
    ``restore_hours``, what a restore takes if that is not what Amazon publishes;
    ``scratch``, absolute path of a folder for new files where the cache of restored copies lies here (below the first
    of ``buckets``).
    """

    in_place = True
    stage_batch = 100

    def __init__(
        self, name: str, options: Options, source: CredentialSource, now: Callable[[], float] = time.time
    ) -> None:
        """Make the storage, which connects to nobody yet.

        Args:
            name: of its table.
            options: of its table.
            source: gives the credentials to sign with. The storage closes it.
            now: the clock, in seconds since the epoch.

        Raises:
            ConfigurationError: the ``ca_file`` cannot be used.
        """
        self.name = name
        self._options = options
        self._source = source
        self._now = now
        self._client = HttpClient(ca_file=options.ca_file)
        self._signer = Signer(options.region)
        self._roots = _roots(options.endpoint, options)
        self._public_roots = _roots(options.public_endpoint, options)
        self._restorer: Restorer | None = None
        self._keeper: Keeper | None = None
        self.scratch = options.scratch
        self.base = options.buckets.first

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, object]) -> Self:
        """See `gateway.storage.Storage.from_options`."""
        parsed = Options.parse(options)
        return cls(name, parsed, _source(parsed))

    def locate(self, href: str) -> str | None:
        """The ``bucket/key`` of an ``s3://`` href that lies in one of the buckets.

        Raises:
            ValueError: the key has a segment ``.`` or ``..``.
        """
        location = location_of(href)
        return None if location is None or self._options.buckets.find(location) is None else location

    async def stat(self, location: str) -> Stat:
        """See `gateway.storage.CanStat`. An archived object has its size and version, too."""
        bucket, key = self._object(location)
        name = f"s3://{bucket}/{key}"
        credentials = await self._source.credentials(_OWN_SECONDS)
        signed = self._signed("HEAD", self._roots[bucket], key, credentials, lifetime=_OWN_SECONDS)
        explain = functools.partial(self._explain, name, credentials)
        return await http_copies.stat(self._client, signed.url, name=name, explain=explain, any_coding=True)

    async def stream(self, location: str, start: int, stop: int, version: str | None) -> ByteStream:
        """See `gateway.storage.CanStream`."""
        bucket, key = self._object(location)
        name = f"s3://{bucket}/{key}"
        credentials = await self._source.credentials(_OWN_SECONDS)
        signed = self._signed("GET", self._roots[bucket], key, credentials, lifetime=_OWN_SECONDS)
        explain = functools.partial(self._explain, name, credentials)
        return await http_copies.stream_range(
            self._client, signed.url, start, stop, version, name=name, explain=explain, any_coding=True
        )

    async def sign(
        self,
        location: str,
        *,
        method: Literal["GET", "HEAD"],
        lifetime: float,
        content_type: str | None = None,
        disposition: str | None = None,
    ) -> SignedUrl:
        """See `gateway.storage.CanSign`. S3 knows whole seconds only, at least one and no more than 7 days of them."""
        bucket, key = self._object(location)
        credentials = await self._source.credentials(lifetime)
        return self._signed(
            method,
            self._public_roots[bucket],
            key,
            credentials,
            lifetime=lifetime,
            content_type=content_type,
            disposition=disposition,
        )

    async def stage(self, copies: Sequence[ToStage]) -> Mapping[str, StageState]:
        """See `gateway.storage.CanStage`. A restore is asked for in whole days.

        ``ready`` is told of those that this call began: after ``restore_hours``, else what Amazon publishes, which is
        the most that it takes. S3 itself tells nothing, so that what earlier restores took is the better estimate.
        """
        return await side_by_side(copies, self._stage)

    async def staged(self, copies: Sequence[ToStage]) -> Mapping[str, StageState]:
        """See `gateway.storage.CanStage`."""
        return await side_by_side(copies, self._staged)

    async def release(self, copies: Sequence[ToStage]) -> None:
        """Nothing: S3 takes restored copies back after the days that were asked for, and stops no restore."""

    async def keep(self, file: Path, location: str) -> Stat:
        """See `gateway.storage.CanKeep`."""
        bucket, key = self._object(location)
        await (await self._opened_keeper()).put(file, bucket, key)
        stat = await self.stat(location)
        await asyncio.to_thread(file.unlink, missing_ok=True)
        return stat

    async def remove(self, location: str) -> None:
        """See `gateway.storage.CanKeep`."""
        bucket, key = self._object(location)
        await (await self._opened_keeper()).delete(bucket, key)

    async def kept(self, seconds: float) -> AsyncIterator[Sequence[str]]:
        """See `gateway.storage.CanKeep`. Only what lies below the first of ``buckets``."""
        found = self._options.buckets.find(f"{self.base}x")
        assert found is not None  # noqa: S101 - it is below a place
        bucket, prefix = found[0], found[1][:-1]
        async for keys in (await self._opened_keeper()).list(bucket, prefix, seconds):
            yield [self.base + key.removeprefix(prefix) for key in keys]

    async def _opened_keeper(self) -> Keeper:
        if self._keeper is None:
            restorer, keeper = await asyncio.to_thread(_import_keeper)
            self._restorer = self._restorer or restorer(self._options, self._source)
            self._keeper = self._keeper or keeper(self._options, self._restorer)
        return self._keeper

    async def close(self) -> None:
        """Close all connections, and stop fetching credentials."""
        await self._client.close()
        if self._keeper is not None:
            await self._keeper.close()
        await self._source.close()
        if self._restorer is not None:
            await self._restorer.close()

    async def _stage(self, copy: ToStage) -> StageState:
        try:
            fields = await self._head(copy.location)
        except _UntoldError:
            return await self._told(copy.location)
        now = self._time()
        state = state_of(fields, now)
        wanted_until = now + datetime.timedelta(seconds=copy.seconds)
        if state.state == "STAGING" or (state.state == "ONLINE" and (not state.until or state.until >= wanted_until)):
            return state  # To ask again could only have it end sooner.
        if self._restorer is None:
            restorer = await asyncio.to_thread(_import_restorer)
            self._restorer = self._restorer or restorer(self._options, self._source)
        bucket, key = self._object(copy.location)
        wanted = request_of(fields, copy.seconds, self._options.restore_tier)
        state = await self._restorer.restore(bucket, key, wanted, now)
        if state.state == "STAGING":
            hours = self._options.restore_hours or hours_of(fields, self._options.restore_tier)
            return dataclasses.replace(state, ready=now + datetime.timedelta(hours=hours))
        return state

    async def _staged(self, copy: ToStage) -> StageState:
        try:
            return state_of(await self._head(copy.location), self._time())
        except _UntoldError:
            return await self._told(copy.location)

    async def _head(self, location: str) -> Mapping[str, str]:
        """The header fields of the object.

        Raises:
            _UntoldError: it is refused, and with a body that would be explained.
        """
        bucket, key = self._object(location)
        credentials = await self._source.credentials(_OWN_SECONDS)
        signed = self._signed("HEAD", self._roots[bucket], key, credentials, lifetime=_OWN_SECONDS)
        name = f"s3://{bucket}/{key}"

        def explain(status: int, headers: Mapping[str, str], body: bytes) -> StorageError | None:
            return _UntoldError() if status in (403, 404) else self._explain(name, credentials, status, headers, body)

        return await http_copies.head(self._client, signed.url, name=name, explain=explain, any_coding=True)

    async def _told(self, location: str) -> StageState:
        """What it means that HEAD is refused: the answer to GET says it."""
        try:
            (await self.stream(location, 0, 1, None)).close()
        except CopyNotFoundError as error:
            return StageState("FAILED" if "NoSuchBucket" in str(error) else "LOST", error=str(error))
        raise RefusedError(f"s3://{location}: GET is answered, but not HEAD")

    def _time(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self._now(), datetime.UTC)

    def _object(self, location: str) -> tuple[str, str]:
        """The bucket and key that hold a location today."""
        found = self._options.buckets.find(location)
        if found is None or has_dot_segments(location) or not _is_utf8(location):
            raise RefusedError(f"{location!r}: is in none of the buckets of this storage")
        return found

    def _signed(
        self,
        method: str,
        root: tuple[Origin, str],
        key: str,
        credentials: Credentials,
        *,
        lifetime: float,
        content_type: str | None = None,
        disposition: str | None = None,
    ) -> SignedUrl:
        origin, path = root
        now = self._now()
        seconds = max(1, int(min(lifetime, seconds_left(credentials, now), MOST_SECONDS)))
        url = self._signer.presign(
            method,
            origin,
            path + encoded_path(key),
            credentials=credentials,
            now=now,
            seconds=seconds,
            content_type=content_type,
            disposition=disposition,
        )
        # S3 counts from the beginning of this second.
        return SignedUrl(url, math.floor(now) + seconds - now)

    def _explain(
        self, name: str, credentials: Credentials, status: int, headers: Mapping[str, str], body: bytes
    ) -> StorageError | None:
        """What a refusal means; if it is of the credentials, others are fetched before the next request.

        The answer to HEAD has no body that tells: there 400 is what credentials that ended are answered with.
        """
        if refuses_credentials(error_code(body), body) or (status == 400 and not body):
            self._source.refused(credentials)
        return explanation(name, status, headers, body)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _roots(endpoint: Endpoint, options: Options) -> dict[str, tuple[Origin, str]]:
    return {bucket: endpoint.root(bucket) for bucket in options.buckets.buckets}


def _source(options: Options) -> CredentialSource:
    if options.credentials is not None:
        return StaticCredentials(options.credentials)
    # aiobotocore takes long to import, and who has a key need not have it.
    from storage_plugins.s3.chain import AwsChain  # noqa: PLC0415

    return RefreshedCredentials(AwsChain(options.profile))


def _import_restorer() -> type[Restorer]:
    from storage_plugins.s3.restore import Restorer  # noqa: PLC0415 - see above

    return Restorer


def _import_keeper() -> tuple[type[Restorer], type[Keeper]]:
    from storage_plugins.s3.keeping import Keeper  # noqa: PLC0415 - see above

    return _import_restorer(), Keeper

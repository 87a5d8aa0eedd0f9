"""What the server has: buckets with objects in memory, or made as they are read."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from tests.s3.strict.cors import CorsRule
from tests.s3.strict.messages import Content, Memory, S3Error

ARCHIVED = {"GLACIER", "DEEP_ARCHIVE"}
"""Storage classes whose objects cannot be read before they are restored."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pattern:
    """Bytes of any length that take no memory: two contents differ by their seed, and one in each of its MiB."""

    size: int
    seed: int = 0

    def read(self, offset: int, count: int) -> bytes:
        pieces = []
        end = min(offset + count, self.size)
        while offset < end:
            number, begin = divmod(offset, 1 << 20)
            piece = (number.to_bytes(8) + _mebibyte(self.seed))[begin : begin + end - offset]
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)


@functools.cache
def _mebibyte(seed: int) -> bytes:
    return random.Random(seed).randbytes((1 << 20) - 8)


@dataclasses.dataclass(slots=True)
class Restoration:
    """A copy of an archived object that can be read for a while."""

    days: int
    expires: datetime.datetime | None = None
    """None as long as it is under way."""


@dataclasses.dataclass(slots=True)
class StoredObject:
    """An object; replacing it makes another."""

    content: Content
    etag: str
    """In quotes."""
    modified: datetime.datetime
    content_type: str
    storage_class: str
    headers: Mapping[str, str]
    """Further fields of the answers: ``Content-Encoding``, ``Cache-Control``, ``x-amz-meta-…``."""
    restoration: Restoration | None = None
    archive_status: str | None = None
    """Of the storage class INTELLIGENT_TIERING: ``ARCHIVE_ACCESS`` or ``DEEP_ARCHIVE_ACCESS``; None: can be read."""

    @property
    def is_archived(self) -> bool:
        """Whether it can be read only once it is restored."""
        return self.storage_class in ARCHIVED or self.archive_status is not None

    @property
    def is_deep(self) -> bool:
        """Whether it lies in a deep archive."""
        return "DEEP_ARCHIVE" in (self.storage_class, (self.archive_status or "").removesuffix("_ACCESS"))


@dataclasses.dataclass(slots=True)
class Bucket:
    """Objects by key."""

    cors: Sequence[CorsRule] = ()
    """The configuration; without a rule, there is none."""
    objects: dict[str, StoredObject] = dataclasses.field(default_factory=dict)


class Store:
    """Changed by tests directly, and by no request but that to restore."""

    def __init__(self, clock: Callable[[], datetime.datetime]) -> None:
        self._clock = clock
        self.buckets: dict[str, Bucket] = {}

    def put(
        self,
        bucket: str,
        key: str,
        content: bytes | Content,
        *,
        content_type: str = "binary/octet-stream",
        storage_class: str = "STANDARD",
        headers: Mapping[str, str] | None = None,
        etag: str | None = None,
        modified: datetime.datetime | None = None,
        archive_status: str | None = None,
    ) -> StoredObject:
        """Put an object, in the place of one that is there; a bucket that is not is made.

        The ETag is the MD5 of bytes, and like one of a multipart upload for other contents.
        """
        if isinstance(content, bytes):
            made_etag = f'"{hashlib.md5(content).hexdigest()}"'
            content = Memory(content)
        else:
            made_etag = f'"{hashlib.md5(repr(content).encode()).hexdigest()}-2"'
        stored = StoredObject(
            content,
            made_etag if etag is None else etag,
            (modified or self._clock()).replace(microsecond=0),
            content_type,
            storage_class,
            dict(headers or {}),
            archive_status=archive_status,
        )
        self.buckets.setdefault(bucket, Bucket()).objects[key] = stored
        return stored

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object."""
        del self.bucket(bucket).objects[key]

    def set_cors(self, bucket: str, *rules: CorsRule) -> None:
        """Set the configuration of a bucket, which is made where it is not; without a rule, it has none."""
        self.buckets.setdefault(bucket, Bucket()).cors = rules

    def finish_restoration(self, bucket: str, key: str) -> None:
        """From now on the restored copy can be read, for the days that were asked for."""
        stored = self.find(bucket, key)
        assert stored.restoration is not None, "nobody asked to restore it"
        if stored.archive_status is not None:
            stored.archive_status = stored.restoration = None
        else:
            stored.restoration.expires = self._midnight_after(stored.restoration.days)

    def _midnight_after(self, days: int) -> datetime.datetime:
        """S3 adds the days to the moment, and rounds the result up to the next midnight UTC."""
        moment = self._clock() + datetime.timedelta(days=days)
        return moment.replace(hour=0, minute=0, second=0, microsecond=0) + datetime.timedelta(days=1)

    def bucket(self, name: str) -> Bucket:
        """A bucket.

        Raises:
            S3Error: there is none.
        """
        if name not in self.buckets:
            raise S3Error(404, "NoSuchBucket", "The specified bucket does not exist", BucketName=name)
        return self.buckets[name]

    def find(self, bucket: str, key: str) -> StoredObject:
        """An object.

        Raises:
            S3Error: there is none.
        """
        found = self.bucket(bucket).objects.get(key)
        if found is None:
            raise S3Error(404, "NoSuchKey", "The specified key does not exist.", Key=key)
        return found

    def state(self, stored: StoredObject) -> Literal["readable", "archived", "restoring", "restored"]:
        """Whether an object can be read."""
        if not stored.is_archived:
            return "readable"
        restoration = stored.restoration
        if restoration is None:
            return "archived"
        if restoration.expires is None:
            return "restoring"
        return "restored" if self._clock() < restoration.expires else "archived"

    def restore(self, stored: StoredObject, days: int | None, tier: str) -> int:
        """Begin to restore, or keep the restored copy for longer; gives the status.

        Raises:
            S3Error: there is nothing to restore, it is under way, or the request does not fit the object.
        """
        state = self.state(stored)
        if state == "readable":
            if stored.storage_class == "INTELLIGENT_TIERING":
                message = "This action is not allowed against this storage tier"
                raise S3Error(403, "ObjectAlreadyInActiveTierError", message)
            message = "Restore is not allowed for the object's current storage class"
            raise S3Error(403, "InvalidObjectState", message, StorageClass=stored.storage_class)
        if state == "restoring":
            raise S3Error(409, "RestoreAlreadyInProgress", "Object restore is already in progress")
        if (days is None) != (stored.archive_status is not None):
            raise S3Error(400, "MalformedXML", "Days are for archives that objects are copied from, and needed there")
        if tier == "Expedited" and stored.is_deep:
            raise S3Error(400, "InvalidArgument", "Expedited retrievals are not available for deep archives")
        if state == "restored":
            assert days is not None
            stored.restoration = Restoration(days, self._midnight_after(days))
            return 200
        stored.restoration = Restoration(days or 0)
        return 202

"""Which S3 objects a storage serves: from the ``s3://`` href of a catalogue to the bucket and key of today."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")
_DOTS = frozenset({".", ".."})


def location_of(href: str) -> str | None:
    """The ``bucket/key`` that an ``s3://`` href names, letter for letter: such hrefs are not percent-encoded.

    None for another href, and for a bucket alone.

    Raises:
        ValueError: the key has a segment ``.`` or ``..``: clients resolve these, and then ask for another object.
    """
    if href[:5].lower() != "s3://":
        return None
    location = href[5:]
    bucket, _, key = location.partition("/")
    if not _is_bucket(bucket) or not key:
        return None
    if has_dot_segments(location):
        raise ValueError("the key has a segment '.' or '..'")
    return location


def has_dot_segments(location: str) -> bool:
    """Whether clients would resolve the path of a location to another one."""
    return "/." in location and not _DOTS.isdisjoint(location.split("/"))


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A bucket, and what keys in it start with: nothing, or something that ends with a slash."""

    bucket: str
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> Place:
        """Take ``bucket`` or ``bucket/prefix``, with a slash at its end or without.

        Raises:
            ValueError: it is anything else.
        """
        bucket, _, prefix = text.removesuffix("/").partition("/")
        if not _is_bucket(bucket):
            raise ValueError(f"{text!r} must be a bucket, or a bucket and a prefix like 'bucket/prefix'")
        segments = text.removesuffix("/").split("/")
        if "" in segments or not _DOTS.isdisjoint(segments):
            raise ValueError(f"{text!r} must have no segment that is empty, '.' or '..'")
        return cls(bucket, f"{prefix}/" if prefix else "")

    def __str__(self) -> str:
        return f"{self.bucket}/{self.prefix}"


class BucketMap:
    """Where the locations below some places lie today: of these, the longest that a location is below wins."""

    def __init__(self, places: Mapping[Place, Place]) -> None:
        self._places = {str(named): held for named, held in places.items()}
        self._depth = max(name.count("/") for name in self._places)

    @property
    def first(self) -> str:
        """What locations below the first place begin with."""
        return next(iter(self._places))

    @property
    def buckets(self) -> frozenset[str]:
        """Those that hold objects."""
        return frozenset(place.bucket for place in self._places.values())

    def find(self, location: str) -> tuple[str, str] | None:
        """The bucket and the key of a location ``bucket/key``; None if it is below no place."""
        found, below, end = None, 0, 0
        for _ in range(self._depth):
            end = location.find("/", end) + 1
            if not end:
                break
            if (place := self._places.get(location[:end])) is not None:
                found, below = place, end
        if found is None or not (key := found.prefix + location[below:]):
            return None
        return found.bucket, key


def _is_bucket(name: str) -> bool:
    return _BUCKET.fullmatch(name) is not None and name not in _DOTS

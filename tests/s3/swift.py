"""OpenStack Swift as an S3 server: the judge of what the project signs and asks for. Linux only."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pickle
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest import mock

from gateway.embedded import StartError
from gateway.embedded.supervised import supervised
from tests.s3.account import Account, Answer

MEMORY_FILES = Path("/dev/shm")
"""Where an fsync costs nothing; TMPDIR overrules it."""
MEMORY_NEEDED = 1 << 30
"""Bytes that must be free there."""
METADATA, METADATA_CHECKSUM = "user.swift.metadata", "user.swift.metadata_checksum"
"""Extended attributes of an object's file."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Swift(Account):
    """A running Swift."""

    directory: Path
    """Its files, settings and log (``swift.log``); removed at its end."""

    async def make_bucket(self) -> str:
        """Make a bucket with a name that no other test has."""
        name = f"bucket-{secrets.token_hex(8)}"
        await self._do("PUT", self.url(name))
        return name

    async def put(self, bucket: str, key: str, content: bytes, headers: Mapping[str, str] | None = None) -> str:
        """Put an object, in the place of one that is there; gives its ETag, in quotes."""
        answer = await self._do("PUT", self.url(bucket, key), headers, content)
        return answer.headers["ETag"]

    async def put_large(self, bucket: str, key: str, size: int, pieces: Mapping[int, bytes] | None = None) -> str:
        """Put an object of any size that takes next to no time and room; gives its ETag, as of a multipart upload.

        It is all zeros but for the ``pieces``, by their offsets. Listings of the bucket give a wrong size.
        """
        await self.put(bucket, key, secrets.token_bytes(16))
        path = self._file_of(f"/AUTH_test/{bucket}/{key}")
        with path.open("r+b") as file:
            file.truncate(0)
            for offset, piece in (pieces or {}).items():
                file.seek(offset)
                file.write(piece)
            file.truncate(size)
        metadata = _metadata(path)
        etag = f"{hashlib.md5(metadata[b'ETag']).hexdigest()}-2"
        changes = {"Content-Length": str(size), "X-Object-Sysmeta-S3Api-Etag": etag}
        metadata |= {name.encode(): value.encode() for name, value in changes.items()}
        pickled = pickle.dumps(metadata, protocol=2)
        os.setxattr(path, METADATA, pickled)
        os.setxattr(path, METADATA_CHECKSUM, hashlib.md5(pickled).hexdigest().encode())
        return f'"{etag}"'

    async def delete(self, bucket: str, key: str) -> None:
        """Delete an object."""
        await self._do("DELETE", self.url(bucket, key))

    async def _do(self, method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Answer:
        answer = await self.send_signed(method, url, headers=headers, body=body)
        assert answer.status in {200, 204}, answer
        return answer

    def _file_of(self, name: str) -> Path:
        files = self.directory.glob("devices/*/objects/*/*/*/*.data")
        return next(path for path in files if _metadata(path)[b"name"] == name.encode())


def _metadata(path: Path) -> dict[bytes, bytes]:
    metadata: dict[bytes, bytes] = pickle.loads(os.getxattr(path, METADATA))
    return metadata


@contextlib.contextmanager
def run_swift() -> Iterator[Swift]:
    """Run a Swift of our own; nothing of it is left when the block ends or the process dies.

    Raises:
        StartError: a server did not start, or no directory for temporary files takes extended attributes.
    """
    directory = _place() / f"gateway-swift-{secrets.token_hex(8)}"
    secret = secrets.token_hex(16)
    with contextlib.ExitStack() as stack:
        # By the environment, since every user of the machine may read an argument list.
        with mock.patch.dict(os.environ, SWIFT_SECRET=secret):
            report = stack.enter_context(supervised("tests.s3.swift_processes", [str(directory)], [directory]))
        yield Swift(report["endpoint"], report["access_key_id"], secret, directory=directory)


def _place() -> Path:
    places = [Path(tempfile.gettempdir()), Path("/var/tmp")]
    if "TMPDIR" not in os.environ and MEMORY_FILES.is_dir() and shutil.disk_usage(MEMORY_FILES).free >= MEMORY_NEEDED:
        places.insert(0, MEMORY_FILES)
    for place in places:
        if _takes_attributes(place):
            return place
    raise StartError(f"Swift needs a directory with extended attributes; none of {places} has them. Set TMPDIR.")


def _takes_attributes(place: Path) -> bool:
    try:
        with tempfile.NamedTemporaryFile(dir=place) as file:
            os.setxattr(file.name, METADATA, bytes(1000))
    except OSError:
        return False
    return True

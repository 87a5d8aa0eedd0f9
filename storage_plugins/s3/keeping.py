"""Keeping files as S3 objects.

Control calls go through aiobotocore; bytes by presigned URLs, so that nothing is hashed on the loop and a file of any
size takes next to no memory.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import datetime
import errno
import hashlib
import math
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import yarl
from botocore.exceptions import BotoCoreError, ClientError

from gateway.storage import CopyUnavailableError
from storage_plugins.s3.options import Options
from storage_plugins.s3.refusals import error_code, refuses_credentials
from storage_plugins.s3.restore import Restorer

SINGLE_BYTES = 64 * 1024 * 1024
"""Up to here an object is put at once."""
_PART_BYTES = 64 * 1024 * 1024
_MOST_PARTS = 10_000
_PARTS_AT_A_TIME = 4
_PIECE = 256 * 1024
_CALL_SECONDS = 60.0
_LEAST_RATE = 256 * 1024
"""Bytes a second that an upload must bring about at least."""
_URL_SECONDS = 3600
_ABANDONED_SECONDS = 24 * 3600.0
"""Without a new part for so long nobody goes on with an upload, for each of its parts ends long before."""
_PAGE = 1000
_FULL = frozenset(
    {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "InsufficientCapacity", "EntityTooLarge"}
)
"""What servers answer that have no room."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes of a file, from one place to another."""

    path: Path
    start: int
    stop: int

    def md5(self) -> str:
        digest = hashlib.md5(usedforsecurity=False)
        for piece in self.read():
            digest.update(piece)
        return base64.b64encode(digest.digest()).decode()

    def read(self) -> Iterator[bytes]:
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.start)
            left = self.stop - self.start
            while left and (piece := file.read(min(_PIECE, left))):
                left -= len(piece)
                yield piece

    async def stream(self) -> AsyncIterator[bytes]:
        pieces = self.read()
        while piece := await asyncio.to_thread(next, pieces, b""):
            yield piece


class Keeper:
    """Puts and deletes objects. It owns the connections that bytes go by."""

    def __init__(self, options: Options, control: Restorer) -> None:
        """``control`` has the client; it is closed by its owner."""
        self._options = options
        self._control = control
        self._session: aiohttp.ClientSession | None = None

    async def put(self, file: Path, bucket: str, key: str) -> None:
        """Make an object of ``file``: all of it or nothing.

        Raises:
            OSError: the file cannot be read; EDQUOT there is no room; EEXIST there is such an object.
            CopyUnavailableError: the server does not answer.
        """
        size = (await asyncio.to_thread(os.stat, file)).st_size
        with _named(f"s3://{bucket}/{key}"):
            if size <= SINGLE_BYTES:
                await self._send("put_object", _Piece(file, 0, size), {"Bucket": bucket, "Key": key}, new=True)
            else:
                await self._put_parts(file, size, bucket, key)

    async def delete(self, bucket: str, key: str) -> None:
        """Delete an object, if there is one.

        Raises:
            CopyUnavailableError: it could not be done.
        """
        with _named(f"s3://{bucket}/{key}"):
            await self._call("delete_object", Bucket=bucket, Key=key)

    async def list(self, bucket: str, prefix: str, seconds: float) -> AsyncIterator[list[str]]:
        """Keys of the objects that were written more than ``seconds`` ago; gives up uploads that nobody goes on with.

        Raises:
            CopyUnavailableError: the server does not answer.
        """
        with _named(f"s3://{bucket}/{prefix}"):
            await self._give_up_old_uploads(bucket, prefix)
            more: dict[str, str] = {}
            while True:
                answer = await self._call("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=_PAGE, **more)
                before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)
                yield [one["Key"] for one in answer.get("Contents", ()) if one["LastModified"] < before]
                if not answer.get("IsTruncated"):
                    return
                more = {"ContinuationToken": answer["NextContinuationToken"]}

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def _put_parts(self, file: Path, size: int, bucket: str, key: str) -> None:
        part_bytes = max(_PART_BYTES, math.ceil(size / _MOST_PARTS))
        upload = await self._call("create_multipart_upload", Bucket=bucket, Key=key)
        named = {"Bucket": bucket, "Key": key, "UploadId": upload["UploadId"]}
        turns = asyncio.Semaphore(_PARTS_AT_A_TIME)

        async def send(number: int, start: int) -> dict[str, object]:
            async with turns:
                piece = _Piece(file, start, min(start + part_bytes, size))
                return {
                    "PartNumber": number,
                    "ETag": await self._send("upload_part", piece, {**named, "PartNumber": number}, new=False),
                }

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(send(number, start))
                    for number, start in enumerate(range(0, size, part_bytes), start=1)
                ]
            await self._call(
                "complete_multipart_upload", **named, MultipartUpload={"Parts": [task.result() for task in tasks]}
            )
        except BaseException as error:
            await asyncio.shield(self._give_up(named))
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from None
            raise

    async def _send(self, method: str, piece: _Piece, named: dict[str, object], *, new: bool) -> str:
        """Send bytes; gives the ETag of what was made."""
        client = await self._control.client()
        checksum = await asyncio.to_thread(piece.md5)
        url = await client.generate_presigned_url(method, Params=named, ExpiresIn=_URL_SECONDS)
        size = piece.stop - piece.start
        fields = {"Content-Length": str(size), "Content-MD5": checksum, "Content-Type": "application/octet-stream"}
        if new:
            fields["If-None-Match"] = "*"
        session = await self._opened()
        limit = aiohttp.ClientTimeout(total=_CALL_SECONDS + size / _LEAST_RATE, sock_connect=5)
        async with session.put(
            yarl.URL(url, encoded=True),
            data=piece.stream() if size else b"",
            headers=fields,
            timeout=limit,
            allow_redirects=False,
        ) as answer:
            body = await answer.content.read(65536)
            if answer.status == 200:
                return answer.headers.get("ETag", "")
        if (
            answer.status == 501 and new
        ):  # It knows no conditions. Nobody else writes there while the cache's rules hold.
            return await self._send(method, piece, named, new=False)
        raise self._failure(error_code(body), answer.status)

    async def _call(self, method: str, **parameters: object) -> Any:
        client = await self._control.client()
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                return await getattr(client, method)(**parameters)
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            raise self._failure(str(error.response["Error"]["Code"]), status) from error

    def _failure(self, code: str, status: int) -> Exception:
        if refuses_credentials(code):
            self._control.refused()
        if code in _FULL or status == 507:
            return OSError(errno.EDQUOT, f"S3 answers {code or status}")
        if status in (409, 412):
            return OSError(errno.EEXIST, f"S3 answers {code or status}")
        return CopyUnavailableError(f"S3 answers {code or status}")

    async def _give_up(self, named: dict[str, object]) -> None:
        with contextlib.suppress(CopyUnavailableError, OSError, BotoCoreError, aiohttp.ClientError):
            await self._call("abort_multipart_upload", **named)

    async def _give_up_old_uploads(self, bucket: str, prefix: str) -> None:
        before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=_ABANDONED_SECONDS)
        answer = await self._call("list_multipart_uploads", Bucket=bucket, Prefix=prefix)
        for one in answer.get("Uploads", ()):
            if one["Initiated"] < before:
                await self._give_up({"Bucket": bucket, "Key": one["Key"], "UploadId": one["UploadId"]})

    async def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            ca_file = self._options.ca_file
            context = await asyncio.to_thread(ssl.create_default_context, cafile=str(ca_file) if ca_file else None)
            if self._session is None:
                connector = aiohttp.TCPConnector(ssl=context, limit=64)
                self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        return self._session


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Say of which object an error is, and nothing of URLs, which are signed."""
    try:
        yield
    except CopyUnavailableError as error:
        raise CopyUnavailableError(f"{name}: {error}") from error
    except TimeoutError as error:
        raise CopyUnavailableError(f"{name}: no answer in time") from error
    except aiohttp.ClientError as error:
        raise CopyUnavailableError(f"{name}: {type(error).__name__}") from None
    except BotoCoreError as error:
        raise CopyUnavailableError(f"{name}: {type(error).__name__}: {error}") from error
    except OSError as error:
        if error.errno is None:
            raise CopyUnavailableError(f"{name}: {type(error).__name__}") from error
        raise

"""Checks of what a download answers."""

from __future__ import annotations

import hashlib
from urllib.parse import urlsplit

from gateway.catalog.ingest.checksums import from_multihash
from gateway.conformance.asking import Answer
from gateway.conformance.documents import EXTENSION
from gateway.conformance.suite import Check, Run, SkippedError, UnusualError, WrongError
from gateway.hashing import HASHES

_BINARY = ("application/octet-stream", "binary/octet-stream")


def check_status(answer: Answer, asked: str) -> None:
    """See that the first answer to ``asked`` is one of the class.

    Raises:
        WrongError: it is not.
    """
    if answer.status in (200, 307):
        return
    if answer.status in (301, 302, 303, 308):
        raise WrongError(f"{asked} is redirected by {answer.status}; the class has 307 alone")
    raise WrongError(f"{asked} is {answer.status}; it must be 200 or 307")


async def _status(run: Run) -> None:
    fetched = await run.plain()
    check_status(fetched.first, "GET")
    if fetched.last.status != 200:
        raise WrongError(f"the redirect of GET leads to {fetched.last.status}, not to the bytes")


async def _location(run: Run) -> None:
    fetched = await run.get()
    if not fetched.is_redirected:
        raise SkippedError("the server streams")
    location = urlsplit(fetched.first.headers.get("Location", ""))
    if location.scheme not in ("http", "https") or not location.hostname:
        raise WrongError("Location is not an absolute URI")


async def _without_token(run: Run) -> None:
    fetched = await run.plain()
    if not fetched.is_redirected:
        raise SkippedError("the server streams")
    if fetched.last.status != 200:
        raise WrongError(f"without the token Location is {fetched.last.status}: clients do not send it to another host")


async def _bytes(run: Run) -> None:
    answer = (await run.get()).last
    if not answer.is_whole:
        raise SkippedError(f"the file is longer than the {run.asking.most_bytes} bytes that are read")
    if answer.length is None:
        raise UnusualError("there is no Content-Length: clients can neither show progress nor tell a cut from the end")
    size = run.subject.described.get("file:size")
    if isinstance(size, int) and size != len(answer.body):
        raise WrongError(f"{len(answer.body)} bytes came; file:size of the asset is {size}")


async def _checksum(run: Run) -> None:
    told = run.subject.described.get("file:checksum")
    checksum = from_multihash(told) if isinstance(told, str) else None
    if checksum is None:
        raise SkippedError("the asset has no file:checksum that is a known multihash")
    answer = (await run.get()).last
    if not answer.is_whole:
        raise SkippedError(f"the file is longer than the {run.asking.most_bytes} bytes that are read")
    found = hashlib.new(HASHES[checksum.algorithm], answer.body, usedforsecurity=False).hexdigest()
    if found != checksum.value.lower():
        raise WrongError(f"the bytes have the {checksum.algorithm} {found}, file:checksum says {checksum.value}")


async def _media_type(run: Run) -> None:
    found = (await run.get()).last.media_type
    told = run.subject.described.get("type")
    expected = told.partition(";")[0].strip().lower() if isinstance(told, str) else None
    if not found:
        raise UnusualError("there is no Content-Type")
    if found not in _BINARY and expected is not None and found != expected:
        raise UnusualError(f"Content-Type is {found}; the asset is {expected}, and {_BINARY[0]} would do")


async def _head(run: Run) -> None:
    await run.get()
    answer = await run.asking.ask("HEAD", run.subject.url)
    if answer.status in (404, 405, 501):
        raise WrongError(f"HEAD is {answer.status} where GET gives the file")
    check_status(answer, "HEAD")
    whole = (await run.get()).last.length
    if answer.status == 200 and answer.length is not None and whole is not None and answer.length != whole:
        raise WrongError(f"Content-Length of HEAD is {answer.length}, that of GET {whole}")


async def _encoded(run: Run) -> None:
    await run.get()
    asset = run.subject.asset
    plain = next((one for one in asset if one.isascii() and one.isalnum()), None)
    if plain is None:
        raise SkippedError("the key of the asset has no letter that could be encoded")
    url, _, _ = run.subject.url.rpartition("/")
    rest = run.subject.url.removeprefix(f"{url}/").replace(plain, f"%{ord(plain):02X}", 1)
    answer = await run.asking.ask("GET", f"{url}/{rest}", read=False)
    if answer.status not in (200, 307):
        raise UnusualError(f"the same path with a letter percent-encoded is {answer.status}")


CHECKS = (
    Check("GET is 200 with the bytes or 307, never another redirect", f"{EXTENSION}, Endpoints", _status),
    Check("a redirect names an absolute URI", f"{EXTENSION}, Endpoints; RFC 9110 §10.2.2", _location),
    Check("a redirect needs no token where it leads", f"{EXTENSION}, Endpoints: temporary URI", _without_token),
    Check("the bytes are as many as is said", "RFC 9110 §8.6; STAC file extension", _bytes),
    Check("the bytes have the checksum of the asset", "STAC file extension", _checksum),
    Check("the media type is that of the asset", f"{EXTENSION}, openapi.yaml; RFC 9110 §8.3", _media_type),
    Check("HEAD answers as GET does", "RFC 9110 §9.1, §9.3.2", _head),
    Check("a path that is encoded otherwise is the same", "RFC 3986 §6.2.2.2", _encoded),
)

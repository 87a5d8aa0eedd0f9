"""Checks of ranges and conditions, through redirects."""

from __future__ import annotations

import re

from gateway.conformance.downloading import check_status
from gateway.conformance.suite import Check, Fetched, Run, SkippedError, UnusualError, WrongError

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/(?:([0-9]{1,18})|\*)", re.ASCII)


async def _fetch(run: Run, *, read: bool = True, **fields: str) -> Fetched:
    """GET with header fields, names with ``_`` for ``-``; the status of a redirect is that of the class, too."""
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    fetched = await run.fetch(headers, read=read)
    if fetched.is_redirected:
        check_status(fetched.first, f"GET with {', '.join(headers)}")
    return fetched


async def _size(run: Run) -> int:
    answer = (await run.get()).last
    size = len(answer.body) if answer.is_whole else answer.length
    if not size:
        raise SkippedError("the file is empty, or its length is not told")
    return size


async def _check_range(run: Run, first: int, last: int, field: str) -> None:
    """See that a Range field that stands for the bytes from ``first`` to ``last`` gives those very bytes.

    Raises:
        WrongError: it does not.
        UnusualError: it is passed over.
    """
    size, whole = await _size(run), (await run.get()).last
    answer = (await _fetch(run, Range=field)).last
    if answer.status == 200:
        raise UnusualError("Range is passed over: no download can be resumed")
    if answer.status != 206:
        raise WrongError(f"Range: {field} of {size} bytes is {answer.status}, not 206")
    told = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if told is None or (int(told[1]), int(told[2])) != (first, last) or told[3] not in (None, str(size)):
        raise WrongError(f"Content-Range is {answer.headers.get('Content-Range')!r}, not bytes {first}-{last}/{size}")
    if len(answer.body) != last - first + 1:
        raise WrongError(f"{len(answer.body)} bytes came for {field}")
    if last < len(whole.body) and answer.body != whole.body[first : last + 1]:
        raise WrongError(f"the bytes {first} to {last} are not those of the whole file")


async def _first_bytes(run: Run) -> None:
    last = min(await _size(run), 1000) - 1
    await _check_range(run, last // 2, last, f"bytes={last // 2}-{last}")


async def _last_bytes(run: Run) -> None:
    size = await _size(run)
    length = min(size, 500)
    await _check_range(run, size - length, size - 1, f"bytes=-{length}")


async def _beyond(run: Run) -> None:
    size = await _size(run)
    answer = (await _fetch(run, Range=f"bytes={size}-", read=False)).last
    if answer.status == 200:
        raise UnusualError("a range behind the end gives the whole file")
    if answer.status != 416:
        raise WrongError(f"a range behind the end is {answer.status}, not 416")
    if answer.headers.get("Content-Range") != f"bytes */{size}":
        raise UnusualError(f"416 does not say bytes */{size} in Content-Range")


async def _unknown_unit(run: Run) -> None:
    await run.get()
    answer = (await _fetch(run, Range="items=0-1", read=False)).last
    if answer.status != 200:
        raise WrongError(f"a range in an unknown unit is {answer.status}; it must be passed over: 200")


async def _stale_range(run: Run) -> None:
    await _size(run)
    answer = (await _fetch(run, Range="bytes=0-0", If_Range='"of-another-file"', read=False)).last
    if answer.status != 200:
        raise WrongError(f"If-Range with the tag of another file is {answer.status}: resuming would mix two files")


async def _unchanged(run: Run) -> None:
    answer = (await run.get()).last
    tag = answer.headers.get("ETag")
    if tag is None:
        raise SkippedError("the answer has no ETag")
    found = (await _fetch(run, If_None_Match=tag, read=False)).last.status
    if found != 304:
        raise WrongError(f"If-None-Match with the file's own tag is {found}, not 304")


async def _changed(run: Run) -> None:
    if "ETag" not in (await run.get()).last.headers:
        raise SkippedError("the answer has no ETag")
    found = (await _fetch(run, If_Match='"of-another-file"', read=False)).last.status
    if found != 412:
        raise WrongError(f"If-Match with the tag of another file is {found}, not 412")


CHECKS = (
    Check("a range is the very bytes", "RFC 9110 §14.2, §15.3.7", _first_bytes),
    Check("a range from the end is the very bytes", "RFC 9110 §14.1.2", _last_bytes),
    Check("a range behind the end is 416", "RFC 9110 §15.5.17", _beyond),
    Check("a range in an unknown unit is passed over", "RFC 9110 §14.2", _unknown_unit),
    Check("a range of another version gives the whole file", "RFC 9110 §13.1.5", _stale_range),
    Check("what is unchanged is 304", "RFC 9110 §13.1.2", _unchanged),
    Check("a precondition that fails is 412", "RFC 9110 §13.1.1", _changed),
)

"""What the tests of ``gateway.http`` share: a representation, its bytes, and the reading of an answer."""

from __future__ import annotations

import datetime

from multidict import CIMultiDict, CIMultiDictProxy

from gateway.http.evaluate import Literal, Representation, Verdict, evaluate

ETAG = '"rev-7"'
MODIFIED = datetime.datetime(2026, 3, 1, 12, 0, 0, tzinfo=datetime.UTC)
MODIFIED_TEXT = "Sun, 01 Mar 2026 12:00:00 GMT"
NOW = datetime.datetime(2026, 11, 20, 8, 30, 0, tzinfo=datetime.UTC)
LENGTH = 100
DATA = bytes(range(LENGTH))

CONTENT_TYPE = "application/x-tiff"
WHOLE = [(0, LENGTH)]


def representation(
    *,
    length: int = LENGTH,
    etag: str = ETAG,
    last_modified: datetime.datetime | None = MODIFIED,
    content_type: str = CONTENT_TYPE,
) -> Representation:
    return Representation(length, etag, last_modified, content_type)


def fields(*lines: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(lines))


def get(
    *lines: tuple[str, str],
    method: str = "GET",
    of: Representation | None = None,
    now: datetime.datetime = NOW,
) -> Verdict:
    return evaluate(method, fields(*lines), of or representation(), now)


def written(verdict: Verdict, data: bytes) -> bytes:
    """The body a sender writes for ``verdict`` when the representation is ``data``."""
    return b"".join(part.data if isinstance(part, Literal) else data[part.start : part.stop] for part in verdict.parts)


def spans(verdict: Verdict) -> list[tuple[int, int]]:
    return [(part.start, part.stop) for part in verdict.parts if not isinstance(part, Literal)]

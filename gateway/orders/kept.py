"""Archives that were answered: kept in PostgreSQL as they were laid out, and given to whoever asks for their rest."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from http import HTTPStatus

from multidict import MultiMapping

from gateway.archive.frozen import FrozenLayoutError, freeze, thaw
from gateway.archive.layout import Layout
from gateway.db import Database
from gateway.errors import GatewayError
from gateway.orders.lifecycle import RULES, Action, RefusedError

PIECE_BYTES = 1024 * 1024
"""Of a row."""
MOST_KEPT = 4
"""Layouts of one caller and order that are kept whole."""
MOST_MEMBERS = 500_000
"""Of the layouts that a process remembers: some 80 bytes each."""

_TAG = re.compile(r'"zip-([0-9a-f]{40})"')

_LOCK = "SELECT FROM orders WHERE order_id = $1 AND status NOT IN ('EXPIRED', 'DELETED') FOR NO KEY UPDATE"
# No two are of the same second: their Last-Modified tells them apart, too.
_KEEP = """
INSERT INTO order_archives (order_id, caller, tag, length, created_at)
SELECT $1, $2, $3, $4, greatest($5, max(created_at) + interval '1 second')
FROM order_archives WHERE order_id = $1 AND caller = $2
ON CONFLICT (order_id, caller, tag) DO UPDATE SET answered_at = clock_timestamp()
RETURNING created_at, EXISTS (
    SELECT FROM order_archive_pieces p WHERE p.order_id = $1 AND p.caller = $2 AND p.tag = $3
) AS is_whole"""
_ADD = "INSERT INTO order_archive_pieces (order_id, caller, tag, number, piece) VALUES ($1, $2, $3, $4, $5)"
# That there was one is remembered: else its rest would be taken for that of another.
_THIN = f"""
DELETE FROM order_archive_pieces WHERE order_id = $1 AND caller = $2 AND tag NOT IN (
    SELECT tag FROM order_archives WHERE order_id = $1 AND caller = $2 ORDER BY answered_at DESC LIMIT {MOST_KEPT}
)"""  # noqa: S608 - made of constants
_LISTED = """
SELECT tag, length, begun, EXISTS (
    SELECT FROM order_archive_pieces p WHERE p.order_id = a.order_id AND p.caller = a.caller AND p.tag = a.tag
) AS is_whole
FROM order_archives a WHERE order_id = $1 AND caller = $2 ORDER BY answered_at DESC"""
_PIECES = "SELECT piece FROM order_archive_pieces WHERE order_id = $1 AND caller = $2 AND tag = $3 ORDER BY number"
_BEGUN = "UPDATE order_archives SET begun = true WHERE order_id = $1 AND caller = $2 AND tag = $3 AND NOT begun"


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """An archive of an order that a caller was answered."""

    tag: str
    length: int
    """Bytes."""
    begun: bool
    """Whether bytes of it were sent. Nobody knows how many came: somebody may still have to fetch its rest."""
    is_whole: bool
    """Whether its layout is there: it was made of what has a CRC-32, and not long ago."""


@dataclasses.dataclass(frozen=True, slots=True)
class Whose:
    """Of which order, for whom."""

    order_id: int
    caller: str
    """E-mail address."""


def chosen(method: str, headers: MultiMapping[str], kept: Sequence[Kept]) -> Kept | None:
    """Which of the archives ``kept``, the latest first, is asked for a part of; None if none is, but one of now.

    If the request names the tag of one (If-Range, If-Match), that is the one. Whoever asks for a part and names none,
    like ``curl -C -``, means the latest, if there is no earlier one whose rest that could be.

    Raises:
        GatewayError: 409; nobody can tell of which archive the part is to be.
    """
    named = _tags([*headers.getall("If-Range", ()), *headers.getall("If-Match", ())])
    for one in kept:
        if one.tag in named and one.is_whole:
            return one
    if method != "GET" or "Range" not in headers or names_one(headers) or not kept:
        return None
    latest, *earlier = kept
    if any(one.begun for one in earlier) or not latest.is_whole:
        raise uncertain(kept)
    return latest


class KeptArchives:
    """Keeps layouts, and remembers some of those that were used last."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[tuple[Whose, str], Layout] = OrderedDict()

    async def listed(self, whose: Whose) -> list[Kept]:
        """Those that were answered, the latest first.

        Raises:
            GatewayError: 503.
        """
        rows = await self._database.fetch(_LISTED, whose.order_id, whose.caller)
        return [Kept(**row) for row in rows]

    async def keep(self, whose: Whose, layout: Layout) -> Layout:
        """Keep ``layout``; gives it with the time at which the same one was kept first.

        Of one that is not fixed it is only noted that there was one: it has no rest, and who asks for a part without
        saying of what must not get that of another.

        Raises:
            RefusedError: the order is over.
            GatewayError: 503.
        """
        key = (whose.order_id, whose.caller, layout.tag)
        frozen = await asyncio.to_thread(freeze, layout) if layout.is_fixed else b""
        pieces = [frozen[first : first + PIECE_BYTES] for first in range(0, len(frozen), PIECE_BYTES)]
        async with self._database.transaction() as connection:
            if await connection.fetchrow(_LOCK, whose.order_id) is None:
                raise RefusedError(RULES[Action.DOWNLOAD].refusal)
            row = await connection.fetchrow(_KEEP, *key, layout.length, layout.created)
            assert row is not None  # noqa: S101 - it is there now
            if pieces and not row["is_whole"]:
                await connection.executemany(_ADD, [(*key, number, piece) for number, piece in enumerate(pieces)])
                await connection.execute(_THIN, whose.order_id, whose.caller)
        created: datetime.datetime = row["created_at"]
        if created != layout.created:
            layout = await asyncio.to_thread(Layout, layout.columns, layout.texts, layout.tag, created)
        if layout.is_fixed:
            self._remember(whose, layout)
        return layout

    async def get(self, whose: Whose, tag: str) -> Layout | None:
        """A layout that was kept; None if it is gone.

        Raises:
            GatewayError: 503.
        """
        known = self._known.get((whose, tag))
        if known is not None:
            self._known.move_to_end((whose, tag))
            return known
        rows = await self._database.fetch(_PIECES, whose.order_id, whose.caller, tag)
        if not rows:
            return None
        try:
            layout = await asyncio.to_thread(thaw, b"".join(row["piece"] for row in rows))
        except FrozenLayoutError:
            return None
        self._remember(whose, layout)
        return layout

    async def begun(self, whose: Whose, tag: str) -> None:
        """Its bytes are about to be sent.

        Raises:
            GatewayError: 503.
        """
        await self._database.fetch(_BEGUN, whose.order_id, whose.caller, tag)

    def _remember(self, whose: Whose, layout: Layout) -> None:
        self._known[whose, layout.tag] = layout
        self._known.move_to_end((whose, layout.tag))
        while sum(map(len, self._known.values())) > MOST_MEMBERS and len(self._known) > 1:
            self._known.popitem(last=False)


def names_one(headers: MultiMapping[str]) -> bool:
    """Whether a request says which archive it means: of another one it then gets no part."""
    return "If-Range" in headers or "If-Match" in headers


def uncertain(kept: Sequence[Kept]) -> GatewayError:
    """409: nobody can tell which of ``kept`` is meant."""
    names = [f'"zip-{one.tag}" (of {one.length} bytes)' for one in kept if one.is_whole]
    named = f"say it with If-Range: {' or '.join(names)}; or" if names else "please"
    detail = (
        "This order has been downloaded with other files before, or before its CRC-32 were known, so that nobody can "
        f"tell which archive this is to be a part of: {named} download the whole archive again."
    )
    return GatewayError(HTTPStatus.CONFLICT, detail, code="ArchiveUncertain")


def _tags(lines: Iterable[str]) -> set[str]:
    return {tag for line in lines for tag in _TAG.findall(line)}

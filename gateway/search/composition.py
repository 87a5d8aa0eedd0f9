"""The queries that baskets make of their users' queries, as REGARDS writes them: text of text.

Each selection keeps its date, so that what came into the catalogue later is no part of it.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence


def selection(query: str | None, ids: Sequence[str]) -> str | None:
    """What a request selects: ``query``, all but ``ids`` of what it finds, or, without a query, ``ids``.

    An empty query finds everything. None where nothing is named at all.
    """
    if query is None:
        return listed("ipId", ids) or None
    return within(query, without=ids)


def within(query: str, *, dataset: str = "", ids: Sequence[str] = (), without: Sequence[str] = ()) -> str:
    """Of what ``query`` finds: what lies in ``dataset`` (a URN), is one of ``ids``, and is none of ``without``.

    Whatever is empty bounds nothing.
    """
    parts = [
        f"tags:{quoted(dataset)}" if dataset else "",
        f"({listed('ipId', ids)})" if ids else "",
        f"NOT({listed('ipId', without)})" if without else "",
    ]
    parts = [part for part in parts if part]
    if query:
        parts.insert(0, f"({query})" if parts else query)
    return " AND ".join(parts)


def any_of(queries: Sequence[str]) -> str:
    """What one of ``queries`` finds."""
    return queries[0] if len(queries) == 1 else " OR ".join(f"({query})" for query in queries)


def listed(name: str, values: Sequence[str]) -> str:
    """What has one of ``values`` in the field ``name``; empty for none."""
    return " OR ".join(f"{name}:{quoted(value)}" for value in values)


def dated(query: str, date: datetime.datetime) -> str:
    """``query`` of what was in the catalogue at ``date``."""
    bound = f"creationDate:[* TO {date_text(date)}]"
    return f"({query}) AND {bound}" if query else bound


def union(items: Sequence[str]) -> str:
    """The query of a dataset whose selections are ``items``, the newest first.

    Side by side, not one inside the other: however many there are, it is no deeper than the deepest of them.
    """
    newest, *others = items
    if not others:
        return f"({newest})"
    return f"(({newest})" + "".join(f" OR (({item}))" for item in others) + ")"


def date_text(date: datetime.datetime) -> str:
    """``date`` as REGARDS writes it: in UTC, with milliseconds; with microseconds where it has them.

    PostgreSQL has microseconds, and a bound that cut them off would include what came later.
    """
    utc = date.astimezone(datetime.UTC).replace(tzinfo=None)
    return utc.isoformat(timespec="microseconds" if utc.microsecond % 1000 else "milliseconds") + "Z"


def quoted(text: str) -> str:
    """``text`` as a phrase."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

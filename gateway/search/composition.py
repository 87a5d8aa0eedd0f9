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
    listed = " OR ".join(f"ipId:{quoted(one)}" for one in ids)
    if query is None:
        return listed or None
    if not listed:
        return query
    return f"({query}) AND NOT({listed})" if query else f"NOT({listed})"


def dated(query: str, date: datetime.datetime) -> str:
    """``query`` of what was in the catalogue at ``date``."""
    bound = f"creationDate:[* TO {date_text(date)}]"
    return f"({query}) AND {bound}" if query else bound


def first(item: str) -> str:
    """The query of a dataset with one selection."""
    return f"({item})"


def added(dataset: str, item: str) -> str:
    """The query ``dataset`` of a dataset that has selections, with one more."""
    return f"({dataset} OR ({item}))"


def remaining(items: Sequence[str]) -> str:
    """The query of a dataset whose selections are ``items``, after one was taken away."""
    return first(items[0]) if len(items) == 1 else f"(({') OR ('.join(items)}))"


def of_dataset(query: str, urn: str) -> str:
    """``query`` within a dataset; ``query`` itself where that speaks of the dataset already."""
    return query if urn in query else f"({query} AND tags:{quoted(urn)})"


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

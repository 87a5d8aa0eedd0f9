"""Searches against a real PostgreSQL, through the same objects as the API."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from gateway.config import Database, Rights
from gateway.db import connect
from gateway.identity.principal import anonymous
from gateway.rights.policies import open_policies
from gateway.stac.model import Search
from gateway.stac.searching import Searching, searching
from tests.harness import SCIENCE, SCIENTIST, TENANT, Catalogue


@contextlib.asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[Searching]:
    async with (
        connect(Database.model_validate({"dsn": dsn}), ()) as database,
        open_policies([]) as policies,
        searching(database, policies, Rights()) as found,
    ):
        yield found


@pytest.fixture
async def catalogue(database: str, tmp_path: Path) -> AsyncIterator[Catalogue]:
    connection = await asyncpg.connect(database)
    yield Catalogue(connection, tmp_path)
    await connection.close()


async def test_what_a_caller_may_see_is_found_and_nothing_else(database: str, catalogue: Catalogue) -> None:
    await catalogue.grant("restricted", await catalogue.group(SCIENCE))
    await catalogue.grant("open", await catalogue.group("everyone", public=True))
    await catalogue.file(b"1", collection="restricted", item="a")
    await catalogue.file(b"2", collection="open", item="b")
    async with opened(database) as search:
        page = await search.search(SCIENTIST, Search())
        assert [item.item_id for item in page.items] == ["b", "a"]
        assert [[file.needs_login for file in item.files] for item in page.items] == [[False], [True]]
        page = await search.search(anonymous(TENANT), Search())
        assert [item.item_id for item in page.items] == ["b"]
        assert (page.next, page.previous) == (None, None)
        assert [one.collection_id for one in await search.collections(SCIENTIST)] == ["open", "restricted"]
        assert (await search.collection(SCIENTIST, "restricted")).collection_id == "restricted"
        first = await search.search(SCIENTIST, Search(limit=1))
        second = await search.search(SCIENTIST, Search(limit=1, token=first.next))
        assert [item.item_id for item in second.items] == ["a"]
        assert (await search.item(SCIENTIST, "restricted", "a")).files[0].states == ("ONLINE",)

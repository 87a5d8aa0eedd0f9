"""PostgreSQL: which of its errors speak of it, and what it has to bear while it is away."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from pydantic import SecretStr

from gateway import db
from gateway.catalog.locate import catalog
from gateway.catalog.model import ByAsset
from gateway.config import Database, Rights
from gateway.errors import GatewayError
from gateway.rights.policies import open_policies
from tests.harness import SCIENTIST
from tests.proxy import counting_proxy


@pytest.mark.parametrize(
    ("statement", "parameters", "expected"),
    [
        ("SELECT 1 / $1::int", (0,), False),
        ("SELECT $1::text", (1,), False),
        ("SELECT $1::text", ("\0",), False),
        ("SELECT $1::json", ("[" * 1_000_000,), False),
        ("SELECT FROM nowhere", (), True),
        ("SELECT pg_terminate_backend(pg_backend_pid())", (), True),
        ("SELECT pg_sleep(60)", (), True),
        ("DO $$ BEGIN RAISE too_many_connections; END $$", (), True),
    ],
)
async def test_some_errors_speak_of_the_server_and_others_of_the_question(
    database: str, statement: str, parameters: tuple[object, ...], *, expected: bool
) -> None:
    async with db.connect(Database(dsn=SecretStr(database), timeout=1), []) as asked:
        with pytest.raises(GatewayError) as raised:
            await asked.fetch(statement, *parameters)
        assert raised.value.status == 503
        assert db.is_of_server(raised.value) == expected, raised.value.__cause__


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (asyncpg.InterfaceError("pool is closing"), True),
        (db.no_answer(), False),
        (KeyError("number"), False),
    ],
)
def test_what_comes_from_elsewhere_speaks_of_the_server_if_there_is_none(error: Exception, *, expected: bool) -> None:
    assert db.is_of_server(error) == expected


async def test_a_connection_that_was_cut_is_no_reason_to_fail(database: str) -> None:
    async with (
        counting_proxy(database) as (postgres, dsn),
        db.connect(Database(dsn=SecretStr(dsn)), []) as asked,
        open_policies(()) as policies,
        catalog(asked, (), Rights(), policies) as files,
    ):
        for _ in range(3):
            postgres.cut()
            results = await asyncio.gather(
                *(files.locate(ByAsset("c", f"{number}", "a"), SCIENTIST) for number in range(60)),
                return_exceptions=True,
            )
            assert {getattr(result, "status", None) for result in results} == {404}


async def test_a_server_that_refuses_connections_is_not_asked_by_each_caller_alone(database: str) -> None:
    async with (
        counting_proxy(database) as (postgres, dsn),
        db.connect(Database(dsn=SecretStr(dsn)), []) as asked,
        open_policies(()) as policies,
        catalog(asked, (), Rights(), policies) as files,
    ):
        postgres.shut = True
        postgres.cut()
        # The first may be asked on the connection that was cut.
        for _ in range(2):
            results = await asyncio.gather(
                *(files.locate(ByAsset("c", f"{number}", "a"), SCIENTIST) for number in range(60)),
                return_exceptions=True,
            )
            assert {(type(result), getattr(result, "status", None)) for result in results} == {(GatewayError, 503)}
        # Each time with encryption, and without.
        assert 1 <= postgres.refused <= 8
        postgres.shut = False
        with pytest.raises(GatewayError) as raised:
            await files.locate(ByAsset("c", "i", "a"), SCIENTIST)
        assert raised.value.status == 404

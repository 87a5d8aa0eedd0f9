"""The record of downloads: what is in it, that nothing waits for it, and that nothing is lost without a word."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hmac
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import aiohttp
import asyncpg
import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

import gateway.ops.audit
import gateway.ops.audit_table
from gateway.catalog.model import ByChecksum
from gateway.config import Audit as AuditSettings
from gateway.config import Database
from gateway.db import NEIGHBOUR_ERRORS, apply_schema
from gateway.delivery.transfer import Transfer
from gateway.errors import ConfigurationError
from gateway.ops.audit import Audit, judge, open_audit
from gateway.ops.audit_table import AuditTable, Noted, after, month_of
from gateway.ops.request_context import PROBLEM
from gateway.request_keys import Asked
from gateway.text import escaped
from tests.credentials import LINK_SECRET, new_key, new_link, send, shown_key
from tests.harness import OUTSIDER, SCIENTIST, RunningGateway, bearer, config_for, principal, running_gateway
from tests.harness import SECRET as TOKEN_SECRET

NOW = datetime.datetime(2024, 11, 21, 12, tzinfo=datetime.UTC).timestamp()
SECRET = "a secret of addresses, 32 bytes and more"


def noted(number: int = 1, at: float = NOW, **other: Any) -> Noted:
    values: dict[str, Any] = {
        "at": at,
        "record": number,
        "principal": SCIENTIST,
        "client": "192.0.2.1",
        "method": "GET",
        "route": "/downloads/{aip_id}/files/{checksum}",
        "path": "/downloads/a/files/b",
        "product": "a",
        "file": "b",
        "file_id": None,
        "verdict": "whole",
        "reason": None,
        "status": 200,
        "promised": 10,
        "sent": 10,
        "storage": "disk",
        "way": "stream",
        "seconds": 0.5,
        "request_id": f"request-{number}",
        "user_agent": "test",
    }
    return Noted(**{**values, **other})


async def records(connection: asyncpg.Connection[Any], most: int = 1, **where: object) -> list[asyncpg.Record]:
    """The records, once there are at least ``most``."""
    conditions = " AND ".join(f"{name} = ${number}" for number, name in enumerate(where, 1)) or "true"
    async with asyncio.timeout(20):
        while True:
            found: list[asyncpg.Record] = await connection.fetch(
                f"SELECT * FROM download_log WHERE {conditions} ORDER BY at, record", *where.values()
            )
            if len(found) >= most:
                return found
            await asyncio.sleep(0.01)


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(database, timeout=10)
    yield connection
    await connection.close(timeout=10)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.ops.audit, "GATHER_SECONDS", 0.02)
    monkeypatch.setattr(gateway.ops.audit, "RETRY_SECONDS", 0.02)


def table_in(dsn: str, **settings: Any) -> AuditTable:
    return AuditTable(Database.model_validate({"dsn": dsn}), AuditSettings.model_validate(settings))


@pytest.mark.usefixtures("soon")
async def test_each_download_and_each_refusal_leaves_a_record(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(b"content")
    agent = {"User_Agent": "curl/8.0"}
    await gateway.get(entry.regards, SCIENTIST, X_Request_ID="first", **agent)
    await gateway.get(entry.stac, SCIENTIST, X_Request_ID="ranged", Range="bytes=0-1", **agent)
    await gateway.get(entry.stac, OUTSIDER, X_Request_ID="forbidden")
    await gateway.get(entry.stac, X_Request_ID="unknown")
    await gateway.get(f"{entry.stac}?scope=esa", X_Request_ID="anonymous")
    await gateway.get(f"{entry.stac}x", SCIENTIST, X_Request_ID="missing")
    await gateway.get(entry.stac, SCIENTIST, X_Request_ID="beyond", Range="bytes=99-")
    await gateway.request("HEAD", entry.stac, OUTSIDER, X_Request_ID="asked")
    await gateway.catalogue.limit("user", SCIENTIST.email or "", downloads=0)
    await gateway.get(entry.stac, SCIENTIST, X_Request_ID="quota")
    found = {row["request_id"]: row for row in await records(gateway.catalogue.connection, 9)}
    outcomes = {
        name: (row["verdict"], row["reason"], row["status"], row["promised"], row["sent"])
        for name, row in found.items()
    }
    assert outcomes == {
        "first": ("whole", None, 200, 7, 7),
        "ranged": ("whole", None, 206, 2, 2),
        "forbidden": ("refused", "Forbidden", 403, None, None),
        "unknown": ("refused", "Unauthorized", 401, None, None),
        "anonymous": ("refused", "Forbidden", 403, None, None),
        "missing": ("refused", "NotFound", 404, None, None),
        "beyond": ("refused", "RangeNotSatisfiable", 416, None, None),
        "asked": ("refused", "Forbidden", 403, None, None),
        "quota": ("refused", found["quota"]["reason"], 429, None, None),
    }
    assert found["quota"]["reason"].startswith("Quota")
    first = dict(found["first"])
    at, duration = first.pop("at"), first.pop("duration_ms")
    assert abs((datetime.datetime.now(datetime.UTC) - at).total_seconds()) < 60
    assert 0 < duration < 30_000
    assert first.pop("record") > 0
    assert first == {
        "tenant": "esa",
        "subject": "scientist",
        "email": "scientist@example.org",
        "role": "REGISTERED_USER",
        "credential": "token",
        "credential_id": None,
        "address": "127.0.0.1",
        "method": "GET",
        "route": "/downloads/{aip_id}/files/{checksum}",
        "path": unquote(entry.regards),
        "product": entry.product,
        "file": entry.checksum,
        "file_id": entry.file_id,
        "verdict": "whole",
        "reason": None,
        "status": 200,
        "promised": 7,
        "sent": 7,
        "storage": "disk",
        "delivery": "stream",
        "request_id": "first",
        "user_agent": "curl/8.0",
    }
    assert (found["unknown"]["tenant"], found["unknown"]["email"]) == ("", None)
    assert (found["anonymous"]["tenant"], found["anonymous"]["credential"]) == ("esa", "none")
    assert (found["forbidden"]["product"], found["forbidden"]["file"]) == ("restricted/item", "data")
    assert (found["quota"]["product"], found["quota"]["storage"]) == (entry.product, "disk")


@pytest.mark.usefixtures("soon")
async def test_the_record_tells_by_which_key_or_link(database: str, redis_url: str, tmp_path: Path) -> None:
    identity = {"jwt": [{"algorithms": ["HS256"], "secret": TOKEN_SECRET}], "links": {"secret": LINK_SECRET}}
    async with running_gateway(config_for(database, redis_url, tmp_path, identity=identity), tmp_path) as gateway:
        await gateway.catalogue.grant("restricted", await gateway.catalogue.group("science"))
        entry = await gateway.catalogue.file(b"content")
        keys = [await new_key(gateway, SCIENTIST) for _ in range(2)]
        link = await new_link(gateway, SCIENTIST, collection="restricted", item="item", asset="data")
        for key in keys:
            assert (await send(gateway, "GET", entry.stac, shown_key(key["key"])))[0] == 200
        assert (await send(gateway, "GET", link["url"]))[0] == 200
        found = await records(gateway.catalogue.connection, 3)
    assert [(row["credential"], row["credential_id"]) for row in found] == [
        ("api key", keys[0]["id"]),
        ("api key", keys[1]["id"]),
        ("link", link["id"]),
    ]


@pytest.mark.usefixtures("soon")
async def test_what_is_neither_a_download_nor_a_refusal_leaves_none(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(b"content")
    for method, path, fields in (
        ("HEAD", entry.stac, {}),
        ("GET", f"{entry.stac}?dryRun=true", {}),
        ("GET", entry.stac, {"If_None_Match": "*"}),
        ("GET", "/me/usage", {}),
        ("GET", "/health", {}),
    ):
        assert (await gateway.request(method, path, SCIENTIST, **fields))[0].status in (200, 304)
    await gateway.get(entry.stac, SCIENTIST, X_Request_ID="last")
    assert [row["request_id"] for row in await records(gateway.catalogue.connection)] == ["last"]


@pytest.mark.usefixtures("soon")
async def test_a_download_that_is_cut_says_what_was_sent(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(bytes(32 * 1024 * 1024))
    async with gateway.session.get(f"{gateway.url}{entry.stac}", headers=bearer(SCIENTIST)) as response:
        response.close()
    (row,) = await records(gateway.catalogue.connection)
    assert (row["verdict"], row["status"], row["promised"]) == ("cut", 200, 32 * 1024 * 1024)
    assert 0 < row["sent"] < row["promised"]
    assert row["reason"].endswith("Error")


@pytest.mark.usefixtures("soon")
async def test_each_request_has_one_record_whatever_becomes_of_the_connection(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(b"content")
    connection = gateway.catalogue.connection
    await gateway.get(entry.stac, SCIENTIST, X_Request_ID="first")
    await records(connection)
    ended = asyncio.Event()

    async def asking(number: int) -> None:
        for turn in range(10):
            who = SCIENTIST if turn % 2 else OUTSIDER
            await gateway.get(entry.stac, who, X_Request_ID=f"{number}-{turn}")

    async def cutting() -> None:
        while not ended.is_set():
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'download-gateway audit'"
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.03):
                    await ended.wait()

    cuts = asyncio.create_task(cutting())
    await asyncio.gather(*map(asking, range(20)))
    ended.set()
    await cuts
    found = await records(connection, 201)
    expected = {f"{number}-{turn}" for number in range(20) for turn in range(10)} | {"first"}
    assert sorted(row["request_id"] for row in found) == sorted(expected)


async def test_a_download_that_the_end_of_the_process_cuts_has_a_record(
    database: str, redis_url: str, tmp_path: Path, connection: asyncpg.Connection[Any]
) -> None:
    config = config_for(database, redis_url, tmp_path, server={"port": 0, "shutdown_timeout": 0.1})
    async with aiohttp.ClientSession() as session:
        async with running_gateway(config, tmp_path) as running:
            await running.catalogue.grant("restricted", await running.catalogue.group("science"))
            entry = await running.catalogue.file(bytes(32 * 1024 * 1024))
            response = await session.get(f"{running.url}{entry.stac}", headers=bearer(SCIENTIST))
            assert response.status == 200
        response.close()
    (row,) = await records(connection)
    assert (row["verdict"], row["promised"]) == ("cut", 32 * 1024 * 1024)
    assert 0 < row["sent"] < row["promised"]


class Memory:
    """A table that takes what it is given, unless it is told to fail."""

    def __init__(self) -> None:
        self.written: list[Noted] = []
        self.attempts: list[tuple[int, bool]] = []
        self.failure: BaseException | None = None
        self.tried = asyncio.Event()
        self.closed = False
        self.upkeep_failure: BaseException | None = None
        self.looked_after: list[float] = []

    async def write(self, records: Sequence[Noted], *, again: bool) -> int:
        self.attempts.append((len(records), again))
        self.tried.set()
        if self.failure is not None:
            raise self.failure
        self.written += records
        return 0

    async def upkeep(self, now: float) -> None:
        self.looked_after.append(now)
        if self.upkeep_failure is not None:
            raise self.upkeep_failure

    async def close(self) -> None:
        self.closed = True


def note(audit: Audit, path: str = "/downloads/a/files/b", user_agent: str = "test", checksum: str = "b") -> None:
    """Take a record as of a request that was refused."""
    request = make_mocked_request("GET", path, {"User-Agent": user_agent})
    request[PROBLEM] = "Forbidden"
    audit.note(request, Asked(ByChecksum("a", checksum)), 403, 0.001)


@pytest.mark.usefixtures("soon")
async def test_what_waits_while_postgresql_is_away_is_written_once_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = Memory()
    table.failure = ConnectionRefusedError("the password is hunter2")
    async with open_audit(table) as audit:
        for number in range(5):
            note(audit, f"/{number}")
        async with asyncio.timeout(20):
            while len(table.attempts) < 3:
                await asyncio.sleep(0.01)
        assert audit.waiting == 5
        table.failure = None
    assert [record.path for record in table.written] == [f"/{number}" for number in range(5)]
    assert audit.lost == 0
    assert table.closed
    # The same batch each time, and the table is told that it may be there already.
    assert [again for _, again in table.attempts] == [False, *[True] * (len(table.attempts) - 1)]
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[0] for line in lines] == [
        "PostgreSQL does not take the record of downloads",
        "PostgreSQL takes the record of downloads again",
    ]
    assert "hunter2" not in caplog.text


@pytest.mark.usefixtures("soon")
async def test_beyond_the_bound_records_are_lost_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gateway.ops.audit, "MOST_WAITING", 10)
    table = Memory()
    async with open_audit(table) as audit:
        for number in range(25):
            note(audit, f"/{number}")
        assert (audit.waiting, audit.lost) == (10, 15)
    assert len(table.written) == 10
    assert "15 records of downloads are lost" in caplog.text


@pytest.mark.usefixtures("soon")
async def test_what_waits_is_small_whatever_was_sent() -> None:
    table = Memory()
    async with open_audit(table) as audit:
        note(audit, "/" + "p" * 8000, "u" * 8000, "c" * 8000)
    (record,) = table.written
    assert max(len(part) for part in record if isinstance(part, str)) == 1024


@pytest.mark.usefixtures("soon")
async def test_a_clock_that_is_set_back_keeps_no_month_from_being_looked_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.ops.audit, "UPKEEP_SECONDS", 0.0)
    table = Memory()
    times = iter([NOW + 10**9])
    async with open_audit(table, lambda: next(times, NOW)):
        async with asyncio.timeout(20):
            while len(table.looked_after) < 2:
                await asyncio.sleep(0.01)
    assert table.looked_after[:2] == [NOW + 10**9, NOW]


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("failure", [TimeoutError(), RuntimeError("a defect")], ids=repr)
async def test_the_end_of_the_process_waits_for_the_last_records_but_not_for_ever(
    failure: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gateway.ops.audit, "CLOSING_SECONDS", 0.1)
    table = Memory()
    table.failure = failure
    async with open_audit(table) as audit:
        note(audit)
    assert (audit.lost, table.closed) == (1, True)
    assert len(table.attempts) < 100, "it does not spin"
    assert "1 records of downloads are lost" in caplog.text


async def test_a_full_batch_does_not_wait_for_the_second_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.ops.audit, "GATHER_SECONDS", 3600.0)
    monkeypatch.setattr(gateway.ops.audit, "MOST_AT_ONCE", 10)
    table = Memory()
    async with open_audit(table) as audit:
        for _ in range(25):
            note(audit)
        async with asyncio.timeout(20):
            await table.tried.wait()
    assert [size for size, _ in table.attempts] == [10, 10, 5]


@pytest.mark.usefixtures("soon")
async def test_a_table_with_a_defect_does_not_end_the_writing() -> None:
    table = Memory()
    table.failure = RuntimeError("a defect")
    async with open_audit(table) as audit:
        note(audit)
        async with asyncio.timeout(20):
            await table.tried.wait()
        table.failure = None
    assert len(table.written) == 1
    assert audit.lost == 0


@pytest.mark.usefixtures("soon")
async def test_months_that_cannot_be_looked_after_do_not_keep_records_from_being_written(
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = Memory()
    table.upkeep_failure = asyncpg.InsufficientPrivilegeError("must be owner of table download_log")
    async with open_audit(table) as audit:
        note(audit)
        async with asyncio.timeout(20):
            await table.tried.wait()
    assert len(table.written) == 1
    assert caplog.text.count("cannot be looked after: InsufficientPrivilegeError") == 1


async def test_a_batch_whose_end_nobody_saw_is_written_once(database: str, connection: asyncpg.Connection[Any]) -> None:
    table = table_in(database)
    batch = [noted(number) for number in range(5)]
    await table.write(batch, again=False)
    await table.write(batch, again=True)
    other = [noted(number) for number in range(5, 7)]
    await table.write(other, again=True)
    await table.close()
    assert [row["record"] for row in await records(connection)] == list(range(7))


async def test_a_record_that_cannot_be_written_keeps_no_other_from_it(
    database: str, connection: asyncpg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    table = table_in(database)
    batch = [noted(number) for number in range(9)]
    batch[3] = noted(3, status=2**40)
    batch[7] = noted(7, verdict="unheard of")
    assert await table.write(batch, again=False) == 2
    await table.close()
    assert [row["record"] for row in await records(connection)] == [0, 1, 2, 4, 5, 6, 8]
    assert caplog.text.count("a record of a download cannot be written") == 2


async def test_a_batch_whose_first_record_cannot_be_written_is_known_again(
    database: str, connection: asyncpg.Connection[Any]
) -> None:
    table = table_in(database)
    batch = [noted(0, status=2**40), *(noted(number) for number in range(1, 4))]
    assert await table.write(batch, again=False) == 1
    assert await table.write(batch, again=True) == 0
    await table.close()
    assert [row["record"] for row in await records(connection)] == [1, 2, 3]


async def test_a_batch_that_is_still_being_committed_is_written_once(
    database: str, connection: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL goes on with a commit whose client has gone: a disk that stalls is enough."""
    table = table_in(database)
    await table.write([noted(1)], again=False)
    monkeypatch.setattr(gateway.ops.audit_table, "SECONDS", 0.3)
    await connection.execute("""
        CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER stalling AFTER INSERT ON download_log_2024_11
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION stall()""")
    batch = [noted(number) for number in range(2, 5)]
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(1)")
        with pytest.raises(TimeoutError):
            await table.write(batch, again=False)
        with pytest.raises(TimeoutError):
            await table.write(batch, again=True)
    monkeypatch.setattr(gateway.ops.audit_table, "SECONDS", 10.0)
    await table.write(batch, again=True)
    await table.close()
    assert [row["record"] for row in await records(connection)] == [1, 2, 3, 4]


async def test_a_month_that_somebody_dropped_is_made_again(database: str, connection: asyncpg.Connection[Any]) -> None:
    table = table_in(database)
    await table.write([noted(1)], again=False)
    await connection.execute("DROP TABLE download_log_2024_11")
    assert await table.write([noted(2)], again=False) == 0
    await table.close()
    assert [row["record"] for row in await records(connection)] == [2]


async def test_a_connection_that_is_lost_is_opened_anew(database: str, connection: asyncpg.Connection[Any]) -> None:
    table = table_in(database)
    await table.write([noted(1)], again=False)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'download-gateway audit'"
    )
    with contextlib.suppress(*NEIGHBOUR_ERRORS):
        await table.write([noted(2)], again=False)
    await table.write([noted(2)], again=True)
    await table.close()
    assert [row["record"] for row in await records(connection)] == [1, 2]


async def months(connection: asyncpg.Connection[Any]) -> list[str]:
    rows = await connection.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'download_log'::regclass ORDER BY 1"
    )
    return [row["name"].removeprefix("download_log_") for row in rows]


async def test_months_are_made_ahead_and_go_as_a_whole(database: str, connection: asyncpg.Connection[Any]) -> None:
    table = table_in(database, keep_days=30)
    day = 86_400.0
    # Of a download that began before the gateway did, and of one at the end of the year.
    await table.write([noted(1, at=NOW - 60 * day), noted(2, at=NOW)], again=False)
    await table.upkeep(NOW)
    assert await months(connection) == ["2024_11", "2024_12"], "September has ended more than 30 days ago"
    await table.upkeep(NOW + 30 * day)
    assert await months(connection) == ["2024_11", "2024_12", "2025_01"]
    # The 30th of December is the last day on which a record of the 30th of November is kept.
    await table.upkeep(datetime.datetime(2024, 12, 30, 23, tzinfo=datetime.UTC).timestamp())
    assert "2024_11" in await months(connection)
    await table.upkeep(datetime.datetime(2024, 12, 31, tzinfo=datetime.UTC).timestamp())
    assert await months(connection) == ["2024_12", "2025_01"]
    assert await connection.fetchval("SELECT count(*) FROM download_log") == 0
    await table.close()


async def test_a_clock_that_runs_ahead_drops_nothing(database: str, connection: asyncpg.Connection[Any]) -> None:
    table = table_in(database, keep_days=30)
    now = datetime.datetime.now(datetime.UTC).timestamp()
    await table.write([noted(1, at=now)], again=False)
    await table.upkeep(now + 10 * 365 * 86_400)
    await table.close()
    assert len(await records(connection)) == 1


async def test_a_schema_that_is_applied_again_keeps_the_months(
    database: str, connection: asyncpg.Connection[Any]
) -> None:
    table = table_in(database)
    await table.write([noted(1)], again=False)
    await apply_schema(connection)
    await table.write([noted(2)], again=False)
    await table.close()
    assert await months(connection) == ["2024_11"]
    assert len(await records(connection, 2)) == 2


async def test_many_processes_make_the_same_month(database: str, connection: asyncpg.Connection[Any]) -> None:
    tables = [table_in(database) for _ in range(5)]
    await asyncio.gather(*(table.write([noted(number)], again=False) for number, table in enumerate(tables)))
    await asyncio.gather(*(table.upkeep(NOW) for table in tables))
    for table in tables:
        await table.close()
    assert await months(connection) == ["2024_11", "2024_12"]
    assert len(await records(connection)) == 5


async def test_who_reads_the_record_does_not_hold_up_who_writes_it(
    database: str, connection: asyncpg.Connection[Any]
) -> None:
    table = table_in(database)
    await table.write([noted(1)], again=False)
    async with connection.transaction():
        assert await connection.fetchval("SELECT count(*) FROM download_log") == 1
        await table.upkeep(NOW)
        await table.write([noted(2, at=NOW + 20 * 86_400)], again=False)
    await table.close()
    assert len(await records(connection)) == 2


async def test_an_old_month_that_is_being_read_is_dropped_later(
    database: str, connection: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.ops.audit_table, "LOCK_MILLISECONDS", 50)
    table = table_in(database, keep_days=1)
    await table.write([noted(1, at=NOW - 60 * 86_400)], again=False)
    async with connection.transaction():
        await connection.fetchval("SELECT count(*) FROM download_log")
        await table.upkeep(NOW)
        assert "2024_09" in await months(connection)
    await table.upkeep(NOW)
    await table.close()
    assert "2024_09" not in await months(connection)


@pytest.mark.parametrize("kind", ["plain", "hashed", "none"])
async def test_addresses_are_kept_as_the_setting_says(kind: str) -> None:
    settings = AuditSettings.model_validate({"addresses": kind, "secret": SECRET})
    table = AuditTable(Database.model_validate({"dsn": "postgresql://u@h/d"}), settings)
    expected = {
        "plain": "192.0.2.1",
        "hashed": hmac.new(SECRET.encode(), b"192.0.2.1", "sha256").hexdigest()[:32],
        "none": None,
    }
    row = table.row(noted())
    assert row[8] == expected[kind]
    if kind != "plain":
        assert "192.0.2.1" not in str(row)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"addresses": "hashed"}, "needs a 'secret'"),
        ({"addresses": "hashed", "secret": "x" * 31}, "31 bytes"),
        ({"secret": "x" * 31}, "31 bytes"),
        ({"secret": "replace-me-replace-me-replace-me-replace-me"}, "placeholder"),
        ({"keep_days": 0}, "greater than or equal to 1"),
        ({"addresses": "rot13"}, "'plain', 'hashed' or 'none'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as raised:
        config_for("postgresql://u@h/d", "redis://h", tmp_path, audit=settings)
    assert "audit" in str(raised.value)
    assert "xxxx" not in str(raised.value)


def test_what_is_recorded_is_cut_and_obeyed_by_nothing() -> None:
    table = table_in("postgresql://u@h/d")
    nasty = "\x1b[2J\r\nevil\0\udcff\u202e" + "x" * 5000
    row = table.row(
        noted(
            user_agent=nasty,
            path=nasty,
            request_id=nasty,
            product=nasty,
            file=nasty,
            principal=principal(nasty, tenant=nasty, email=nasty, role=nasty),
        )
    )
    texts = [value for value in row if isinstance(value, str)]
    assert all(text.isprintable() and len(text) <= 1024 for text in texts)
    assert sum(text.startswith(r"\x1b[2J\r\nevil\x00\udcff\u202exx") for text in texts) == 9


@given(st.text(st.characters(), max_size=50), st.integers(1, 60))
def test_escaped_text_is_printable_short_and_otherwise_itself(text: str, most: int) -> None:
    found = escaped(text, most)
    assert found.isprintable()
    assert len(found) <= most
    if text.isprintable():
        assert found == text[:most]


@given(st.dates(datetime.date(1970, 1, 1), datetime.date(2200, 12, 31)))
def test_months_follow_each_other(day: datetime.date) -> None:
    at = datetime.datetime.combine(day, datetime.time(23, 59, 59), datetime.UTC).timestamp()
    month = month_of(at)
    assert month.day == 1
    assert month <= day < after(month)
    assert after(month).day == 1
    assert (after(month).year * 12 + after(month).month) - (month.year * 12 + month.month) == 1


def test_verdicts() -> None:
    def done(sent: int, *, finished: bool = False, problem: Exception | None = None) -> Transfer:
        return Transfer(10, sent, finished, problem)

    handed_over = Transfer(10)
    handed_over.hand_over("redirected")
    assert judge(200, done(10, finished=True), None) == ("whole", None)
    assert judge(307, handed_over, None) == ("redirected", None)
    assert judge(200, done(5, problem=ConnectionResetError()), None) == ("cut", "ConnectionResetError")
    assert judge(None, done(5), None) == ("cut", "Ended")
    assert judge(None, None, None) == ("cut", "Ended")
    # Bytes had left when it failed: the answer was no error any more.
    assert judge(503, done(5), "StorageUnavailable") == ("cut", "StorageUnavailable")
    assert judge(503, done(0), "StorageUnavailable") == ("failed", "StorageUnavailable")
    assert judge(403, None, "Forbidden") == ("refused", "Forbidden")
    assert judge(304, None, None) == judge(200, None, None) == (None, None)

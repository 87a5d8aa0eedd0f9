"""Senders that are killed or told to end, as processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path

import asyncpg

from gateway.config import load
from tests.faults.process import to_toml
from tests.harness import SECRET as TOKEN_SECRET
from tests.notices.mailbox import Mailbox, free_port
from tests.notices.support import PUBLIC_URL, mail_settings, sending_alone
from tests.orders.support import fill

NOTICES = """
INSERT INTO notices (channel, tenant, order_id, kind, body)
SELECT 'mail', 'esa', 7, 'done', '{"owner": "a@b.example", "label": "l", "status": "DONE", "token_generation": 0,
    "expires_at": "2026-11-24T20:00:00+00:00", "files_count": 1, "files_available": 1, "files_downloaded": 0,
    "files_error": 0, "files_size": 1, "on_success_url": null}'
FROM generate_series(1, 5)"""
ORDER = """
INSERT INTO orders (tenant_id, owner, owner_subject, owner_role, owner_groups, label, status, expires_at, files_count,
                    files_pending, files_size, pending_size)
    SELECT tenant_id, 'x', 'x', 'x', '{}', 'l', 'RUNNING', now() + interval '1 day', 1, 1, 1, 1 FROM tenants;
INSERT INTO suborders (order_id, number, task_id, tenant_id, owner, state, first_file, files_count, files_size,
                       files_pending)
    SELECT order_id, 1, 1, tenant_id, owner, 'WAITING', (order_id << 24) + 1, 1, 1, 1 FROM orders;
INSERT INTO order_files (order_file_id, suborder, file_id, state, size)
    SELECT first_file, 1, (SELECT min(file_id) FROM files), 'PENDING', 1 FROM suborders;
CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$;
CREATE TRIGGER stall AFTER UPDATE ON order_files FOR EACH STATEMENT EXECUTE FUNCTION stall()"""


def configured(directory: Path, dsn: str, port: int) -> Path:
    file = directory / "gateway.toml"
    file.write_text(
        to_toml(
            {
                "database": {"dsn": dsn},
                "redis": {"url": "redis://127.0.0.1:1/0"},
                "identity.jwt": [{"algorithms": ["HS256"], "secret": TOKEN_SECRET}],
                "storage": [{"name": "disk", "plugin": "local", "tenants": ["*"], "root": "/"}],
                "api": {"public_url": PUBLIC_URL},
                "mail": mail_settings(port),
            }
        )
    )
    return file


@contextlib.asynccontextmanager
async def worker(config: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "worker", "--config", str(config)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until(connection: asyncpg.Connection, query: str, wanted: object) -> None:
    async with asyncio.timeout(20):
        while await connection.fetchval(query) != wanted:
            await asyncio.sleep(0.02)


async def test_one_who_is_killed_before_he_noted_a_mail_sends_that_one_again_and_no_other(
    database: str, tmp_path: Path
) -> None:
    box = Mailbox(free_port())
    config = configured(tmp_path, database, box.port)
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(NOTICES)
        async with box.opened():
            async with worker(config) as first:

                async def kill(_: EmailMessage) -> None:
                    if len(box.mails) == 3:
                        first.send_signal(signal.SIGKILL)
                        await first.wait()

                box.on_mail = kill
                await first.wait()
            assert len(box.mails) == 3
            await until(connection, "SELECT count(*) FROM notices", 3)
            assert await connection.fetchval("SELECT min(due_at) > now() + interval '60 s' FROM notices")
            await connection.execute("UPDATE notices SET due_at = now()")
            box.on_mail = None
            async with sending_alone(load(config)):
                await until(connection, "SELECT count(*) FROM notices", 0)
        assert len(box.mails) == 6
        assert len(set(box.identifiers)) == 5
        assert box.identifiers[2] == box.identifiers[3]
    finally:
        await connection.close()


async def test_one_who_is_told_to_end_ends_with_the_mail_in_hand_and_leaves_all_else_at_once(
    database: str, tmp_path: Path
) -> None:
    box = Mailbox(free_port())
    config = configured(tmp_path, database, box.port)
    connection = await asyncpg.connect(database)
    stalled = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
    try:
        await fill(connection, products=1, files=1)
        await connection.execute(ORDER)
        async with worker(config) as process, box.opened():

            async def end(_: EmailMessage) -> None:
                process.send_signal(signal.SIGTERM)
                await asyncio.sleep(0.5)

            box.on_mail = end
            # Its files are being written as it is told to end.
            await until(connection, stalled, 1)
            assert await connection.fetchval("SELECT state FROM suborders") == "RUNNING"
            await connection.execute(NOTICES)
            assert await asyncio.wait_for(process.wait(), 15) == 0
        rows = await connection.fetch("SELECT lease, tries, due_at <= now() AS due FROM notices")
        assert [tuple(row) for row in rows] == [(None, 0, True)] * 4
        assert len(box.mails) == 1
        rows = await connection.fetch("SELECT state, lease, due_at FROM suborders")
        assert [tuple(row) for row in rows] == [("WAITING", None, None)]
    finally:
        await connection.close()

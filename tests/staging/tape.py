"""An archive with a tape: its copies lie on a disk; whether they can be read is said by SQL, in place of a worker."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path

import asyncpg
import pytest

import gateway.locations
from gateway.config import Config
from gateway.storage import StageState, Storage, ToStage
from storage_plugins.local import LocalStorage
from tests.harness import Entry, config_for


class Tape(LocalStorage):
    """Restores in place; nobody here asks it to."""

    in_place = True
    stage_batch = 100

    async def stage(self, copies: Sequence[ToStage]) -> Mapping[str, StageState]:
        raise AssertionError("that is the business of workers")

    async def staged(self, copies: Sequence[ToStage]) -> Mapping[str, StageState]:
        raise AssertionError("that is the business of workers")

    async def release(self, copies: Sequence[ToStage]) -> None:
        raise AssertionError("that is the business of workers")


def load_tape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a plug-in ``tape``."""
    load_plugin = gateway.locations.load_plugin

    def load(name: str) -> type[Storage]:
        return Tape if name == "tape" else load_plugin(name)

    monkeypatch.setattr("gateway.locations.load_plugin", load)


def tape_config(database: str, redis_url: str, root: Path, **staging: object) -> Config:
    """A disk and a tape, which both have the same folder; nobody restores anything."""
    storages = [
        {"name": "disk", "plugin": "local", "tenants": ["*"], "root": str(root)},
        {"name": "tape", "plugin": "tape", "type": "NEARLINE", "tenants": ["*"], "root": str(root)},
    ]
    return config_for(database, redis_url, root, storage=storages, staging={"workers": 0, **staging})


async def restored(connection: asyncpg.Connection, entry: Entry, *, seconds: float = 3600) -> datetime.datetime:
    """Play the worker: the restore of a file is done, and it can be read for so long."""
    until: datetime.datetime = await connection.fetchval(
        "UPDATE copies SET restored_until = now() + make_interval(secs => $2) WHERE file_id = $1 "
        "RETURNING restored_until",
        entry.file_id,
        seconds,
    )
    await connection.execute(
        "UPDATE restores SET state = 'RESTORED', started_at = coalesce(started_at, now()), restored_at = now(), "
        "expires_at = $2, due_at = $2 WHERE file_id = $1 AND ended_at IS NULL",
        entry.file_id,
        until,
    )
    return until


async def expired(connection: asyncpg.Connection, entry: Entry) -> None:
    """Play the worker: what was restored can be read no more."""
    await connection.execute("UPDATE copies SET restored_until = NULL WHERE file_id = $1", entry.file_id)
    await connection.execute(
        "UPDATE restores SET state = 'EXPIRED', expires_at = now(), ended_at = now(), due_at = NULL "
        "WHERE file_id = $1 AND state = 'RESTORED'",
        entry.file_id,
    )

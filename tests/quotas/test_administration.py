"""Rules as administrators read and write them, in a real PostgreSQL."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

import asyncpg
import pytest

from gateway import db
from gateway.administration.changes import Actor
from gateway.config import Database as DatabaseSettings
from gateway.db import Database
from gateway.errors import GatewayError
from gateway.quotas.administration import (
    FIRST,
    RegardsLimits,
    delete_rule,
    put_regards_defaults,
    put_regards_limits,
    put_rule,
    regards_defaults,
    regards_limits,
    rules,
)
from gateway.quotas.limits import Rule

ACTOR = Actor("admin@example.org", "192.0.2.1", "request")
QUOTA = Rule("user", "a@example.org", False, "downloads", "total", 5, slow_rate=1000)
RATE = Rule("group", "g", True, "rate", "1s", 5, burst=3, fail="capped")
DEFAULT = Rule("tenant", "", False, "bytes", "month", 0)
SHARED = Rule("tenant", "", True, "bytes", "month", -1)


@pytest.fixture
async def administered(database: str) -> AsyncIterator[Database]:
    """A database with the tenants esa and cnes."""
    connection = await asyncpg.connect(database, timeout=10)
    await connection.execute("INSERT INTO tenants (name) VALUES ('esa'), ('cnes')")
    await connection.close(timeout=10)
    async with db.connect(DatabaseSettings.model_validate({"dsn": database, "timeout": 10}), ()) as opened:
        yield opened


async def refused(attempt: Awaitable[object], status: HTTPStatus) -> str:
    with pytest.raises(GatewayError) as caught:
        await attempt
    assert caught.value.status is status
    return caught.value.detail


async def test_rules_are_read_as_they_were_written_and_of_their_tenant_alone(administered: Database) -> None:
    for rule in (SHARED, QUOTA, DEFAULT, RATE):
        await put_rule(administered, "esa", rule, ACTOR)
    assert await rules(administered, "esa") == (RATE, DEFAULT, SHARED, QUOTA)
    assert await rules(administered, "cnes") == ()
    assert await rules(administered, "esa", "tenant") == (DEFAULT, SHARED)
    assert await rules(administered, "esa", "user", "a@example.org") == (QUOTA,)
    assert await rules(administered, "esa", "user", "b@example.org") == ()
    assert await rules(administered, "esa", name="g") == (RATE,)
    assert await rules(administered, "esa", name="\0") == ()


async def test_a_rule_replaces_the_one_of_the_same_key(administered: Database) -> None:
    await put_rule(administered, "esa", QUOTA, ACTOR)
    await put_rule(administered, "esa", dataclasses.replace(QUOTA, period="day"), ACTOR)
    harder = dataclasses.replace(QUOTA, value=7, slow_rate=None)
    await put_rule(administered, "esa", harder, ACTOR)
    assert set(await rules(administered, "esa")) == {harder, dataclasses.replace(QUOTA, period="day")}


async def test_a_rule_is_deleted_by_its_key(administered: Database) -> None:
    for tenant in ("esa", "cnes"):
        for rule in (DEFAULT, SHARED):
            await put_rule(administered, tenant, rule, ACTOR)
    key: dict[str, Any] = {"metric": "bytes", "period": "month"}
    assert await delete_rule(administered, "esa", "tenant", "", shared=True, **key, actor=ACTOR)
    assert not await delete_rule(administered, "esa", "tenant", "", shared=True, **key, actor=ACTOR)
    assert await rules(administered, "esa") == (DEFAULT,)
    assert await rules(administered, "cnes") == (DEFAULT, SHARED)


async def test_what_is_no_rule_is_400_in_words(administered: Database) -> None:
    detail = await refused(
        put_rule(administered, "esa", dataclasses.replace(QUOTA, value=-2), ACTOR), HTTPStatus.BAD_REQUEST
    )
    assert detail.startswith("This is no rule: value is -2")
    attempt = delete_rule(administered, "esa", "user", "", shared=False, metric="bytes", period="day", actor=ACTOR)
    assert "has a name" in await refused(attempt, HTTPStatus.BAD_REQUEST)
    wrong = {"a@example.org": RegardsLimits(1, 1), "b@example.org": RegardsLimits(1, -2)}
    assert "value is -2" in await refused(put_regards_limits(administered, "esa", wrong, ACTOR), HTTPStatus.BAD_REQUEST)
    nobody = {"": RegardsLimits(1, 1)}
    assert "has a name" in await refused(put_regards_limits(administered, "esa", nobody, ACTOR), HTTPStatus.BAD_REQUEST)
    too_many = RegardsLimits(2**60, 1)
    await refused(put_regards_defaults(administered, "esa", too_many, ACTOR), HTTPStatus.BAD_REQUEST)
    assert await rules(administered, "esa") == ()


ATTEMPTS: list[Callable[[Database, str], Awaitable[object]]] = [
    rules,
    regards_defaults,
    lambda database, tenant: put_rule(database, tenant, QUOTA, ACTOR),
    lambda database, tenant: delete_rule(
        database, tenant, "role", "X", shared=True, metric="bytes", period="day", actor=ACTOR
    ),
    lambda database, tenant: regards_limits(database, tenant, ["a@example.org"]),
    lambda database, tenant: regards_limits(database, tenant, []),
    lambda database, tenant: put_regards_limits(database, tenant, {"a@example.org": RegardsLimits(1, 1)}, ACTOR),
    lambda database, tenant: put_regards_limits(database, tenant, {}, ACTOR),
    lambda database, tenant: put_regards_defaults(database, tenant, RegardsLimits(1, 1), ACTOR),
]


@pytest.mark.parametrize("tenant", ["nasa", "", "esa\0"])
async def test_an_unknown_tenant_is_404(administered: Database, tenant: str) -> None:
    for attempt in ATTEMPTS:
        assert "no tenant" in await refused(attempt(administered, tenant), HTTPStatus.NOT_FOUND)
        await attempt(administered, "esa")


async def test_regards_sees_ones_own_limits_else_the_defaults_else_none(administered: Database) -> None:
    emails = ["own@example.org", "half@example.org", "none@example.org"]
    unlimited = dict.fromkeys(emails, RegardsLimits(-1, -1))
    assert await regards_limits(administered, "esa", emails) == unlimited
    assert await regards_defaults(administered, "esa") == (-1, -1)
    await put_regards_defaults(administered, "esa", RegardsLimits(10, 2), ACTOR)
    await put_regards_limits(administered, "esa", {"own@example.org": RegardsLimits(-1, 0)}, ACTOR)
    await put_rule(administered, "esa", Rule("user", "half@example.org", False, "concurrent", "now", 9), ACTOR)
    # Limits that REGARDS does not know are not taken for its own.
    for rule in (DEFAULT, SHARED, RATE, Rule("tenant", "", True, "downloads", "total", 1)):
        await put_rule(administered, "esa", rule, ACTOR)
    await put_rule(administered, "esa", Rule("user", "none@example.org", False, "downloads", "day", 1), ACTOR)
    assert await regards_limits(administered, "esa", emails) == {
        "own@example.org": (-1, 0),
        "half@example.org": (10, 9),
        "none@example.org": (10, 2),
    }
    assert await regards_limits(administered, "esa", [emails[0], "x\0", emails[0]]) == {emails[0]: (-1, 0)}
    assert await regards_limits(administered, "esa", []) == {}
    assert await regards_defaults(administered, "esa") == (10, 2)
    assert await regards_limits(administered, "cnes", emails) == unlimited


async def test_what_regards_does_not_know_of_a_rule_stays(administered: Database) -> None:
    await put_rule(administered, "esa", QUOTA, ACTOR)
    await put_regards_limits(administered, "esa", {QUOTA.name: RegardsLimits(8, 3)}, ACTOR)
    assert await rules(administered, "esa") == (
        Rule("user", QUOTA.name, False, "concurrent", "now", 3),
        dataclasses.replace(QUOTA, value=8),
    )


async def test_administrators_who_write_the_same_users_do_not_stop_each_other(administered: Database) -> None:
    emails = [f"user-{number}@example.org" for number in range(50)]
    await asyncio.gather(
        *(
            put_regards_limits(
                administered, "esa", {email: RegardsLimits(turn, turn) for email in emails[:: (-1) ** turn]}, ACTOR
            )
            for turn in range(20)
        )
    )
    written = set((await regards_limits(administered, "esa", emails)).values())
    assert len(written) == 1


async def test_what_is_changed_is_recorded_with_it(administered: Database) -> None:
    await put_rule(administered, "esa", SHARED, ACTOR)
    await put_regards_limits(administered, "esa", {"a@example.org": RegardsLimits(3, 1)}, ACTOR)
    key: dict[str, Any] = {"metric": "bytes", "period": "month"}
    assert await delete_rule(administered, "esa", "tenant", "", shared=True, **key, actor=ACTOR)
    assert not await delete_rule(administered, "esa", "tenant", "", shared=True, **key, actor=ACTOR)
    rows = await administered.fetch(
        "SELECT action, object, detail ->> 'value' AS value, actor, address, request_id FROM changes ORDER BY change_id"
    )
    assert [tuple(row)[:3] for row in rows] == [
        ("rule.put", "tenant shared bytes month", "-1"),
        ("rule.put", "user a@example.org each concurrent now", "1"),
        ("rule.put", "user a@example.org each downloads total", "3"),
        ("rule.delete", "tenant shared bytes month", None),
    ]
    assert {tuple(row)[3:] for row in rows} == {("admin@example.org", "192.0.2.1", "request")}


async def test_what_stays_as_it_was_is_not_recorded_and_what_is_recorded_is_what_it_became(
    administered: Database,
) -> None:
    for _ in range(2):
        await put_rule(administered, "esa", QUOTA, ACTOR)
        await put_rule(administered, "esa", RATE, ACTOR)
        await put_regards_defaults(administered, "esa", RegardsLimits(10, 2), ACTOR)
    for _ in range(2):
        await put_regards_limits(administered, "esa", {QUOTA.name: RegardsLimits(8, -1)}, ACTOR)
    rows = await administered.fetch("SELECT object, detail FROM changes ORDER BY change_id")
    assert [row["object"] for row in rows] == [
        "user a@example.org each downloads total",
        "group g shared rate 1s",
        "tenant each concurrent now",
        "tenant each downloads total",
        "user a@example.org each concurrent now",
        "user a@example.org each downloads total",
    ]
    assert json.loads(rows[-1]["detail"]) == dataclasses.asdict(dataclasses.replace(QUOTA, value=8))


async def test_rules_come_in_pages(administered: Database) -> None:
    written = [Rule("user", name, False, "downloads", period, 1) for name in "abc" for period in ("day", "month")]
    for rule in (*written, SHARED, DEFAULT):
        await put_rule(administered, "esa", rule, ACTOR)
    found: list[Rule] = []
    while some := await rules(administered, "esa", after=found[-1].key if found else FIRST, limit=3):
        assert len(some) <= 3
        found += some
    assert found == [DEFAULT, SHARED, *written]
    assert await rules(administered, "esa", "user", after=written[1].key, limit=1) == (written[2],)

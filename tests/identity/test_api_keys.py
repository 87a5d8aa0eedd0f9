"""API keys over real sockets: every form, every refusal, and changes that take effect at once."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Literal

import pytest
from multidict import CIMultiDict

from gateway.delivery.policy import Circumstances, decide
from gateway.identity import api_keys
from tests.api.support import PROJECT_ADMIN
from tests.credentials import basic, new_key, seconds_until, send, shown_key
from tests.harness import (
    OUTSIDER,
    SCIENCE,
    SCIENTIST,
    Entry,
    RunningGateway,
    bearer,
    config_for,
    principal,
    running_gateway,
)
from tests.proxy import CountingProxy, counting_proxy
from tests.quotas.holders import until

MEMBER = principal("member")
"""In no group by his token."""


@pytest.fixture
async def entry(gateway: RunningGateway) -> Entry:
    return await gateway.catalogue.file(b"content" * 1000)


def forms(key: str) -> Iterator[dict[str, str]]:
    yield {"x-api-key": key}
    yield {"X-API-Key": f" {key} "}
    yield {"Authorization": f"Bearer {key}"}
    yield {"Authorization": f"bearer {key}"}
    yield basic("anybody", key)
    yield basic("", key)
    yield basic(key, "")


async def test_a_key_is_its_user_in_every_form(gateway: RunningGateway, entry: Entry) -> None:
    told = await new_key(gateway, SCIENTIST)
    assert re.fullmatch("gdk_[0-9A-Za-z]{12}_[0-9A-Za-z_-]{43}", told["key"])
    assert told["key"].split("_")[1] == told["id"]
    for fields in forms(told["key"]):
        for path in (entry.stac, entry.regards):
            status, _, body = await send(gateway, "GET", path, fields)
            assert (status, body) == (200, entry.content), fields
    assert (await gateway.usage(SCIENTIST))[0] >= 1
    assert '"user": "scientist"' in gateway.access_log[-1]


async def test_two_keys_and_no_key_is_like_another(gateway: RunningGateway) -> None:
    keys = [(await new_key(gateway, SCIENTIST))["key"] for _ in range(5)]
    assert len({key.split("_", 2)[1] for key in keys}) == len({key.split("_", 2)[2] for key in keys}) == 5


async def test_memberships_in_the_database_and_groups_of_the_key_both_count(
    gateway: RunningGateway, entry: Entry
) -> None:
    without = await new_key(gateway, dataclasses.replace(SCIENTIST, groups=()))
    member = await new_key(gateway, MEMBER)
    for told in (without, member):
        assert (await send(gateway, "GET", entry.stac, shown_key(told["key"])))[0] == 403
    await gateway.catalogue.connection.execute(
        "INSERT INTO group_members SELECT group_id, $1 FROM groups WHERE name = $2", MEMBER.email, SCIENCE
    )
    assert (await send(gateway, "GET", entry.stac, shown_key(member["key"])))[0] == 200


NO_KEYS = [
    "",
    "gdk_",
    "nonsense",
    "gdk_{id}",
    "gdk_{id}_",
    "gdk_{id}_{secret}x",
    "gdk_{id}_{secret}=",
    "gdk_{id}_{short}",
    "gdk_{id}__{short}",
    "GDK_{id}_{secret}",
    "gdk_{id}-{secret}",
    "gdk_{other}_{secret}",
    "gdk_{id}_{swapped}",
    "gdk_{id}_{secret} gdk_{id}_{secret}",
    "gdk_{id}_{secret},",
    "gdk_{id}_{secret}\u00e9",
    "{secret}",
    "x" * 5000,
]
NO_BASIC = ["Basic", "Basic ", "Basic %%%", "Basic Z2RrXw", "Basic Z2RrXw==", "Basic /w==", "Basic OmE=", "Basic Og=="]


async def test_what_is_no_key_is_refused(gateway: RunningGateway, entry: Entry) -> None:
    told = await new_key(gateway, SCIENTIST)
    _, key_id, secret = told["key"].split("_", 2)
    public = f"{entry.stac}?scope=esa"
    for wrong in NO_KEYS:
        shown = wrong.format(id=key_id, secret=secret, short=secret[:-1], other="0" * 12, swapped=secret.swapcase())
        status, fields, _ = await send(gateway, "GET", public, {"X-API-Key": shown})
        assert (status, 'error="invalid_token"' in fields["WWW-Authenticate"]) == (401, True), shown
        for authorization in ({"Authorization": f"Bearer {shown}"}, basic("me", shown), basic(shown, "")):
            assert (await send(gateway, "GET", public, authorization))[0] == 401, authorization
    for value in NO_BASIC:
        assert (await send(gateway, "GET", public, {"Authorization": value}))[0] == 401, value


async def test_one_answer_for_all_keys_that_do_not_hold(gateway: RunningGateway, entry: Entry) -> None:
    connection = gateway.catalogue.connection
    keys = [await new_key(gateway, SCIENTIST) for _ in range(4)]
    revoked, expired, elsewhere, wrong = (told["key"] for told in keys)
    assert (await send(gateway, "DELETE", f"/me/keys/{keys[0]['id']}", bearer(SCIENTIST)))[0] == 204
    await connection.execute("UPDATE api_keys SET expires_at = now() WHERE key_id = $1", keys[1]["id"])
    await connection.execute("UPDATE api_keys SET networks = '{192.0.2.0/24}' WHERE key_id = $1", keys[2]["id"])
    wrong = wrong[:-10] + "a" * 10
    unknown = f"gdk_{'a' * 12}_{'b' * 43}"
    answers = []
    for key in (unknown, revoked, expired, elsewhere, wrong, unknown):
        await seconds_until(401, lambda key=key: send(gateway, "GET", entry.stac, shown_key(key)))  # type: ignore[misc]
        answers.append(await send(gateway, "GET", entry.stac, shown_key(key)))
    assert all(answer == answers[0] for answer in answers)
    assert answers[0][2] == {"code": "Unauthorized", "description": "the API key is not valid"}


async def test_networks_are_those_of_the_client(gateway: RunningGateway, entry: Entry) -> None:
    for networks, status in (
        (["127.0.0.0/8"], 200),
        (["127.0.0.1"], 200),
        (["10.0.0.0/8", "127.0.0.1/32"], 200),
        (["::1", "10.0.0.0/8"], 401),
        ([], 401),
        (None, 200),
    ):
        told = await new_key(gateway, SCIENTIST, networks=networks)
        spoofed = {**shown_key(told["key"]), "X-Forwarded-For": "10.0.0.1", "Forwarded": "for=10.0.0.1"}
        assert (await send(gateway, "GET", entry.stac, spoofed))[0] == status


async def test_more_than_one_credential_is_refused(gateway: RunningGateway, entry: Entry) -> None:
    key = (await new_key(gateway, SCIENTIST))["key"]
    for fields in (
        {**shown_key(key), **bearer(SCIENTIST)},
        {**shown_key(key), "Authorization": f"Bearer {key}"},
        {**shown_key(key), **basic("me", "password")},
        {**shown_key(key), "Authorization": ""},
    ):
        status, answer_fields, _ = await send(gateway, "GET", entry.stac, fields)
        assert (status, 'error="invalid_request"' in answer_fields["WWW-Authenticate"]) == (401, True)
    twice = CIMultiDict([("X-API-Key", key), ("X-API-Key", key)])
    async with gateway.session.get(f"{gateway.url}{entry.stac}", headers=twice) as response:
        assert response.status == 401


async def test_a_key_is_good_for_its_scopes_alone(gateway: RunningGateway, entry: Entry) -> None:
    asked = {
        "download": [("GET", entry.stac), ("HEAD", entry.regards), ("GET", f"{entry.stac}?dryRun=true")],
        "quota": [("GET", "/me/usage"), ("GET", "/quota"), ("GET", "/quota/current")],
        "admin": [("GET", "/admin/keys"), ("GET", "/quota/rules"), ("GET", "/quota/defaults")],
    }
    who = principal("chief", SCIENCE, role="PROJECT_ADMIN")
    for has in ("download", "quota", "admin", "order"):
        key = (await new_key(gateway, who, scopes=[has]))["key"]
        for scope, requests in asked.items():
            for method, path in requests:
                status, fields, _ = await send(gateway, method, path, shown_key(key))
                assert status == (200 if scope == has else 403), (has, method, path)
                if status == 403:
                    assert f'error="insufficient_scope", scope="{scope}"' in fields["WWW-Authenticate"]
    everything = (await new_key(gateway, who, scopes=["download", "quota", "admin", "order"]))["key"]
    for method, path in [request for requests in asked.values() for request in requests]:
        assert (await send(gateway, method, path, shown_key(everything)))[0] == 200


async def test_the_scope_admin_makes_nobody_an_administrator(gateway: RunningGateway) -> None:
    key = (await new_key(gateway, SCIENTIST, scopes=["admin", "download", "quota"]))["key"]
    assert (await send(gateway, "GET", "/admin/keys", shown_key(key)))[0] == 403
    assert (await send(gateway, "GET", "/quota/rules", shown_key(key)))[0] == 403


async def test_a_key_accepts_the_licences_of_its_user(gateway: RunningGateway, entry: Entry) -> None:
    await gateway.catalogue.licence("restricted")
    keys = [(await new_key(gateway, SCIENTIST, scopes=[scope]))["key"] for scope in ("download", "quota")]
    for path in ("/license", "/collections/restricted/license"):
        statuses = [(await send(gateway, "GET", path, shown_key(key)))[0] for key in keys]
        assert statuses == [200, 403]
    statuses = [(await send(gateway, "GET", f"{entry.stac}?acceptLicense=true", shown_key(key)))[0] for key in keys]
    assert statuses == [200, 403]
    assert (await gateway.get(entry.stac, SCIENTIST))[0].status == 200


async def test_every_key_tells_whose_it_is_and_what_for(gateway: RunningGateway) -> None:
    for scopes in (["download"], ["order"], ["quota", "admin"]):
        key = (await new_key(gateway, SCIENTIST, scopes=scopes, expires="2099-01-01T00:00:00Z"))["key"]
        for fields in forms(key):
            status, _, told = await send(gateway, "GET", "/me", fields)
            assert status == 200
            assert told == {
                "tenant": "esa",
                "subject": "scientist",
                "email": "scientist@example.org",
                "role": "REGISTERED_USER",
                "groups": [SCIENCE],
                "credential": "api key",
                "scopes": sorted(scopes),
                "expires": "2099-01-01T00:00:00Z",
            }
    _, _, told = await send(gateway, "GET", "/me", bearer(SCIENTIST))
    assert (told["credential"], told["scopes"], told["expires"]) == ("token", None, None)


async def test_no_key_manages_keys(gateway: RunningGateway) -> None:
    told = await new_key(gateway, PROJECT_ADMIN, scopes=["admin", "download", "quota", "order"])
    shown = shown_key(told["key"])
    assert (await send(gateway, "GET", "/me/keys", shown))[0] == 403
    assert (await send(gateway, "POST", "/me/keys", shown, {"label": "more"}))[0] == 403
    assert (await send(gateway, "DELETE", f"/me/keys/{told['id']}", shown))[0] == 403
    assert (await send(gateway, "POST", "/admin/keys", shown, {"label": "more", "email": "a@b"}))[0] == 403
    assert (await send(gateway, "DELETE", f"/admin/keys/{told['id']}", shown))[0] == 204
    await seconds_until(401, lambda: send(gateway, "GET", "/admin/keys", shown))


async def test_a_change_of_a_key_applies_at_once(gateway: RunningGateway, entry: Entry) -> None:
    told = await new_key(gateway, SCIENTIST)
    shown = shown_key(told["key"])
    assert (await send(gateway, "GET", entry.stac, shown))[0] == 200
    connection = gateway.catalogue.connection
    for change, status in (
        ("groups = '{}'", 403),
        ("role = 'ADMIN'", 200),
        ("scopes = '{quota}'", 403),
        ("scopes = '{download}'", 200),
        ("networks = '{}'", 401),
        ("networks = NULL", 200),
        ("expires_at = now()", 401),
        ("expires_at = NULL", 200),
    ):
        await connection.execute(f"UPDATE api_keys SET {change}")
        await seconds_until(status, lambda: send(gateway, "GET", entry.stac, shown))
    await connection.execute("UPDATE tenants SET name = 'nasa'")

    async def is_of_nasa() -> bool:
        # Until then it is 404: of the old name there is no tenant any more.
        status, *_ = await send(gateway, "HEAD", entry.stac, shown)
        assert status in (200, 404)
        return status == 200 and '"tenant": "nasa"' in gateway.access_log[-1]

    await until(is_of_nasa, "the tenant's new name is known")
    await connection.execute("DELETE FROM api_keys")
    await seconds_until(401, lambda: send(gateway, "GET", entry.stac, shown))


async def test_a_remembered_key_ends_when_it_expires(gateway: RunningGateway, entry: Entry) -> None:
    told = await new_key(gateway, SCIENTIST)
    await gateway.catalogue.connection.execute("UPDATE api_keys SET expires_at = now() + interval '0.7 seconds'")
    statuses: list[int] = []
    while not statuses or statuses[-1] == 200:
        statuses.append((await send(gateway, "HEAD", entry.stac, shown_key(told["key"])))[0])
        assert len(statuses) < 10_000
        await asyncio.sleep(0.01)
    assert statuses[0] == 200
    assert statuses[-1] == 401


@pytest.fixture
async def proxied(
    database: str, redis_url: str, tmp_path: Path, no_background: None
) -> AsyncIterator[tuple[RunningGateway, CountingProxy]]:
    """A gateway whose round trips to PostgreSQL are counted."""
    root = tmp_path / "archive"
    root.mkdir()
    async with (
        counting_proxy(database) as (postgres, dsn),
        running_gateway(config_for(dsn, redis_url, root), root) as running,
    ):
        await running.catalogue.grant("restricted", await running.catalogue.group(SCIENCE))
        yield running, postgres


async def connected(gateway: RunningGateway) -> None:
    async def heard() -> bool:
        _, _, told = await send(gateway, "GET", "/health")
        return bool(told["notifications"]["connected"])

    await until(heard, "changes are heard of")


async def test_a_key_that_was_seen_costs_no_look_up(proxied: tuple[RunningGateway, CountingProxy]) -> None:
    gateway, postgres = proxied
    entries = [await gateway.catalogue.file(b"%d" % number * 100, item=f"item-{number}") for number in range(4)]
    key = (await new_key(gateway, SCIENTIST))["key"]
    await connected(gateway)
    assert (await send(gateway, "GET", entries[0].stac, shown_key(key)))[0] == 200
    for fields in (shown_key(key), bearer(SCIENTIST)):
        # What the first one left to be written down is not theirs.
        before = await _when_quiet(postgres)
        for entry in entries[1:]:
            assert (await send(gateway, "GET", entry.stac, fields))[0] == 200
        assert await _when_quiet(postgres) - before == 3


async def _when_quiet(postgres: CountingProxy) -> int:
    """Round trips, once there were none for a while."""
    while True:
        before = postgres.round_trips
        await asyncio.sleep(0.3)
        if postgres.round_trips == before:
            return before


async def test_a_flood_of_unknown_keys_is_no_flood_of_look_ups(proxied: tuple[RunningGateway, CountingProxy]) -> None:
    gateway, postgres = proxied
    entry = await gateway.catalogue.file(b"content")
    key = (await new_key(gateway, SCIENTIST))["key"]
    same = f"gdk_{'0' * 12}_{'0' * 43}"
    # Some of the round trips write down in the background what was refused.
    for keys, most in (
        ([same] * 300, 10),
        ([same] * 300, 10),
        ([f"gdk_{number:012}_{'0' * 43}" for number in range(1, 301)], 150),
    ):
        await asyncio.sleep(0.02)
        before = postgres.round_trips
        answers = await asyncio.gather(*(send(gateway, "GET", entry.stac, shown_key(one)) for one in keys))
        assert {status for status, *_ in answers} == {401}
        assert postgres.round_trips - before <= most
    assert (await send(gateway, "GET", entry.stac, shown_key(key)))[0] == 200


async def test_without_postgresql_no_key_holds(proxied: tuple[RunningGateway, CountingProxy]) -> None:
    gateway, postgres = proxied
    key = (await new_key(gateway, SCIENTIST, scopes=["download"]))["key"]
    await connected(gateway)
    # A scope that it lacks is refused without asking for more than the key.
    assert (await send(gateway, "GET", "/me/usage", shown_key(key)))[0] == 403
    postgres.shut = True
    postgres.cut()
    assert (await seconds_until(503, lambda: send(gateway, "GET", "/me/usage", shown_key(key)))) < 5
    status, fields, _ = await send(gateway, "GET", "/me/usage", shown_key(f"gdk_{'0' * 12}_{'0' * 43}"))
    assert (status, "Retry-After" in fields) == (503, True)
    postgres.shut = False
    await seconds_until(403, lambda: send(gateway, "GET", "/me/usage", shown_key(key)))


async def test_a_key_revoked_on_one_gateway_is_refused_by_another_within_100_ms(
    gateway: RunningGateway, entry: Entry
) -> None:
    async with running_gateway(gateway.config, gateway.catalogue.root) as other:
        await connected(other)
        seconds = []
        for _ in range(5):
            told = await new_key(gateway, SCIENTIST)
            shown = shown_key(told["key"])
            for _ in range(2):
                assert (await send(other, "GET", entry.stac, shown))[0] == 200
            assert (await send(gateway, "DELETE", f"/me/keys/{told['id']}", bearer(SCIENTIST)))[0] == 204
            seconds.append(await seconds_until(401, lambda shown=shown: send(other, "HEAD", entry.stac, shown)))  # type: ignore[misc]
        # A busy machine may stall any of them.
        assert min(seconds) < 0.1, seconds


async def test_last_uses_are_written_in_the_background_and_at_most_once_a_minute(
    database: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "USES_SECONDS", 0.05)
    async with running_gateway(config_for(database, redis_url, tmp_path), tmp_path) as gateway:
        connection = gateway.catalogue.connection
        await gateway.catalogue.tenant()
        used, other = await new_key(gateway, SCIENTIST), await new_key(gateway, OUTSIDER)

        async def use() -> None:
            assert (await send(gateway, "GET", "/me/usage", shown_key(used["key"])))[0] == 403

        async def written() -> object:
            return await connection.fetchval("SELECT last_used_at FROM api_keys WHERE key_id = $1", used["id"])

        assert await written() is None
        await use()
        await until(written, "the first use is written")
        first = await written()
        await use()
        await connection.execute("UPDATE api_keys SET last_used_at = last_used_at - interval '30 seconds'")
        await asyncio.sleep(0.2)
        await connection.execute("UPDATE api_keys SET last_used_at = last_used_at - interval '1 hour'")
        before = await written()
        assert before < first  # type: ignore[operator]
        await use()

        async def is_newer() -> bool:
            return bool(await written() > first)  # type: ignore[operator]

        await until(is_newer, "a later use is written")
        assert (await send(gateway, "GET", "/me/keys", bearer(OUTSIDER)))[2][0]["lastUsed"] is None
        assert other["lastUsed"] is None


async def test_uses_are_written_when_the_gateway_ends(database: str, redis_url: str, tmp_path: Path) -> None:
    config = config_for(database, redis_url, tmp_path)
    async with running_gateway(config, tmp_path) as gateway:
        await gateway.catalogue.tenant()
        key = (await new_key(gateway, SCIENTIST))["key"]
        assert (await send(gateway, "GET", "/me/usage", shown_key(key)))[0] == 403
    async with running_gateway(config, tmp_path) as gateway:
        assert (await send(gateway, "GET", "/me/keys", bearer(SCIENTIST)))[2][0]["lastUsed"] is not None


async def test_the_secret_is_nowhere_but_with_its_owner(gateway: RunningGateway, entry: Entry) -> None:
    told = await new_key(gateway, SCIENTIST)
    secret = told["key"].split("_", 2)[2]
    for fields in forms(told["key"]):
        await send(gateway, "GET", entry.stac, fields)
        await send(gateway, "GET", "/me/usage", fields)
    for table in ("api_keys", "changes"):
        rows = await gateway.catalogue.connection.fetch(f"SELECT t::text AS text FROM {table} t")
        assert rows
        assert not any(secret in row["text"] for row in rows)
    listed = await send(gateway, "GET", "/me/keys", bearer(SCIENTIST))
    assert secret not in repr(listed)
    assert not any(secret in line or told["key"] in line for line in gateway.access_log)


def test_a_field_that_clients_send_on_keeps_them_from_being_redirected() -> None:
    delivery: Literal["auto", "redirect"]
    for delivery in ("auto", "redirect"):
        circumstances = Circumstances(
            delivery=delivery,
            passes_through=False,
            can_sign=True,
            offered=False,
            several_parts=False,
            partial=False,
            size=10**9,
            redirect_min_size=1,
            agents=["curl/7.83"],
        )
        agent = {"User-Agent": "curl/8.0"}
        assert decide(circumstances, CIMultiDict(agent)).way == "redirect"
        assert decide(circumstances, CIMultiDict(agent | basic("me", "key"))).way == "redirect"
        assert decide(circumstances, CIMultiDict(agent | {"x-api-key": "key"})).way == "stream"

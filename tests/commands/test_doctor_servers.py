"""What the doctor finds of PostgreSQL, of Redis and of keys."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
import redis
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr

from gateway.config import Database, Identity, JwtKey, Redis
from gateway.doctor.clocks import Skew, clock_finding, skew
from gateway.doctor.findings import Check, Finding, Findings, examine, ok
from gateway.doctor.identity import look_at_keys
from gateway.doctor.postgresql import look_at_postgresql
from gateway.doctor.redis_server import look_at_redis
from tests.commands.support import Stand, findings, problems, valkey, warnings
from tests.rights.support import grant


async def look_at_database(dsn: str, pool_size: int = 8) -> list[Finding]:
    return await findings(
        look_at_postgresql(Database(dsn=SecretStr(dsn), pool_size=pool_size), {"properties", "rules"})
    )


async def look_at_counters(url: str) -> list[Finding]:
    return await findings(look_at_redis(Redis(url=SecretStr(url))))


async def test_rights_that_ask_a_policy_which_nobody_knows(stand: Stand) -> None:
    made = stand.catalogue
    for name, policy in (("a", "properties"), ("b", "rules"), ("c", "ruls"), ("d", None), ("e", "ruls"), ("f", "x")):
        await grant(made, name, await made.group("science"), "CUSTOM_ACCESS", policy=policy)
    # Which never asks it.
    await grant(made, "g", await made.group("science"), "FULL_ACCESS", policy="ruls")
    (found,) = problems(await look_at_database(stand.database))
    assert found == (
        "4 rights leave it to a policy that nobody knows, so they open nothing: 'ruls' (c of esa: science), "
        "None (d of esa: science), 'ruls' (e of esa: science), …"
    )


@dataclasses.dataclass(frozen=True)
class Role:
    """A role of PostgreSQL that may look things up and keep the record of downloads, as a gateway's does."""

    name: str
    dsn: str
    superuser: asyncpg.Connection


@pytest.fixture
async def role(database: str) -> AsyncIterator[Role]:
    superuser = await asyncpg.connect(database)
    name = f"doctor_{secrets.token_hex(4)}"
    parts = urlsplit(database)
    try:
        await superuser.execute(
            f"CREATE ROLE {name} LOGIN PASSWORD 'hush'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}; "
            f"GRANT CREATE ON SCHEMA public TO {name}; ALTER TABLE download_log OWNER TO {name}"
        )
        yield Role(name, parts._replace(netloc=f"{name}:hush@{parts.hostname}:{parts.port}").geturl(), superuser)
    finally:
        await superuser.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
        await superuser.close()


async def test_a_database_in_order_has_nothing_to_change(role: Role) -> None:
    found = await look_at_database(role.dsn)
    assert {finding.level for finding in found} == {"ok"}
    version = await role.superuser.fetchval("SHOW server_version")
    assert [finding.text for finding in found][:6] == [
        f"reachable, version {version}",
        "schema version 6",
        "answers look-ups",
        "rights ask policies that there are",
        "the record of downloads can be kept",
        "takes changes",
    ]


async def test_a_database_that_is_not_there_is_named_without_its_password() -> None:
    (found,) = await look_at_database("postgresql://user:hush@127.0.0.1:1/x")
    assert found.level == "problem"
    assert "cannot be reached" in found.text
    assert "hush" not in found.text


async def test_a_database_without_schema_or_with_another_is_to_be_migrated(role: Role) -> None:
    await role.superuser.execute("INSERT INTO schema_version (version) VALUES (99)")
    found = await look_at_database(role.dsn)
    assert problems(found) == ["database: has schema version 99, this gateway needs 6"]
    await role.superuser.execute("DROP TABLE schema_version")
    found = await look_at_database(role.dsn)
    assert [(it.text, it.remedy) for it in found if it.level == "problem"] == [
        ("database: has no schema yet", "run: gateway migrate --config FILE")
    ]


async def test_a_database_that_refuses_look_ups_or_changes(role: Role) -> None:
    await role.superuser.execute(f"REVOKE SELECT ON licences FROM {role.name}")
    await role.superuser.execute(f"ALTER ROLE {role.name} SET default_transaction_read_only = on")
    refused, read_only = problems(await look_at_database(role.dsn))
    assert refused == "refuses look-ups: permission denied for table licences"
    assert read_only.startswith("takes no changes")


async def test_a_role_that_cannot_keep_the_record_of_downloads(role: Role) -> None:
    month = (
        "CREATE TABLE download_log_2026_11 PARTITION OF download_log FOR VALUES FROM ('2026-11-01') TO ('2026-12-01')"
    )
    await role.superuser.execute(month)
    (found,) = [finding for finding in await look_at_database(role.dsn) if finding.level == "problem"]
    assert found.text == "the record of downloads cannot be kept: its role does not own download_log_2026_11"
    assert found.remedy.startswith("ALTER TABLE ")
    await role.superuser.execute("ALTER TABLE download_log OWNER TO CURRENT_USER")
    (text,) = problems(await look_at_database(role.dsn))
    assert text.endswith("does not own download_log, download_log_2026_11")
    # A member of the role that owns them may do the same.
    owner = f"{role.name}_owner"
    await role.superuser.execute(
        f"CREATE ROLE {owner}; GRANT {owner} TO {role.name}; ALTER TABLE download_log OWNER TO {owner};"
        f"ALTER TABLE download_log_2026_11 OWNER TO {owner}"
    )
    try:
        assert problems(await look_at_database(role.dsn)) == []
        await role.superuser.execute(f"REVOKE CREATE ON SCHEMA public FROM {role.name}")
        (text,) = problems(await look_at_database(role.dsn))
        assert text == "the record of downloads cannot be kept: its role may make no tables in the schema public"
    finally:
        await role.superuser.execute(f"DROP OWNED BY {owner}; DROP ROLE {owner}")


# Ten more stand beside the pool.
@pytest.mark.parametrize(("limit", "level"), [(24, "problem"), (25, "warning"), (49, "warning"), (50, "ok")])
async def test_a_pool_needs_room_for_itself_and_its_successor(role: Role, limit: int, level: str) -> None:
    await role.superuser.execute(f"ALTER ROLE {role.name} CONNECTION LIMIT {limit}")
    found = [finding for finding in await look_at_database(role.dsn, pool_size=9) if "room for" in finding.text]
    assert [finding.level for finding in found] == [level]


async def test_counters_in_order_have_nothing_to_change() -> None:
    with valkey() as url:
        found = await look_at_counters(url)
        assert {finding.level for finding in found} == {"ok"}, found
        assert "Valkey" in found[0].text
        with redis.Redis.from_url(url) as client:
            assert client.dbsize() == 0


async def test_counters_that_would_be_evicted() -> None:
    with valkey("--appendonly", "no") as url, redis.Redis.from_url(url) as client:
        found = await look_at_counters(url)
        assert (problems(found), warnings(found)) == ([], [])
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert len(warnings(await look_at_counters(url))) == 1
        client.config_set("maxmemory", "100mb")
        assert problems(await look_at_counters(url)) == [
            "maxmemory-policy allkeys-lru: it evicts counters when memory is short"
        ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--replicaof", "127.0.0.1", "1"], ["is a replica", "ReadOnlyError"]),
        (["--cluster-enabled", "yes"], ["is a node of a cluster", "ClusterDownError"]),
        (["--maxmemory", "1"], ["OutOfMemoryError"]),
    ],
    ids=["replica", "cluster", "full"],
)
async def test_counters_that_cannot_be_changed(options: list[str], expected: list[str]) -> None:
    with valkey(*options) as url:
        found = problems(await look_at_counters(url))
        assert len(found) == len(expected)
        for text, part in zip(found, expected, strict=True):
            assert part in text


async def test_a_user_of_redis_that_may_do_too_little() -> None:
    with valkey() as url, redis.Redis.from_url(url) as client:
        client.acl_setuser("gateway", enabled=True, passwords=["+hush"], categories=["+@all"], keys=["gateway:*"])
        path = url.removeprefix("unix://")
        as_user = f"unix://gateway:hush@{path}"
        assert {finding.level for finding in await look_at_counters(as_user)} == {"ok"}
        client.acl_setuser("gateway", enabled=True, commands=["-info", "-evalsha", "-time"])
        found = await look_at_counters(as_user)
        assert [text.partition(":")[0] for text in warnings(found)] == ["does not tell about itself"]
        assert [text.partition(":")[0] for text in problems(found)] == ["refuses scripts"]


async def test_counters_that_are_not_there_are_named_without_their_password() -> None:
    for url in ("redis://:hush@127.0.0.1:1/0", "redis://:hush@127.0.0.1:1/0?option=hush"):
        (found,) = await look_at_counters(url)
        assert found.level == "problem"
        assert "hush" not in found.text


async def test_keys_of_tokens(tmp_path: Path) -> None:
    file = tmp_path / "issuer.pem"
    setting = JwtKey(algorithms=["RS256"], public_key_file=file)
    identity = Identity(jwt=[JwtKey(algorithms=["HS256"], secret=SecretStr("s" * 32)), setting])
    first, second = await findings(look_at_keys(identity))
    assert (first.text, second.level) == ("key 1 (HS256): a secret", "problem")
    assert "No such file" in second.text
    file.write_text("no key")
    assert "holds no PEM public key" in (await findings(look_at_keys(identity)))[1].text
    key = rsa.generate_private_key(65537, 2048).public_key()
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    file.write_bytes(key.public_bytes(encoding, form))
    assert (await findings(look_at_keys(identity)))[1] == ok("key 2 (RS256): RSA of 2048 bits")


def test_clocks_are_compared_as_far_as_they_can_be_read() -> None:
    assert skew(107, 100, 102) == Skew(6, 1)
    assert skew(107, 100, 102).certain == 5
    assert skew(107, 107.9, 107.9, resolution=1).certain == 0
    assert clock_finding(skew(107, 100, 102)).level == "ok"
    assert clock_finding(skew(93, 100, 102)).text == "its clock is 8 s behind ours"


async def says(*found: Finding) -> Findings:
    for finding in found:
        yield finding


async def hangs() -> Findings:
    yield ok("first")
    await asyncio.Event().wait()


async def blocks(release: threading.Event) -> Findings:
    yield ok("first")
    release.wait()


async def fails() -> Findings:
    yield ok("first")
    raise RuntimeError("a secret")


def test_checks_run_at_once_and_are_told_in_order() -> None:
    release = threading.Event()
    checks = [
        Check("hangs", hangs),
        Check("blocks", lambda: blocks(release)),
        Check("fails", fails),
        Check("says", lambda: says(ok("here"))),
    ]
    started = time.monotonic()
    found = [(subject, finding.level, finding.text) for subject, finding in examine(checks, seconds=0.2)]
    release.set()
    assert time.monotonic() - started < 10
    assert found == [
        ("hangs", "ok", "first"),
        ("hangs", "problem", "did not answer within 0.2 s"),
        ("blocks", "ok", "first"),
        ("blocks", "problem", "did not answer within 0.2 s"),
        ("fails", "ok", "first"),
        ("fails", "problem", "looking at it failed: RuntimeError"),
        ("says", "ok", "here"),
    ]

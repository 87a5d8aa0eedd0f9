"""``gateway keys`` and ``gateway links``."""

from __future__ import annotations

import json

import asyncpg

from gateway.config import load
from tests.commands.support import Stand, run
from tests.credentials import LINK_SECRET, new_link, seconds_until, send, shown_key
from tests.harness import SCIENTIST, SECRET, running_gateway

ROBOT = ("--email", "robot@example.org")


async def test_keys_are_made_listed_and_revoked(stand: Stand) -> None:
    config = stand.configure(server={"port": 0, "shutdown_timeout": 1})
    common = ("--config", config, "--tenant", "esa")
    async with running_gateway(load(config), stand.root) as gateway:
        entry = await stand.catalogue.file(b"content")
        made = await run(
            "keys", "create", *common, *ROBOT, "--label", "nightly run", "--group", "science",
            "--scope", "download", "--scope", "quota", "--network", "127.0.0.0/8", "--network", "::1", "--days", "30",
        )  # fmt: skip
        assert made.exit_code == 0, made.output
        key = made.stdout.strip()
        key_id = key.split("_")[1]
        assert key.startswith("gdk_")
        assert made.stderr == f"key {key_id} of robot@example.org, for download, quota\n"
        assert (await send(gateway, "GET", entry.stac, shown_key(key)))[0] == 200
        assert (await send(gateway, "GET", "/me/usage", shown_key(key)))[0] == 200

        listed = await run("keys", "list", *common, *ROBOT)
        assert listed.exit_code == 0
        (line,) = listed.output.splitlines()
        assert line.startswith(f"{key_id} robot@example.org REGISTERED_USER download,quota expires 20")
        assert line.endswith("'nightly run'")
        assert key.split("_", 2)[2] not in line
        assert (await run("keys", "list", *common, "--email", "nobody@example.org")).output == ""

        assert (await run("keys", "revoke", *common, key_id)).output == f"{key_id} is revoked\n"
        await seconds_until(401, lambda: send(gateway, "GET", "/me/usage", shown_key(key)))
        assert " revoked 20" in (await run("keys", "list", *common)).output
        changes = await stand.catalogue.connection.fetch("SELECT actor, action, detail FROM changes ORDER BY change_id")
        assert [(row["actor"], row["action"]) for row in changes] == [
            ("command line", "key.create"),
            ("command line", "key.revoke"),
        ]
        assert json.loads(changes[0]["detail"])["networks"] == ["127.0.0.0/8", "::1/128"]


async def test_the_command_line_may_give_any_role_that_there_is(stand: Stand) -> None:
    config = stand.configure()
    common = ("keys", "create", "--config", config, *ROBOT, "--label", "x")
    assert (await run(*common, "--tenant", "esa", "--role", "INSTANCE_ADMIN")).exit_code == 0
    for arguments, words in (
        (("--tenant", "esa", "--role", "NOBODY"), "There is no role 'NOBODY'."),
        (("--tenant", "nasa"), "There is no tenant 'nasa'."),
        (("--tenant", "esa", "--network", "localhost"), "'localhost' does not appear to be"),
        (("--tenant", "esa", "--scope", "all"), "'all' is not one of"),
        (("--tenant", "esa", "--days", "0"), "--days"),
    ):
        found = await run(*common, *arguments)
        assert (found.exit_code != 0, words in found.output) == (True, True), found.output


async def test_a_whole_key_is_no_name_of_one(stand: Stand) -> None:
    config = stand.configure()
    key = f"gdk_{'a' * 12}_{'b' * 43}"
    found = await run("keys", "revoke", "--config", config, "--tenant", "esa", key)
    assert (found.exit_code, "not the whole key" in found.output, key in found.output) == (2, True, False)
    found = await run("keys", "revoke", "--config", config, "--tenant", "esa", "a" * 12)
    assert (found.exit_code, found.output) == (1, "Error: There is no such key.\n")


async def test_keys_of_links_are_revoked_by_user_by_name_and_all_together(stand: Stand) -> None:
    config = stand.configure(
        server={"port": 0, "shutdown_timeout": 1},
        **{"identity.links": {"secret": LINK_SECRET}},
    )
    common = ("links", "revoke-key", "--config", config, "--tenant", "esa")
    async with running_gateway(load(config), stand.root) as gateway:
        entry = await stand.catalogue.file(b"content")
        address = {"product": entry.product, "checksum": entry.checksum}
        for how in ("email", "key", "all"):
            link = await new_link(gateway, SCIENTIST, **address)
            path = link["url"].partition("example.org")[2]
            assert (await send(gateway, "GET", path))[0] == 200
            key_id = link["id"].split("-")[0]
            arguments = {"email": ("--email", str(SCIENTIST.email)), "key": ("--key", key_id), "all": ("--all",)}[how]
            revoked = await run(*common, *arguments)
            assert (revoked.exit_code, revoked.output) == (0, f"{key_id} is revoked\n")
            await seconds_until(401, lambda path=path: send(gateway, "HEAD", path))  # type: ignore[misc]
            again = await run(*common, *arguments)
            assert (again.exit_code, again.output) == (1, "Error: there is no such key in use\n")
    for arguments in ((), ("--all", "--key", "x")):
        assert (await run(*common, *arguments)).exit_code == 2


async def test_what_cannot_be_reached_is_told_in_a_line(stand: Stand) -> None:
    connection: asyncpg.Connection = stand.catalogue.connection
    await connection.execute("DELETE FROM schema_version")
    found = await run("keys", "list", "--config", stand.configure(), "--tenant", "esa")
    assert (found.exit_code, "has no schema yet" in found.output) == (2, True)
    assert SECRET not in found.output


async def test_what_the_database_does_not_take_is_refused_in_plain_words(stand: Stand) -> None:
    config = stand.configure()
    for arguments in (("--email", "", "--label", "x"), ("--email", "a@example.org", "--label", "")):
        found = await run("keys", "create", "--config", config, "--tenant", "esa", *arguments)
        assert (found.exit_code, found.output.startswith("Error: The database does not take")) == (1, True), (
            found.output
        )


async def test_sessions_of_a_user_are_ended(stand: Stand) -> None:
    common = ("sessions", "end", "--config", stand.configure(), "--tenant", "esa")
    connection = stand.catalogue.connection
    for number, email in enumerate(("ada@example.org", "ada@example.org", "bob@example.org")):
        await connection.execute(
            "INSERT INTO sessions (hash, tenant_id, subject, email, role, groups, expires_at) "
            "SELECT $1, tenant_id, 's', $2, 'PUBLIC', '{}', now() + interval '1 hour' FROM tenants WHERE name = 'esa'",
            str(number),
            email,
        )
    for wrong in ((), ("--all", "--email", "ada@example.org")):
        assert (await run(*common, *wrong)).exit_code == 2
    assert (await run(*common[:-1], "nasa", "--all")).output == "0 ended\n"
    assert (await run(*common, "--email", "ada@example.org")).output == "2 ended\n"
    assert [row["email"] for row in await connection.fetch("SELECT email FROM sessions")] == ["bob@example.org"]
    assert (await run(*common, "--all")).output == "1 ended\n"
    changes = await connection.fetch("SELECT action, object FROM changes ORDER BY change_id")
    assert [tuple(row) for row in changes] == [
        ("session.end", "ada@example.org"),
        ("session.end", "bob@example.org"),
    ]

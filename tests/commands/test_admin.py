"""``gateway admin``: the same changes as by REST, recorded as those of the command line."""

from __future__ import annotations

import json
from pathlib import Path

from gateway.config import load
from tests.commands.support import Stand, run
from tests.harness import OUTSIDER, running_gateway


async def said(config: Path, *arguments: str, status: int = 0) -> list[str]:
    """The lines of a command that ends with ``status``."""
    result = await run("admin", *arguments, "--config", config)
    assert result.exit_code == status, result.output
    return result.output.splitlines()


async def test_tenants(stand: Stand) -> None:
    config = stand.configure()
    assert await said(config, "tenants", "create", "new") == ["created"]
    assert await said(config, "tenants", "create", "new") == ["is there already"]
    assert await said(config, "tenants", "list") == ["esa\t", "new\t"]
    assert await said(config, "tenants", "delete", "new") == []
    assert await said(config, "tenants", "delete", "new", status=1) == ["Error: There is no tenant 'new'."]
    assert await said(config, "tenants", "delete", "esa", status=1) == [
        "Error: The tenant is not empty: it has datasets, groups."
    ]
    (line,) = await said(config, "changes", "--action", "tenant.delete")
    assert json.loads(line)["actor"] == "command line"


async def test_groups_members_and_rights_let_people_download(stand: Stand, tmp_path: Path) -> None:
    config = stand.configure(server={"port": 0, "shutdown_timeout": 1})
    of = ("--tenant", "esa")
    async with running_gateway(load(config), stand.root) as gateway:
        entry = await stand.catalogue.file(b"content", collection="fresh")
        assert (await gateway.get(entry.stac, OUTSIDER))[0].status == 403
        assert await said(config, "groups", "put", "team", *of) == ["created"]
        assert await said(config, "groups", "put", "team", "--public", *of) == ["changed"]
        assert await said(config, "groups", "put", "team", *of) == ["changed"]
        assert await said(config, "groups", "put", "team", *of) == ["same"]
        assert await said(config, "members", "add", "team", "a@x", OUTSIDER.email or "", *of) == ["2 added"]
        assert await said(config, "rights", "put", "fresh", "team", *of) == ["created"]
        assert (await gateway.get(entry.stac, OUTSIDER))[0].status == 200
        assert await said(config, "members", "remove", "team", OUTSIDER.email or "", *of) == []
        assert (await gateway.get(entry.stac, OUTSIDER))[0].status == 403
    file = tmp_path / "members"
    file.write_text("b@x\n\n  c@x \n", encoding="utf-8")
    assert await said(config, "members", "put", "team", str(file), *of) == ["2 added, 1 removed"]
    assert await said(config, "members", "list", "team", *of) == ["b@x", "c@x"]
    assert await said(config, "groups", "list", *of) == ["science\t0\tprivate", "team\t2\tprivate"]
    narrowed = (
        "--metadata",
        "CUSTOM_ACCESS",
        "--policy",
        "properties",
        "--policy-options",
        '{"days": 3}',
        "--min-score",
        "2",
    )
    assert await said(config, "rights", "put", "fresh", "team", *narrowed, "--quality", "ACCEPTED", *of) == ["changed"]
    assert await said(config, "rights", "list", "fresh", *of) == [
        "team\tCUSTOM_ACCESS\tINHERITED_ACCESS\t"
        + json.dumps({"min": 2.0, "levels": ["ACCEPTED"], "policy": "properties", "options": {"days": 3}})
    ]
    await said(config, "rights", "delete", "fresh", "team", *of)
    await said(config, "groups", "delete", "team", *of)
    assert "no group 'team'" in (await said(config, "groups", "delete", "team", *of, status=1))[0]
    lines = [json.loads(line) for line in await said(config, "changes", *of, "--limit", "3")]
    assert [line["action"] for line in lines] == ["group.delete", "right.delete", "right.change"]
    assert await said(config, "changes", *of, "--since", "2999-01-01") == []


async def test_licences_and_roles(stand: Stand) -> None:
    config = stand.configure()
    of = ("--tenant", "esa")
    await stand.catalogue.dataset("restricted")
    put = ("licences", "put", "cc", "--url", "https://example.org/cc", "--title", "Terms", *of)
    assert await said(config, *put) == ["created"]
    assert await said(config, *put, "--public") == ["changed"]
    assert await said(config, "licences", "new-version", "cc", *of) == ["version 2"]
    await said(config, "licences", "assign", "restricted", "cc", *of)
    await said(config, "licences", "default", "cc", *of)
    assert await said(config, "licences", "list", *of) == ["cc\t2\thttps://example.org/cc\tTerms\tpublic\tdefault"]
    assert await said(config, "tenants", "list") == ["esa\tcc"]
    assert "collections: restricted" in (await said(config, "licences", "delete", "cc", *of, status=1))[0]
    await said(config, "licences", "assign", "restricted", *of)
    await said(config, "licences", "default", *of)
    await said(config, "licences", "delete", "cc", *of)
    assert await said(config, "roles", "put", "PI", "EXPLOIT", *of) == ["created"]
    assert await said(config, "roles", "list", *of) == ["PI\tEXPLOIT"]
    await said(config, "roles", "delete", "PI", *of)
    assert await said(config, "roles", "put", "PI", "INSTANCE_ADMIN", *of, status=1) == [
        "Error: The parent of a role is one of PUBLIC, REGISTERED_USER, EXPLOIT, ADMIN."
    ]


async def test_limits(stand: Stand) -> None:
    config = stand.configure()
    of = ("--tenant", "esa")
    await said(config, "limits", "put", "group", "bytes", "month", "500", "--name", "science", "--shared", *of)
    await said(config, "limits", "put", "group", "bytes", "month", "700", "--name", "science", "--shared", *of)
    await said(config, "limits", "put", "anonymous", "rate", "60s", "10", "--burst", "3", "--capped", *of)
    await said(config, "limits", "put", "user", "downloads", "total", "-1", "--name", "a@x", "--slow-rate", "9", *of)
    assert await said(config, "limits", "list", *of) == [
        "anonymous\t\teach\trate\t60s\t10\tburst 3 capped",
        "group\tscience\tshared\tbytes\tmonth\t700\t",
        "user\ta@x\teach\tdownloads\ttotal\t-1\tslow 9",
    ]
    gone = ("limits", "delete", "group", "bytes", "month", "--name", "science", *of)
    assert await said(config, *gone, status=1) == ["Error: There is no such rule."]
    assert await said(config, *gone, "--shared") == []
    assert "This is no rule" in (await said(config, "limits", "put", "tenant", "bytes", "now", "1", *of, status=1))[0]
    lines = [json.loads(line) for line in await said(config, "changes", *of)]
    assert [line["action"] for line in lines] == ["rule.delete", *["rule.put"] * 4]
    assert lines[-1]["detail"]["value"] == 500


async def test_what_cannot_be_is_refused_and_changes_nothing(stand: Stand) -> None:
    config = stand.configure()
    of = ("--tenant", "esa")
    for arguments, status, reason in (
        (("groups", "list", "--tenant", "ghost"), 1, "There is no tenant 'ghost'."),
        (("groups", "put", "a\x1b[2J", *of), 1, "control characters"),
        (("members", "add", "science", "a b", *of), 1, "without blanks"),
        (("members", "list", "\x1b[2J", *of), 1, r"There is no group '\x1b[2J'."),
        (("rights", "put", "nothing", "science", *of), 1, "There is no collection 'nothing'."),
        (("rights", "put", "restricted", "science", "--files", "ALL", *of), 2, "INHERITED_ACCESS"),
        (("rights", "put", "restricted", "science", "--policy-options", "[]", *of), 2, "JSON object"),
        (
            ("rights", "put", "restricted", "science", "--policy", "new", *of),
            1,
            "no policy 'new'; there are: properties",
        ),
        (("licences", "put", "l", "--url", "javascript:x", *of), 1, "http:// or https://"),
        (("groups", "list"), 2, "--tenant"),
    ):
        lines = await said(config, *arguments, status=status)
        assert reason in "\n".join(lines), (arguments, lines)
        assert "\x1b" not in "".join(lines)
    assert await stand.catalogue.connection.fetchval("SELECT count(*) FROM changes") == 0


async def test_what_the_database_holds_is_shown_on_one_line(stand: Stand) -> None:
    config = stand.configure()
    # Of a time when names were not looked at.
    await stand.catalogue.group("a\nb\x1b[2J")
    assert await said(config, "groups", "list", "--tenant", "esa") == ["a b\\x1b[2J\t0\tprivate", "science\t0\tprivate"]


async def test_a_database_that_is_away_is_said_to_be(stand: Stand) -> None:
    config = stand.configure(database={"dsn": "postgresql://user:hunter2@127.0.0.1:1/none"})
    lines = await said(config, "tenants", "list", status=2)
    assert "database.dsn: PostgreSQL cannot be reached there" in "\n".join(lines)
    assert "hunter2" not in "\n".join(lines)


def test_levels_of_the_command_are_those_of_rights() -> None:
    from gateway.administration.rights import FILE_LEVELS, METADATA_LEVELS
    from gateway.commands.admin_grants import LEVELS

    assert (LEVELS["metadata"], LEVELS["files"]) == (METADATA_LEVELS, FILE_LEVELS)

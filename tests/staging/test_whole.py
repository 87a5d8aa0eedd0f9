"""All of it: two gateways in processes of their own, an operator's programs, a cache, and clients that wait unaided."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from tests.faults.process import ServingProcess, Tables, serving_process
from tests.harness import SCIENCE, SECRET, Catalogue, Entry, bearer, principal, token

CONTENT = b"0123456789abcdef" * 65536
USERS = [principal(f"user-{number}", SCIENCE) for number in range(20)]

PROGRAM = """
import json, pathlib, shutil, sys, time
action, library = sys.argv[1], pathlib.Path(sys.argv[2])
asked = json.load(sys.stdin)
seconds = float((library / "seconds").read_text())
with (library / "journal").open("a") as journal:
    journal.write(action + " " + " ".join(copy["location"] for copy in asked["copies"]) + "\\n")
if action == "fetch":
    shutil.copyfile(library / "tape" / asked["copies"][0]["location"], asked["target"])
    sys.exit()
answers = []
for copy in asked["copies"]:
    drive = library / copy["location"]
    if action == "stage":
        drive.touch()
    if action == "release":
        answers.append({"key": copy["key"]})
    elif time.time() - drive.stat().st_mtime > seconds:
        answers.append({"key": copy["key"], "state": "ONLINE"})
    else:
        answers.append({"key": copy["key"], "state": "STAGING", "ready": seconds + drive.stat().st_mtime - time.time()})
json.dump({"version": 1, "copies": answers}, sys.stdout)
"""
"""A tape library that takes some seconds for each copy."""


class Site:
    """Two gateways before one library."""

    def __init__(self, gateways: list[ServingProcess], catalogue: Catalogue, library: Path) -> None:
        self.gateways = gateways
        self.catalogue = catalogue
        self.library = library

    async def file(self, name: str, content: bytes = CONTENT) -> Entry:
        (self.library / "tape" / name).write_bytes(content)
        entry = await self.catalogue.described(content, item=name)
        await self.catalogue.copy(entry, "tape", name, None, state="NEARLINE")
        return entry

    def journal(self, action: str) -> list[str]:
        lines = (self.library / "journal").read_text().splitlines()
        return [line for line in lines if line.startswith(action)]


@pytest.fixture
async def site(database: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    library, cache, script = tmp_path / "library", tmp_path / "cache", tmp_path / "program.py"
    (library / "tape").mkdir(parents=True)
    (library / "seconds").write_text("6")
    (cache / ".scratch").mkdir(parents=True)
    script.write_text(PROGRAM)
    (cache / ".scratch").chmod(0o700)
    tape: dict[str, object] = {"name": "tape", "plugin": "command", "type": "NEARLINE", "tenants": ["*"]}
    for action in ("stage", "query", "release", "fetch"):
        tape[action] = [sys.executable, "-S", str(script), action, str(library)]
    tables: Tables = {
        "server": {"port": 0, "shutdown_timeout": 1},
        "database": {"dsn": database, "timeout": 20},
        "redis": {"url": redis_url, "timeout": 20},
        "staging": {"cache": "cache", "cache_size": 10**8, "poll": 0.5},
        "identity.jwt": [{"algorithms": ["HS256"], "secret": SECRET}],
        "storage": [tape, {"name": "cache", "plugin": "local", "tenants": ["*"], "root": str(cache)}],
    }
    connection = await asyncpg.connect(database)
    with contextlib.ExitStack() as stack:
        gateways = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            process = stack.enter_context(serving_process(tmp_path / name, tables))
            gateways.append(process)
        catalogue = Catalogue(connection, tmp_path)
        await catalogue.grant("restricted", await catalogue.group(SCIENCE))
        yield Site(gateways, catalogue, library)
    await connection.close()


async def test_a_thousand_ask_one_restore_comes_and_curl_waits_for_it_unaided(site: Site, tmp_path: Path) -> None:
    entry = await site.file("wanted")
    fields = [bearer(one) for one in USERS]
    curls = [
        await asyncio.create_subprocess_exec(
            *("curl", "-fsS", "--retry", "10", "--max-time", "60", "-o", str(tmp_path / f"got-{number}")),
            *("-H", f"Authorization: Bearer {token(USERS[number])}", site.gateways[number % 2].url + entry.regards),
        )
        for number in range(4)
    ]
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:

        async def get(number: int) -> list[int]:
            """Ask, and come back as told, until the file is there; what one was told."""
            url = site.gateways[number % 2].url + entry.stac
            told: list[int] = []
            while True:
                async with session.get(url, headers=fields[number // 2 % len(USERS)]) as answer:
                    body = await answer.read()
                    assert answer.status in (200, 503), body
                    if answer.status == 200:
                        assert body == CONTENT
                        return told
                    told.append(int(answer.headers["Retry-After"]))
                assert len(told) < 10
                await asyncio.sleep(told[-1])

        told = await asyncio.gather(*map(get, range(1000)))
        assert sum(bool(one) for one in told) > 500
        assert all(3 <= seconds <= 15 for one in told for seconds in one)
        assert [await curl.wait() for curl in curls] == [0] * len(curls)
        for number in range(len(curls)):
            assert (tmp_path / f"got-{number}").read_bytes() == CONTENT
        async with session.get(site.gateways[0].url + entry.regards, headers=fields[0]) as answer:
            assert (answer.status, await answer.read()) == (200, CONTENT)
            assert answer.headers["File-State"].startswith("restored;until=@")
    connection = site.catalogue.connection
    assert [tuple(row) for row in await connection.fetch("SELECT state, count(*) FROM restores GROUP BY 1")] == [
        ("RESTORED", 1)
    ]
    assert len(site.journal("stage")) == 1
    assert len(site.journal("fetch")) == 1


@pytest.mark.skipif(not os.environ.get("GATEWAY_TEST_FULL"), reason="GATEWAY_TEST_FULL is not set: it takes 10 s")
async def test_what_vanishes_from_the_cache_is_restored_anew(site: Site, tmp_path: Path) -> None:
    (site.library / "seconds").write_text("0.5")
    entry, fields = await site.file("wanted"), bearer(USERS[0])
    url = site.gateways[0].url + entry.stac

    async def got() -> int:
        """Seconds that a client waits, as it is told to, until it has the file."""
        waited = 0
        async with aiohttp.ClientSession() as session, asyncio.timeout(90):
            while True:
                async with session.get(url, headers=fields) as answer:
                    if answer.status == 200:
                        assert await answer.read() == CONTENT
                        return waited
                    assert answer.status == 503, await answer.text()
                    seconds = int(answer.headers["Retry-After"])
                    waited += seconds
                await asyncio.sleep(seconds)

    assert await got() > 0
    for path in (tmp_path / "cache").rglob("*"):
        if path.is_file():
            path.unlink()
    assert await got() > 0
    assert len(site.journal("stage")) == 2

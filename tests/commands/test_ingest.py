"""``gateway ingest`` from another STAC API: what it takes from the command line, and that no kill costs a page."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from aiohttp import web

from gateway.catalog.ingest.events import Count, Place, Rejection, Remark, Summary
from gateway.cli_report import Report
from gateway.commands.ingest import API_KEY, TOKEN
from tests.catalog.ingest.remote.api import fine, running_api, stall, status
from tests.commands.support import Stand, ended, run, start

SECRET_TOKEN = "t0ken-that-nobody-sees"


async def test_a_load_that_is_killed_goes_on_where_it_was(stand: Stand) -> None:
    reached = asyncio.Event()

    async def stop_here(request: web.Request) -> web.StreamResponse | None:
        reached.set()
        return await stall(request)

    config = stand.configure()
    async with running_api(scenes=25) as api:
        api.faults = [fine, fine, stop_here]
        arguments: list[str | Path] = [
            "ingest",
            f"{api.url}/",
            "--config",
            config,
            "--tenant",
            "new",
            "--page-size",
            "10",
        ]
        process = start(*arguments)
        await asyncio.wait_for(reached.wait(), 30)
        process.kill()
        assert (await ended(process))[0] == -9
        assert await stand.catalogue.connection.fetchval("SELECT count(*) FROM products") == 20
        api.asked.clear()
        result = await run(*arguments)
        assert result.exit_code == 0, result.output
        assert "remark" in result.stderr
        assert "goes on after page 2, in the collection 'scenes'" in result.stderr
        assert api.pages_asked() == ["GET /collections/scenes/items?limit=10&token=20"]
    assert "items: 5 accepted, 0 updated" in result.stdout
    assert await stand.catalogue.connection.fetchval("SELECT count(*) FROM products") == 25


def test_no_name_that_a_source_gives_is_obeyed_by_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(lambda: 0.0)
    evil = "a\x1b]0;owned\x07\r\nrejected: nothing"
    report.hear(Rejection(Place(evil), evil))
    report.hear(Remark(Place("f", id=evil), evil))
    report.end(Summary(Count(1), Count(), 0, 1, 1, (evil,)))
    out, err = capsys.readouterr()
    assert "owned" in out
    assert not {"\x1b", "\x07", "\r"}.intersection(out + err)
    assert len(err.splitlines()) == 2


async def test_credentials_come_from_files_or_the_environment_and_are_not_seen(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = stand.configure()
    secret = stand.directory / "token"
    secret.write_text(f"{SECRET_TOKEN}\n")
    monkeypatch.setenv(TOKEN, "another")
    monkeypatch.setenv(API_KEY, "k3y-of-nobody")
    async with running_api(scenes=1) as api:
        result = await run("ingest", api.url, "--config", config, "--tenant", "esa", "--token-file", secret)
        assert result.exit_code == 0, result.output
        assert {fields["Authorization"] for fields in api.fields} == {f"Bearer {SECRET_TOKEN}"}
        assert {fields["X-API-Key"] for fields in api.fields} == {"k3y-of-nobody"}
        api.faults = [status(401)]
        refused = await run("ingest", api.url, "--config", config, "--tenant", "esa", "--token-file", secret)
    assert (refused.exit_code, "answered 401: it wants a token or an API key" in refused.stderr) == (1, True)
    for shown in (result.output, refused.output):
        assert SECRET_TOKEN not in shown
        assert "k3y" not in shown
    secret.write_text("two\nlines")
    wrong = await run("ingest", "https://stac.example", "--config", config, "--tenant", "esa", "--token-file", secret)
    assert (wrong.exit_code, "two" in wrong.output) == (2, False)


async def test_collections_and_since_are_passed_on(stand: Stand) -> None:
    config = stand.configure()
    async with running_api(a=1, b=2, c=3) as api:
        arguments: list[str | Path] = [
            "ingest",
            api.url,
            "--config",
            config,
            "--tenant",
            "esa",
            "--collections",
            "c, a",
        ]
        result = await run(*arguments, "--since", "2024-01-01T00:00:00Z")
        assert result.exit_code == 0, result.output
        assert {re.sub(".*collections/|/items.*", "", one) for one in api.pages_asked()} == {"a", "c"}
        assert all(one.endswith("datetime=2024-01-01T00:00:00Z/..") for one in api.pages_asked())
    assert "the source cannot tell what changed since then" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["https://x/", "https://y/"], "a URL stands alone"),
        (["https://x/", "--since", "yesterday"], "--since is 'yesterday', not a date-time"),
        (["https://x/", "--since", "2999-01-01T00:00:00Z"], "which is yet to come"),
        (["https://x/", "--collections", " ,"], "--collections names none"),
        (["nowhere.json"], "'nowhere.json' does not exist"),
        ([".", "--restart"], "go with the URL of a STAC API"),
    ],
)
async def test_what_does_not_go_together_is_said_so(arguments: list[str], reason: str) -> None:
    result = await run("ingest", *arguments, "--tenant", "esa")
    assert (result.exit_code, reason in result.stderr) == (2, True), result.stderr


async def test_a_url_with_a_password_is_refused(stand: Stand) -> None:
    result = await run("ingest", "https://u:pass-7f3@x/", "--config", stand.configure(), "--tenant", "esa")
    assert (result.exit_code, "pass-7f3" in result.output) == (1, False)


async def test_files_are_taken_as_before(stand: Stand) -> None:
    data = Path(__file__).parents[1] / "data" / "stac" / "joplin-items.geojson"
    result = await run("ingest", data, "--config", stand.configure(), "--tenant", "esa")
    assert (result.exit_code, "items: 30 accepted, 0 updated" in result.stdout) == (0, True)

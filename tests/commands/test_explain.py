"""``gateway explain``: it says what the running gateway does, and does nothing itself."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from gateway.config import load
from gateway.storage import Stat
from gateway.text import one_line
from tests.commands.support import BUCKET, PUBLIC_URL, Stand, run, s3_storage
from tests.harness import OUTSIDER, SCIENTIST, Entry, RunningGateway, running_gateway, token
from tests.s3.strict import StrictS3

CONTENT = b"exactly this\n" * 10_000


def steps(output: str) -> dict[str, str]:
    """What is said of each step; of copies, one line each."""
    found: dict[str, str] = {}
    for line in output.splitlines():
        name, text = line[:10].strip(), line[10:]
        found[name] = f"{found[name]}\n{text}" if name in found else text
    return found


@contextlib.asynccontextmanager
async def serving(
    stand: Stand, *storages: dict[str, object], **sections: dict[str, Any]
) -> AsyncIterator[RunningGateway]:
    """A gateway with the configuration that `explain` reads."""
    sections = {"server": {"port": 0, "shutdown_timeout": 1, "trusted_proxies": ["127.0.0.0/8"]}, **sections}
    async with running_gateway(load(stand.configure(*storages, **sections)), stand.root) as running:
        yield running


async def explain(stand: Stand, url: str, *options: str) -> dict[str, str]:
    done = await run("explain", "--config", stand.directory / "gateway.toml", url, *options)
    assert done.exit_code == 0, done.output
    return steps(done.output)


async def in_store(stand: Stand, strict: StrictS3, item: str = "cloudy", content: bytes = CONTENT) -> Entry:
    """A file of which a disk and an object store have a copy each."""
    entry = await stand.catalogue.file(content, item=item)
    stored = strict.store.put(BUCKET, f"esa/{item}", content)
    stat = Stat(len(content), stored.modified, stored.etag.strip('"'))
    await stand.catalogue.copy(entry, "store", f"{BUCKET}/esa/{item}", stat)
    return entry


CURL = ("--user-agent", "curl/8.5.0")
DECISIONS = [
    (CURL, "redirect: this client keeps its token from other hosts"),
    (("--user-agent", "Wget/1.21"), "stream: this client may send its token on"),
    (("--header", "Range: bytes=10-19", *CURL), "redirect: this client"),
    (("--header", "Range: bytes=10-19"), "stream: this client"),
    (("--header", "Range: bytes=0-1,5-6", *CURL), "stream: several ranges"),
    (("--header", "Range: bytes=999999999-"), ""),
    (("--header", "If-Match: ETAG", *CURL), "stream: a precondition was judged"),
    (("--header", 'If-Match: "other"'), ""),
    (("--header", "If-None-Match: ETAG"), ""),
    (("--method", "HEAD", *CURL), ""),
]
"""Options that describe a request, and the beginning of what is decided about its bytes."""


def fields_of(options: Sequence[str]) -> dict[str, str]:
    """The header that options describe."""
    fields = {"User-Agent": ""}
    for name, value in zip(options[::2], options[1::2], strict=True):
        if name == "--user-agent":
            fields["User-Agent"] = value
        elif name == "--header":
            field, _, text = value.partition(": ")
            fields[field] = text
    return fields


async def test_it_says_what_the_gateway_then_does(stand: Stand, strict: StrictS3) -> None:
    async with serving(stand, s3_storage(strict, redirect_min_size=0), stand.disk(priority=1)) as gateway:
        for number, (case, way) in enumerate(DECISIONS):
            entry = await in_store(stand, strict, f"item-{number}")
            options = [option.replace("ETAG", f'"{entry.checksum}"') for option in case]
            before, requests = await gateway.usage(SCIENTIST), len(strict.requests)
            told = await explain(stand, f"{PUBLIC_URL}{entry.regards}", "--token", token(SCIENTIST), *options)
            assert await gateway.usage(SCIENTIST) == before
            assert all(request.method == "HEAD" for request in strict.requests[requests:])

            method = "HEAD" if "HEAD" in options else "GET"
            response, _ = await gateway.request(method, entry.regards, SCIENTIST, **fields_of(options))
            assert told["answer"].startswith(f"{response.status} "), told
            timing = response.headers.get("Server-Timing", "")
            assert (f'desc="{told["delivery"]}"' in timing) if way else not timing
            assert told.get("delivery", "").startswith(way)
            downloads, octets = (now - then for now, then in zip(await gateway.usage(SCIENTIST), before, strict=True))
            counted = "1 download" if downloads else "no further download"
            assert told.get("charge", "no further download, 0 bytes") == f"{counted}, {octets} bytes"


async def test_a_caller_can_be_described_instead_of_shown_by_a_token(stand: Stand, strict: StrictS3) -> None:
    stand.configure(s3_storage(strict, redirect_min_size=0))
    entry = await in_store(stand, strict)
    described = ("--email", "scientist@example.org", "--tenant", "esa", "--group", "science")
    for options in ((), CURL):
        told = await explain(stand, entry.regards, *described, *options)
        assert told == await explain(stand, entry.regards, "--token", token(SCIENTIST), *options)
    told = await explain(stand, entry.regards, "--email", "a@example.org", "--tenant", "esa", "--role", "ADMIN")
    assert told["answer"] == "200 OK"


async def test_refusals_are_those_of_the_gateway(stand: Stand) -> None:
    async with serving(stand) as gateway:
        entry = await stand.catalogue.file(CONTENT)
        for path, who, status in [
            (entry.regards, None, 401),
            (f"{entry.regards}?scope=esa", None, 403),
            (entry.regards, OUTSIDER, 403),
            (f"{entry.stac}/more", SCIENTIST, 404),
            ("/collections/restricted/items/item/download/none", SCIENTIST, 404),
            ("/collections/a%2Fb/items/%E2%82%AC/download/%00", SCIENTIST, 404),
        ]:
            told = await explain(stand, path, *(("--token", token(who)) if who else ()))
            response, _ = await gateway.get(path, who)
            body = await response.json()
            detail = body["messages"][0] if "messages" in body else body.get("description") or body["detail"]
            begin, _, text = told["answer"].partition("): ")
            assert (int(begin[:3]), text) == (response.status, one_line(detail)) == (status, one_line(detail))


async def test_what_is_no_download_is_not_explained(stand: Stand) -> None:
    stand.configure()
    told = await explain(stand, "/health")
    assert told["address"].startswith("of no download")
    assert "answer" not in told


async def test_a_licence_that_was_not_accepted(stand: Stand) -> None:
    stand.configure()
    entry = await stand.catalogue.file(CONTENT)
    await stand.catalogue.licence("restricted")
    told = await explain(stand, f"{entry.stac}?acceptLicense=true", "--token", token(SCIENTIST))
    assert told["license"] == "https://example.org/licence"
    assert told["answer"].startswith("423 Locked (LicenseNotAccepted)")
    assert "is not done here" in told["licence"]
    assert await stand.catalogue.connection.fetchval("SELECT count(*) FROM licence_acceptances") == 0


async def test_why_a_copy_cannot_be_served(stand: Stand) -> None:
    entry = await stand.catalogue.file(CONTENT)
    catalogue, stat = stand.catalogue, Stat(len(CONTENT), None, "v")
    await catalogue.copy(entry, "gone", "a", stat)
    await catalogue.copy(entry, "foreign", "b", stat)
    await catalogue.copy(entry, "parted", "c", stat)
    await catalogue.copy(entry, "tape", "d", stat, state="NEARLINE")
    await catalogue.copy(entry, "slow", "esa/restricted/item/data", None)
    broken = await catalogue.copy(entry, "disk", "e", stat)
    await catalogue.connection.execute("UPDATE copies SET broken_version = 'v' WHERE copy_id = $1", broken)
    stand.configure(
        stand.disk(name="foreign", tenants=["cnes"]),
        stand.disk(name="parted", prefixes=["other/"]),
        stand.disk(name="tape", type="NEARLINE"),
        stand.disk(name="slow", priority=7),
        stand.disk(),
    )
    told = await explain(stand, entry.stac, "--token", token(SCIENTIST))
    online, unable = "copy ONLINE, location ONLINE with priority", "cannot be served: "
    assert told["copy"].splitlines() == [
        f"disk:'esa/restricted/item/data': {online} 0: can be served",
        f"gone:'a': copy ONLINE: {unable}no [[storage]] here has this name",
        f"foreign:'b': {online} 0: {unable}its storage location does not serve the tenant",
        f"parted:'c': {online} 0: {unable}its storage location does not serve what lies there",
        f"tape:'d': copy NEARLINE, location NEARLINE with priority 0: {unable}it is not online",
        f"slow:'esa/restricted/item/data': {online} 7: can be served, not verified yet",
        f"disk:'e': {online} 0: {unable}it has not the bytes of its checksum, as was seen before",
    ]
    assert told["order"] == "disk:'esa/restricted/item/data', then slow:'esa/restricted/item/data'"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("UPDATE copies SET state = 'OFFLINE'", "409 Conflict (NotOnline)"),
        ("UPDATE copies SET broken_version = version", "502 Bad Gateway (FileBroken)"),
        ("UPDATE copies SET storage = 'gone'", "503 Service Unavailable (NoStorage)"),
        ("DELETE FROM copies", "503 Service Unavailable (NoStorage)"),
    ],
)
async def test_a_file_that_no_copy_can_give(stand: Stand, change: str, expected: str) -> None:
    async with serving(stand) as gateway:
        entry = await stand.catalogue.file(CONTENT)
        await stand.catalogue.connection.execute(change)
        told = await explain(stand, entry.stac, "--token", token(SCIENTIST))
        assert told["answer"].startswith(expected)
        assert (await gateway.get(entry.stac, SCIENTIST))[0].status == int(expected[:3])


async def test_what_the_storage_says_is_told(stand: Stand) -> None:
    stand.configure()
    entry = await stand.catalogue.file(CONTENT)
    entry.path.unlink()
    told = await explain(stand, entry.stac, "--token", token(SCIENTIST), "--method", "HEAD")
    assert told["because"].startswith("CopyNotFoundError: esa/restricted/item/data")
    assert told["answer"].startswith("404 Not Found (FileMissing)")


async def test_what_the_quota_would_say(stand: Stand) -> None:
    async with serving(stand) as gateway:
        entry = await stand.catalogue.file(CONTENT)
        other = await stand.catalogue.file(CONTENT[1:], item="other")
        text = await stand.catalogue.file(b"text", asset="text", data_type="DOCUMENT")
        email = "scientist@example.org"
        await stand.catalogue.limit("user", email, downloads=1, octets=2 * len(CONTENT))
        assert (await gateway.get(entry.stac, SCIENTIST))[0].status == 200
        told = await explain(stand, other.stac, "--token", token(SCIENTIST))
        size = len(CONTENT)
        assert told["charge"] == f"1 download, {size - 1} bytes"
        assert told["limit"].splitlines() == [
            f"user:{email}: bytes total: used {size} of {2 * size}: within",
            f"user:{email}: downloads total: used 1 of 1: refused",
        ]
        assert told["answer"] == "429 Too Many Requests"
        assert (await gateway.get(other.stac, SCIENTIST))[0].status == 429
        await stand.catalogue.limit("user", email, octets=size)
        told = await explain(stand, entry.stac, "--token", token(SCIENTIST))
        assert told["limit"] == f"user:{email}: bytes total: used {size} of {size}: refused"
        assert told["answer"] == "429 Too Many Requests"
        assert (await gateway.get(entry.stac, SCIENTIST))[0].status == 429
        await stand.catalogue.limit("user", email, downloads=1)
        told = await explain(stand, entry.stac, "--token", token(SCIENTIST))
        assert (told["charge"], told["answer"]) == (f"no further download, {size} bytes", "200 OK")
        told = await explain(stand, text.stac, "--token", token(SCIENTIST))
        assert (told["charge"], told["answer"]) == ("nothing: DOCUMENT does not count", "200 OK")


async def test_a_proxy_that_offers_to_send_files(stand: Stand) -> None:
    disk = stand.disk(offload="X-Accel-Redirect", offload_prefix="/_archive")
    async with serving(stand, disk) as gateway:
        entry = await stand.catalogue.file(CONTENT)
        options = ("--token", token(SCIENTIST), "--header", "X-Sendfile-Type: X-Accel-Redirect")
        told = await explain(stand, entry.stac, "--by-proxy", *options)
        assert told["delivery"] == "accel: the proxy in front offers to send it"
        response, _ = await gateway.get(entry.stac, SCIENTIST, X_Sendfile_Type="X-Accel-Redirect")
        assert told["delivery"] in response.headers["Server-Timing"]
        assert (await explain(stand, entry.stac, *options))["delivery"].startswith("stream")


async def test_prefixes_and_the_path_of_the_public_url(stand: Stand) -> None:
    stand.configure(
        api={"public_url": f"{PUBLIC_URL}/archive", "regards_prefix": "/api/v1/rs-catalog", "stac_prefix": "/stac"}
    )
    entry = await stand.catalogue.file(CONTENT, item="a/b")
    for url, kind in [
        (f"{PUBLIC_URL}/archive/api/v1/rs-catalog{entry.regards}", "REGARDS"),
        (f"/stac{entry.stac}", "STAC"),
        (f"{PUBLIC_URL}/archive/stac{entry.stac}", "STAC"),
        (f"{PUBLIC_URL}/stac{entry.stac}", "STAC"),
    ]:
        told = await explain(stand, url, "--token", token(SCIENTIST))
        assert told["address"].startswith(f"{kind}: ")
        assert told["answer"] == "200 OK"
    told = await explain(stand, f"{PUBLIC_URL}/archive{entry.stac}", "--token", token(SCIENTIST))
    assert told["answer"].startswith("404")


async def test_below_the_root_of_a_tenant_and_without_naming_one(stand: Stand) -> None:
    stand.configure(api={"default_tenant": "esa"})
    entry = await stand.catalogue.file(CONTENT)
    for path, options, answer in [
        (f"/tenants/esa{entry.stac}", ("--token", token(SCIENTIST)), "200 OK"),
        (f"/tenants/other{entry.stac}", ("--token", token(SCIENTIST)), "404 Not Found"),
        (f"/tenants/other{entry.stac}", ("--email", "a@example.org", "--tenant", "esa"), "404 Not Found"),
        (f"/tenants/other{entry.stac}", (), "404 Not Found"),
        (entry.stac, (), "403 Forbidden"),
        (entry.regards, (), "401 Unauthorized"),
    ]:
        told = await explain(stand, path, *options)
        assert told["answer"].startswith(answer), (path, told)


@pytest.mark.parametrize(
    "options",
    [
        ["--email", "me@example.org"],
        ["--tenant", "esa"],
        ["--email", "me@example.org", "--tenant", "esa", "--token", "x"],
        ["--header", "no field"],
        ["--header", "Name: line\nbreak"],
        ["--method", "POST"],
    ],
)
async def test_options_that_make_no_request(stand: Stand, options: list[str]) -> None:
    done = await run("explain", "--config", stand.configure(), "/downloads/a/files/b", *options)
    assert done.exit_code == 2
    done = await run("explain", "--config", stand.configure(), "downloads/a/files/b")
    assert done.exit_code == 2


async def test_a_token_that_does_not_hold_is_not_repeated(stand: Stand) -> None:
    stand.configure()
    shown = token(SCIENTIST, secret="t" * 64)
    done = await run("explain", "--config", stand.directory / "gateway.toml", "/downloads/a/files/b", "--token", shown)
    assert done.exit_code == 0
    assert "401 Unauthorized" in done.output
    assert shown not in done.output

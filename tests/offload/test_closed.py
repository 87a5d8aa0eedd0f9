"""What the proxy in front must not let happen."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.harness import OUTSIDER, SCIENTIST
from tests.offload.conftest import ELSEWHERE, Fields, Pair
from tests.offload.proxies import KINDS, LIGHTTPD, NGINX, Kind, running

TEXT = b"for those with the right only\n" * 100


async def test_the_files_are_not_to_be_had_past_the_gateway(offloading: Pair) -> None:
    entry = await offloading.gateway.catalogue.file(TEXT)
    below = entry.path.relative_to(offloading.archive)
    for path in (
        f"/_archive/{below}", f"/%5Farchive/{below}", f"//_archive/{below}", f"/./_archive/{below}",
        f"/x/../_archive/{below}", f"/collections/%2e%2e/_archive/{below}", f"/_archive//{below}",
        "/_archive/", "/_archive",
        f"/_archive/../{below}", f"/_archive%2F{below}", f"/{below}", str(entry.path), f"/_archive/{below}?a=b",
    ):  # fmt: skip
        for who in (None, SCIENTIST):
            answer = await offloading.through(path, who)
            assert answer.status in (400, 404), path
            assert TEXT[:20] not in answer.body, path


async def test_a_client_gains_nothing_by_sending_the_proxys_fields(offloading: Pair) -> None:
    entry = await offloading.gateway.catalogue.file(TEXT)
    other = await offloading.gateway.catalogue.file(b"other", asset="other")
    target = f"/_archive/{entry.path.relative_to(offloading.archive)}"
    for name in (
        "X-Accel-Redirect",
        "X-Sendfile",
        "X-LIGHTTPD-send-file",
        "X-Sendfile2",
        "X-Accel-Mapping",
        "X-Sendfile-Type",
    ):
        for value in (target, str(entry.path)):
            refused = await offloading.through(entry.stac, OUTSIDER, [(name, value)])
            assert refused.status == 403
            answer = await offloading.through(other.stac, SCIENTIST, [(name, value)])
            assert (answer.status, answer.body) == (200, b"other")


FORGED: list[Fields] = [
    [("Forwarded", "for=192.0.2.9;proto=https;host=evil.example")],
    [("X-Forwarded-For", "192.0.2.9"), ("X-Forwarded-Proto", "gopher"), ("X-Forwarded-Host", "evil.example")],
    [("X-Forwarded-For", "192.0.2.9, 127.0.0.1"), ("X-Forwarded-Proto", "https")],
    [("Forwarded", "for=192.0.2.9;host=evil.example, for=127.0.0.1"), ("Forwarded", "host=evil.example")],
    [("X_Forwarded_For", "192.0.2.9"), ("X-Host", "evil.example"), ("X-Real-IP", "192.0.2.9")],
]  # fmt: skip


async def test_what_a_client_claims_of_itself_is_not_believed(offloading: Pair) -> None:
    entry = await offloading.gateway.catalogue.file(TEXT)
    await offloading.gateway.catalogue.licence("restricted")
    for fields in FORGED:
        request_id = offloading.request_id()
        answer = await offloading.through(entry.regards, SCIENTIST, [*fields, request_id])
        assert answer.status == 423
        assert json.loads(answer.body)["accept"].startswith(f"{offloading.proxy_url}/downloads/"), fields
        assert (await offloading.logged(request_id))["remote"] == ELSEWHERE, fields


async def test_a_request_past_the_proxy_is_streamed_whatever_it_says(offloading: Pair) -> None:
    entry = await offloading.gateway.catalogue.file(TEXT)
    forged: list[Fields] = [[], [("X-Forwarded-For", "127.0.0.1")], [("Forwarded", "for=127.0.0.1;by=127.0.0.1")]]
    for fields in forged:
        request_id = offloading.request_id()
        answer = await offloading.direct(entry.stac, SCIENTIST, [*fields, request_id])
        assert (answer.status, answer.body) == (200, TEXT)
        assert not answer.all(offloading.kind.field)
        assert (await offloading.logged(request_id))["outcome"] == "whole"


async def test_a_link_in_place_of_the_file_or_its_directory_is_not_served(offloading: Pair) -> None:
    catalogue = offloading.gateway.catalogue
    entry = await catalogue.file(TEXT)
    unrecorded = await catalogue.file(TEXT[1:], asset="unrecorded", recorded=False)
    below = await catalogue.file(TEXT[2:], item="below")
    secret = offloading.archive / "secret"
    secret.write_bytes(b"x" * len(TEXT))
    for each in (entry, unrecorded):
        each.path.unlink()
        each.path.symlink_to(secret)
    moved = offloading.archive / "moved"
    below.path.parent.rename(moved)
    below.path.parent.symlink_to(moved)
    for each in (entry, unrecorded, below):
        answer = await offloading.through(each.stac, SCIENTIST)
        assert answer.status == 404
        assert b"xxx" not in answer.body
        assert TEXT[2:] not in answer.body


async def test_a_changed_file_is_refused(offloading: Pair) -> None:
    entry = await offloading.gateway.catalogue.file(TEXT)
    for change in (b"changed", b"y" * len(TEXT)):
        entry.path.write_bytes(change)
        answer = await offloading.through(entry.stac, SCIENTIST)
        assert answer.status == 502
        assert change not in answer.body
    assert await offloading.gateway.usage(SCIENTIST) == (0, 0)


@contextlib.asynccontextmanager
async def credulous(field: str) -> AsyncIterator[str]:
    """An upstream that hands over whatever the query names, as a gateway would that was deceived; gives its URL."""

    async def hand_over(request: web.Request) -> web.Response:
        described = {"ETag": '"tag"', "Repr-Digest": "sha-256=:AA==:", "Content-Disposition": "attachment"}
        return web.Response(headers={field: request.query["file"], **described})

    app = web.Application()
    app.router.add_get("/", hand_over)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def fetch(url: str, file: str) -> tuple[int, bytes, str | None]:
    async with aiohttp.ClientSession() as session, session.get(url, params={"file": file}) as response:
        return response.status, await response.read(), response.headers.get("Repr-Digest")


@pytest.mark.parametrize("kind", [NGINX, LIGHTTPD], ids=lambda kind: kind.name)
async def test_a_link_put_there_after_the_gateway_looked_is_not_followed(
    kind: Kind, archive: Path, tmp_path: Path
) -> None:
    """Apache does: mod_xsendfile has no setting against it, as deploy/apache.conf says."""
    (archive / "secret").write_bytes(TEXT)
    (archive / "below").mkdir()
    (archive / "below" / "file").write_bytes(TEXT)
    (archive / "link").symlink_to(archive / "secret")
    (archive / "linked").symlink_to(archive / "below")
    prefix = kind.prefix(archive)
    async with credulous(kind.field) as upstream:
        with running(kind, upstream, archive, tmp_path) as url:
            assert await fetch(url, f"{prefix}/secret") == (200, TEXT, "sha-256=:AA==:")
            for name in ("link", "linked/file"):
                status, body, _ = await fetch(url, f"{prefix}/{name}")
                assert status in (403, 404), name
                assert TEXT not in body


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_nothing_outside_the_archive_is_sent_whatever_the_gateway_says(
    kind: Kind, archive: Path, tmp_path: Path
) -> None:
    inside = archive / "inside"
    inside.mkdir()
    (inside / "file").write_bytes(b"inside")
    (archive / "outside").write_bytes(TEXT)
    (archive / "inside-out").write_bytes(TEXT)
    prefix = kind.prefix(inside)
    async with credulous(kind.field) as upstream:
        with running(kind, upstream, inside, tmp_path) as url:
            assert await fetch(url, f"{prefix}/file") == (200, b"inside", "sha-256=:AA==:")
            # A file that went after the gateway looked: what was said of it is not said of the error.
            status, _, digest = await fetch(url, f"{prefix}/gone")
            assert (status, digest) == (404, None)
            for way in (
                f"{prefix}/../outside", f"{prefix}/%2e%2e/outside", f"{prefix}/%2e%2e%2foutside",
                f"{prefix}/..%2foutside", f"{prefix}-out", f"{prefix}../outside", f"{prefix}/./../outside",
                str(archive / "outside"), "/etc/hostname",
            ):  # fmt: skip
                status, body, _ = await fetch(url, way)
                assert status >= 400, way
                assert TEXT not in body

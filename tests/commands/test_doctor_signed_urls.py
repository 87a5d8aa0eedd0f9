"""What the doctor finds of signed URLs that lead to servers which are not as they should be."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.doctor.findings import Finding
from gateway.doctor.signed_urls import Clients, Object, look_at_signed_url
from gateway.locations import Location
from gateway.storage import CopyUnavailableError, SignedUrl
from tests.commands.support import PUBLIC_URL, findings, problems, warnings
from tests.s3.strict import strict_s3

CONTENT = b"exactly this\n" * 100
SIGNATURE = "0123456789abcdef"
FOUND = Object("bucket/key", "data.bin", "image/tiff", len(CONTENT), CONTENT[:1])
SIGNED = {"Content-Type": "image/tiff", "Content-Disposition": 'attachment; filename="data.bin"'}
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "range",
    "Access-Control-Expose-Headers": "Content-Disposition, Content-Range, ETag",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Signing:
    """A storage that signs one URL."""

    def __init__(self, url: str, lifetime: float | None) -> None:
        self.url = url
        self.lifetime = lifetime

    async def sign(self, location: str, *, method: Literal["GET", "HEAD"], **_: Any) -> SignedUrl:
        assert (location, method) == ("bucket/key", "GET")
        if not self.url:
            raise CopyUnavailableError("there are no credentials")
        return SignedUrl(self.url, self.lifetime)


async def look(url: str, lifetime: float | None = 60, seconds: float = 5) -> list[Finding]:
    storage = Signing(url, lifetime)
    location = Location(storage, tenants=frozenset({"*"}))  # type: ignore[arg-type]
    found = await findings(look_at_signed_url(location, storage, FOUND, Clients(PUBLIC_URL, None, seconds)))
    assert not any(SIGNATURE in f"{finding}" for finding in found)
    return found


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """A server that answers every request so; the signed URL of a file on it."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(app) as server:
        yield str(server.make_url("/bucket/key")) + f"?X-Sig-Headers=host&Signature={SIGNATURE}&last=1"


def first_byte(request: web.Request, content: bytes = CONTENT, **fields: str) -> web.Response:
    """The answer of a store in order to any request that it lets pass."""
    if request.method == "OPTIONS":
        return web.Response(headers=CORS)
    fields = {name.replace("_", "-"): value for name, value in fields.items()}
    headers = {**SIGNED, **CORS, "Content-Range": f"bytes 0-0/{len(content)}", **fields}
    return web.Response(status=206, body=content[:1], headers=headers)


def is_signed(request: web.Request) -> bool:
    return request.query.get("Signature") == SIGNATURE or request.method == "OPTIONS"


async def test_a_store_in_order(caplog: pytest.LogCaptureFixture) -> None:
    seen = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((request.method, request.query.get("Signature"), request.query.get("last")))
        return first_byte(request) if is_signed(request) else web.Response(status=403, body=b"<Code>Denied</Code>")

    async with serving(handle) as url:
        found = await look(url)
        assert {finding.level for finding in found} == {"ok", "warning"}
        assert warnings(found) == ["browsers do not let pages of https://data.example.org fetch from it without TLS"]
        assert "without a signature it answers 403 Denied, to a changed one 403 Denied" in [it.text for it in found]
    assert seen == [
        ("GET", SIGNATURE, "1"),
        ("GET", None, None),
        ("GET", "1123456789abcdef", "1"),
        ("OPTIONS", SIGNATURE, "1"),
        ("GET", SIGNATURE, "1"),
    ]
    assert SIGNATURE not in caplog.text


async def test_a_public_store_is_a_warning() -> None:
    async def handle(request: web.Request) -> web.Response:
        return first_byte(request)

    async with serving(handle) as url:
        assert "it gives files to everybody, without a signature (206)" in warnings(await look(url))
        found = await look(url.partition("?")[0], lifetime=None)
        assert "its URLs have no signature, and work for ever: they are for files that everyone may have" in [
            finding.text for finding in found if finding.level == "ok"
        ]


async def test_a_store_that_does_not_verify_signatures_is_a_problem() -> None:
    async def handle(request: web.Request) -> web.Response:
        return first_byte(request) if request.query else web.Response(status=403)

    async with serving(handle) as url:
        assert problems(await look(url)) == ["it does not verify signatures: a changed one is answered 206"]


async def test_a_store_that_fails_at_what_is_not_signed_leaves_it_open() -> None:
    async def handle(request: web.Request) -> web.Response:
        return first_byte(request) if is_signed(request) else web.Response(status=500)

    async with serving(handle) as url:
        assert "what is not signed is answered 500, a changed signature 500" in warnings(await look(url))


async def test_a_store_that_knows_no_ranges_or_gives_other_fields() -> None:
    async def handle(request: web.Request) -> web.Response:
        if not is_signed(request):
            return web.Response(status=403)
        return web.Response(body=CONTENT, content_type="image/tiff")

    async with serving(handle) as url:
        found = warnings(await look(url))
        assert "a signed URL is answered 200 to a range: downloads cannot be resumed" in found
        assert "the storage does not answer with the Content-Disposition of the catalogue" in found


@pytest.mark.parametrize("content", [CONTENT + b"more", b"E" + CONTENT[1:]], ids=["longer", "other byte"])
async def test_another_file_is_a_problem(content: bytes) -> None:
    async def handle(request: web.Request) -> web.Response:
        return first_byte(request, content) if is_signed(request) else web.Response(status=403)

    async with serving(handle) as url:
        assert problems(await look(url)) == ["a signed URL gives another file than the gateway reads"]


async def test_redirects_are_not_followed() -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=301, headers={"Location": f"/elsewhere?Signature={SIGNATURE}"})

    async with serving(handle) as url:
        assert problems(await look(url)) == ["a signed URL is answered 301, a redirect"]


async def test_a_store_that_does_not_tell_its_time() -> None:
    async def handle(request: web.Request) -> web.Response:
        return first_byte(request, Date="yesterday") if is_signed(request) else web.Response(status=403)

    async with serving(handle) as url:
        assert "signed URLs work for 60 s; the storage does not tell its time" in warnings(await look(url))


async def test_what_gives_no_answer_is_named_without_the_url() -> None:
    async def never(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(never) as url:
        host = urlsplit(url).netloc
        assert problems(await look(url, seconds=0.2)) == [f"signed URLs: http://{host} did not answer within 0.2 s"]
    (refused,) = problems(await look(f"http://127.0.0.1:1/key?Signature={SIGNATURE}"))
    assert "cannot be connected to" in refused

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"this is no HTTP\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        (text,) = problems(await look(f"http://127.0.0.1:{port}/key?Signature={SIGNATURE}"))
        assert text.startswith(f"signed URLs: http://127.0.0.1:{port} gave no answer: ")


async def test_a_certificate_that_nobody_vouches_for_is_a_problem() -> None:
    async with strict_s3(tls=True) as strict:
        (text,) = problems(await look(f"{strict.account.endpoint}/bucket/key?Signature={SIGNATURE}"))
    assert "its certificate is not one that this machine trusts" in text


async def test_without_credentials_nothing_is_signed() -> None:
    assert problems(await look("")) == ["cannot sign a URL: there are no credentials"]

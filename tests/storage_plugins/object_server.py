"""A small object store at a real socket, which judges tokens and signed URLs of a service account of Google's.

It goes by what the service documents; neither the project's code nor obstore's has a part in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import format_datetime
from urllib.parse import parse_qsl, quote, unquote

import jwt
from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

EMAIL = "gateway@project.iam.example"
MODIFIED = datetime.datetime(2026, 2, 28, 23, 59, 58, tzinfo=datetime.UTC)
ALGORITHM = "GOOG4-RSA-SHA256"

Script = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@functools.cache
def private_key() -> rsa.RSAPrivateKey:
    """Of the service account; made once, since that takes a while."""
    return rsa.generate_private_key(65537, 2048)


def service_account_key() -> str:
    """The account's key file, as Google gives them out."""
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private = private_key().private_bytes(encoding, form, serialization.NoEncryption()).decode()
    return json.dumps({"type": "service_account", "private_key_id": "1", "private_key": private, "client_email": EMAIL})


class ObjectServer:
    """Objects by their decoded path, ``/bucket/key``, for those who have a token or a signature of the account."""

    def __init__(self) -> None:
        self.url = ""
        self.objects: dict[str, bytes] = {}
        self.requests: list[web.BaseRequest] = []
        self.scripts: list[Script] = []
        """What the next requests are answered by instead."""
        self.is_open = False
        """Whether everybody may read."""
        self.etag: Callable[[bytes], str | None] = lambda content: f'"{hashlib.md5(content).hexdigest()}"'
        self.server = web.Server(self._answer, handler_cancellation=True)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        if self.scripts:
            return await self.scripts.pop(0)(request)
        problem = None if self.is_open else _problem(request)
        if problem is not None:
            return web.Response(status=403, text=f"<Error><Code>{problem}</Code></Error>")
        return self.give(request)

    def give(self, request: web.BaseRequest) -> web.Response:
        """Answer as RFC 9110 says, to one range at most."""
        content = self.objects.get(_path(request))
        if content is None:
            return web.Response(status=404, text="<Error><Code>NoSuchKey</Code></Error>")
        etag, fields = self.etag(content), {"Last-Modified": format_datetime(MODIFIED, usegmt=True)}
        if etag is not None:
            fields["ETag"] = etag
        if request.headers.get("If-Match", etag) != etag:
            return web.Response(status=412, headers=fields)
        if "Range" not in request.headers:
            return web.Response(body=content, headers=fields)
        start, stop = request.http_range.start, min(request.http_range.stop, len(content))
        if start >= len(content):
            return web.Response(status=416, headers=fields)
        fields["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        return web.Response(status=206, body=content[start:stop], headers=fields)

    def refuse(self, status: int, body: str = "", headers: dict[str, str] | None = None, *, times: int = 1) -> None:
        """Answer the next requests so."""

        async def script(_: web.BaseRequest) -> web.StreamResponse:
            return web.Response(status=status, text=body, headers=headers)

        self.scripts += [script] * times

    def give_half(self, then: Callable[[], object] | None = None, *, times: int = 1) -> None:
        """Give the next requests half of what they are promised, and cut the connection; ``then`` is done before."""

        async def script(request: web.BaseRequest) -> web.StreamResponse:
            response = await self._begin(request)
            if then is not None:
                then()
            assert request.transport is not None
            request.transport.close()
            return response

        self.scripts += [script] * times

    def stall(self, *, times: int = 1) -> None:
        """Give the next requests half of what they are promised, and nothing more."""

        async def script(request: web.BaseRequest) -> web.StreamResponse:
            await self._begin(request)
            await asyncio.Event().wait()
            raise AssertionError

        self.scripts += [script] * times

    def hang(self, *, times: int = 1) -> None:
        """Do not answer the next requests."""

        async def script(_: web.BaseRequest) -> web.StreamResponse:
            await asyncio.Event().wait()
            raise AssertionError

        self.scripts += [script] * times

    async def _begin(self, request: web.BaseRequest) -> web.StreamResponse:
        whole = self.give(request)
        assert isinstance(whole.body, bytes)
        response = web.StreamResponse(status=whole.status, headers=whole.headers)
        response.content_length = len(whole.body)
        await response.prepare(request)
        await response.write(whole.body[: len(whole.body) // 2])
        return response


def _path(request: web.BaseRequest) -> str:
    return unquote(request.raw_path.partition("?")[0], errors="strict")


def _problem(request: web.BaseRequest) -> str | None:
    """What is wrong with the request's signature, or without one with its token."""
    try:
        if "?" in request.raw_path:
            _check_signature(request)
        else:
            token = request.headers.get("Authorization", "").removeprefix("Bearer ")
            claims = jwt.decode(token, private_key().public_key(), algorithms=["RS256"])
            assert claims["iss"] == claims["sub"] == EMAIL
    except (jwt.InvalidTokenError, InvalidSignature, KeyError, AssertionError) as error:
        return type(error).__name__
    return None


def _check_signature(request: web.BaseRequest) -> None:
    """The V4 signing process of Cloud Storage, with the path and the query made canonical once more."""
    query = dict(parse_qsl(request.raw_path.partition("?")[2], keep_blank_values=True, strict_parsing=True))
    signature = bytes.fromhex(query.pop("X-Goog-Signature"))
    made = datetime.datetime.strptime(query["X-Goog-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
    scope = f"{made:%Y%m%d}/auto/storage/goog4_request"
    assert query["X-Goog-Algorithm"] == ALGORITHM
    assert query["X-Goog-Credential"] == f"{EMAIL}/{scope}"
    assert query["X-Goog-SignedHeaders"] == "host"
    age = (datetime.datetime.now(datetime.UTC) - made).total_seconds()
    assert -1 <= age < int(query["X-Goog-Expires"]) <= 604800
    pairs = sorted((quote(name, safe="~"), quote(value, safe="~")) for name, value in query.items())
    canonical = "\n".join(
        [
            request.method,
            quote(_path(request), safe="/~"),
            "&".join(f"{name}={value}" for name, value in pairs),
            f"host:{request.headers['Host']}\n",
            "host",
            "UNSIGNED-PAYLOAD",
        ]
    )
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    signed = f"{ALGORITHM}\n{query['X-Goog-Date']}\n{scope}\n{hashed}".encode()
    private_key().public_key().verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())


@contextlib.asynccontextmanager
async def object_server() -> AsyncIterator[ObjectServer]:
    """Run one on a free port."""
    server = ObjectServer()
    runner = web.ServerRunner(server.server, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()

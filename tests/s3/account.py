"""An account of an S3 server, and requests that botocore signs for it: what no code of the project has a part in."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import re
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import quote, urlencode

import aiohttp
import aiohttp.abc
import multidict
import yarl
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

DOMAIN = "s3.localhost"
"""Of the host names of buckets, where a server is asked by such: ``BUCKET.s3.localhost``."""
SECONDS = 60
"""Most that a request may take."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered."""

    status: int
    headers: multidict.CIMultiDictProxy[str]
    body: bytes

    @property
    def code(self) -> str:
        """S3's name of the error, or nothing."""
        found = re.search(rb"<Code>(\w+)</Code>", self.body)
        return found[1].decode() if found else ""


@dataclasses.dataclass(frozen=True, slots=True)
class Account:
    """Where an S3 server listens on this machine, and the key that it accepts."""

    endpoint: str
    """URL of the server, without a slash at its end; buckets are the first step of the path."""
    access_key_id: str
    secret_access_key: str = dataclasses.field(repr=False)
    region: str = "us-east-1"
    session_token: str | None = dataclasses.field(default=None, repr=False)
    ca_file: Path | None = None
    """Of the certificate, with TLS."""

    def url(self, bucket: str, key: str = "", query: Mapping[str, str] | None = None) -> str:
        """The URL of an object, or of a bucket."""
        path = quote(f"{bucket}/{key}" if key else bucket, safe="/~")
        return f"{self.endpoint}/{path}" + (f"?{urlencode(query, quote_via=quote)}" if query else "")

    @property
    def host_endpoint(self) -> str:
        """URL of the server for clients that put a bucket before its host name."""
        return self.endpoint.replace("127.0.0.1", DOMAIN)

    def host_url(self, bucket: str, key: str = "") -> str:
        """The URL of an object, or of a bucket, with the bucket in the host."""
        return f"{self.endpoint.replace('127.0.0.1', f'{bucket}.{DOMAIN}')}/{quote(key, safe='/~')}"

    def presign(
        self,
        method: str,
        url: str,
        *,
        expires: int = 60,
        at: datetime.datetime | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Sign ``url`` for ``expires`` seconds from ``at`` on, by default from now; these headers are signed, too."""
        request = AWSRequest(method=method, url=url, headers=dict(headers or {}))
        with _clock_of_botocore(at):
            S3SigV4QueryAuth(self._credentials, "s3", self.region, expires=expires).add_auth(request)
        signed: str = request.prepare().url
        return signed

    def sign(
        self,
        method: str,
        url: str,
        *,
        at: datetime.datetime | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> dict[str, str]:
        """``headers`` and those that sign the request."""
        request = AWSRequest(method=method, url=url, headers=dict(headers or {}), data=body)
        with _clock_of_botocore(at):
            S3SigV4Auth(self._credentials, "s3", self.region).add_auth(request)
        return {name: str(value) for name, value in request.headers.items()}

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """Send the request just so: the URL and the headers are not touched, redirects not followed."""
        tls = ssl.create_default_context(cafile=self.ca_file) if self.ca_file else True
        timeout = aiohttp.ClientTimeout(SECONDS)
        connector = aiohttp.TCPConnector(resolver=Loopback(), ssl=tls)
        async with (
            aiohttp.ClientSession(connector=connector, auto_decompress=False, timeout=timeout) as session,
            session.request(
                method,
                yarl.URL(url, encoded=True),
                headers=headers,
                data=body or None,
                allow_redirects=False,
                skip_auto_headers=("Accept-Encoding", "User-Agent", "Content-Type", "Accept"),
            ) as response,
        ):
            return Answer(response.status, response.headers, await response.read())

    async def send_signed(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """Send the request with a signature in its headers."""
        return await self.send(method, url, headers=self.sign(method, url, headers=headers, body=body), body=body)

    @contextlib.asynccontextmanager
    async def client(self, **config: object) -> AsyncIterator[Any]:
        """A client of aiobotocore, which tries each request once."""
        # Half a second that a server's start need not take.
        from aiobotocore.config import AioConfig
        from aiobotocore.session import get_session

        settings = {"s3": {"addressing_style": "path"}, "retries": {"total_max_attempts": 1}, **config}
        async with get_session().create_client(
            "s3",
            region_name=self.region,
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            aws_session_token=self.session_token,
            verify=str(self.ca_file) if self.ca_file else None,
            config=AioConfig(connector_args={"resolver": Loopback()}, **settings),
        ) as client:
            yield client

    @property
    def _credentials(self) -> Credentials:
        return Credentials(self.access_key_id, self.secret_access_key, self.session_token)


class Loopback(aiohttp.abc.AbstractResolver):
    """Finds every host on this machine, such as ``bucket.s3.localhost``, which not every system resolves."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        return [
            {
                "hostname": host,
                "host": "127.0.0.1",
                "port": port,
                "family": socket.AF_INET,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
        ]

    async def close(self) -> None:
        """Nothing is held."""


def _clock_of_botocore(at: datetime.datetime | None) -> contextlib.AbstractContextManager[object]:
    if at is None:
        return contextlib.nullcontext()
    return mock.patch("botocore.auth.get_current_datetime", return_value=at.astimezone(datetime.UTC))

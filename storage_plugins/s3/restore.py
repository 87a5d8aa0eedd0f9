"""Restores of archived S3 objects (RestoreObject). Imports aiobotocore, which takes a while."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioCredentials
from aiobotocore.session import AioSession
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError

from gateway.storage import CopyUnavailableError, StageState, answering_within
from storage_plugins.s3.archive import until_of
from storage_plugins.s3.credentials import CredentialSource
from storage_plugins.s3.options import Options
from storage_plugins.s3.refusals import failure, refuses_credentials
from storage_plugins.s3.sigv4 import Credentials

_SECONDS = 30
"""That asking for a restore may take."""
_SIGNED_SECONDS = 60
"""That the signature of a request must work."""
_STATES = {
    "RestoreAlreadyInProgress": StageState("STAGING"),
    "InvalidObjectState": StageState("ONLINE"),  # Its storage class has no restore: it can be read at any time.
    "ObjectAlreadyInActiveTierError": StageState("ONLINE"),
}
"""What errors of RestoreObject tell about an object."""


class Restorer:
    """Asks an S3 server for restores, by a client that is made for the first of them."""

    def __init__(self, options: Options, source: CredentialSource) -> None:
        self._options = options
        self._credentials = _SourcedCredentials(source)
        self._client: Any = None
        self._opening = asyncio.Lock()
        self._open = contextlib.AsyncExitStack()

    async def restore(self, bucket: str, key: str, wanted: Mapping[str, Any], now: datetime.datetime) -> StageState:
        """Ask for what ``wanted`` says: a RestoreRequest of RestoreObject; see `gateway.storage.CanStage.stage`.

        Raises:
            CopyNotFoundError, CopyUnavailableError: see these.
        """
        name = f"s3://{bucket}/{key}"
        try:
            async with answering_within(_SECONDS):
                client = await self.client()
                answer = await client.restore_object(Bucket=bucket, Key=key, RestoreRequest=wanted)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in _STATES:
                return _STATES[code]
            if refuses_credentials(code):
                self._credentials.refused()
            raise failure(name, code) from error
        except (BotoCoreError, aiohttp.ClientError, OSError) as error:
            raise CopyUnavailableError(f"{name}: {type(error).__name__}: {error}") from error
        if answer["ResponseMetadata"]["HTTPStatusCode"] == 202:
            return StageState("STAGING")
        return StageState("ONLINE", until_of(wanted, now))  # It was restored before, and stays so for longer.

    async def close(self) -> None:
        """Close the client and its connections."""
        await self._open.aclose()

    def refused(self) -> None:
        """Tell that the server refused the credentials of the last request."""
        self._credentials.refused()

    async def client(self) -> Any:
        """The client of aiobotocore, for other calls too; `close` closes it."""
        async with self._opening:
            if self._client is None:
                self._client = await self._open.enter_async_context(self._make())
        return self._client

    def _make(self) -> contextlib.AbstractAsyncContextManager[Any]:
        endpoint = self._options.endpoint
        session = AioSession()
        session.register_component("credential_provider", self._credentials)
        client: contextlib.AbstractAsyncContextManager[Any] = session.create_client(
            "s3",
            region_name=self._options.region,
            endpoint_url=str(endpoint.origin),
            verify=str(self._options.ca_file) if self._options.ca_file else None,
            config=AioConfig(
                signature_version="s3v4",
                s3={"addressing_style": "virtual" if endpoint.virtual else "path"},
                connect_timeout=5,
                retries={"total_max_attempts": 1},
                request_checksum_calculation="when_required",
                proxies={},  # As for the bytes: no proxy is asked.
                warm_up_loader_caches=True,  # Reads files of some MB in a thread.
            ),
        )
        return client


class _SourcedCredentials(AioCredentials):  # type: ignore[misc] # aiobotocore has no types
    """Those of a source, which is asked at each signature; also what aiobotocore asks for them."""

    def __init__(self, source: CredentialSource) -> None:
        super().__init__("", "")
        self._source = source
        self._last: Credentials | None = None

    async def load_credentials(self) -> AioCredentials:
        """What the session of aiobotocore asks a provider."""
        return self

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """What is signed with now."""
        self._last = found = await self._source.credentials(_SIGNED_SECONDS)
        return ReadOnlyCredentials(found.access_key_id, found.secret_access_key, found.session_token)

    def refused(self) -> None:
        """Tell the source that a server refused the last ones."""
        if self._last is not None:
            self._source.refused(self._last)

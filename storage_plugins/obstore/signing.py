"""Who signs URLs for a store of obstore: whoever has a key among its settings."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

import obstore
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from gateway.storage import CopyUnavailableError
from storage_plugins.obstore.azure_sas import AccountKey
from storage_plugins.obstore.google_v4 import ServiceAccount
from storage_plugins.obstore.options import azure_endpoint, settings_of

LONGEST_LIFETIME = 604800
"""Seconds that Google and Amazon let a signed URL live."""
_NO = frozenset({"0", "false", "off", "no", "n"})


@dataclasses.dataclass(frozen=True, slots=True)
class Wish:
    """What a URL shall be for."""

    name: str
    """Of the object, in its bucket or container."""
    method: Literal["GET", "HEAD"]
    seconds: int
    content_type: str | None
    disposition: str | None


Signer = Callable[[Wish], Awaitable[str]]
"""Makes the URL.

Raises:
    CopyUnavailableError: it cannot.
"""


def signer_of(store: ObjectStore, clock: Callable[[], float] = time.time) -> Signer | None:
    """Who can sign for ``store``; None if its settings have no key, or are that nothing shall be signed.

    Reads the key file of a service account.
    """
    settings = settings_of(store)
    if settings.get("skip_signature", "false").lower() not in _NO:
        return None
    if isinstance(store, GCSStore):
        account = _service_account(settings)
        return None if account is None else _by_google(account, clock)
    if isinstance(store, AzureStore):
        key = _account_key(settings)
        return None if key is None else _by_azure(key, clock)
    return _by_obstore(store) if isinstance(store, S3Store) else None


def _service_account(settings: dict[str, str]) -> ServiceAccount | None:
    text = settings.get("service_account_key")
    path = settings.get("service_account", settings.get("application_credentials"))
    if text is None and path is not None:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None
    if text is None or "bearer_token" in settings:
        return None
    return ServiceAccount.load(text, base=settings.get("base_url"), bucket=settings["bucket"])


def _account_key(settings: dict[str, str]) -> AccountKey | None:
    endpoint = azure_endpoint(settings)
    if endpoint is None or not {"account_name", "account_key"} <= set(settings):
        return None
    key = base64.b64decode(settings["account_key"])
    return AccountKey(settings["account_name"], key, endpoint, settings["container_name"])


def _by_google(account: ServiceAccount, clock: Callable[[], float]) -> Signer:
    async def sign(wish: Wish) -> str:
        return account.url(
            wish.name,
            method=wish.method,
            now=clock(),
            seconds=wish.seconds,
            content_type=wish.content_type,
            disposition=wish.disposition,
        )

    return sign


def _by_azure(key: AccountKey, clock: Callable[[], float]) -> Signer:
    async def sign(wish: Wish) -> str:
        if wish.method != "GET":
            raise CopyUnavailableError(f"Azure has no URL for {wish.method} alone")
        return key.url(
            wish.name,
            now=clock(),
            seconds=wish.seconds,
            content_type=wish.content_type,
            disposition=wish.disposition,
        )

    return sign


def _by_obstore(store: S3Store) -> Signer:
    """Sign for S3. ``content_type`` and ``disposition`` are without effect; the plug-in ``s3`` does better."""

    async def sign(wish: Wish) -> str:
        return await obstore.sign_async(store, wish.method, wish.name, datetime.timedelta(seconds=wish.seconds))

    return sign

"""The AWS chain of credentials: environment, files, web identity, container, instance. Imports aiobotocore."""

from __future__ import annotations

import datetime

from aiobotocore.session import AioSession

from storage_plugins.sigv4 import Credentials


async def credentials_of_chain(profile: str | None) -> Credentials | None:
    """What the chain gives now, from its source and not from a cache; None if nothing in it has any.

    Raises:
        Exception: whatever its part that should have them raises.
    """
    found = await AioSession(profile=profile).get_credentials()
    if found is None:
        return None
    frozen = await found.get_frozen_credentials()
    # No public name tells when refreshable credentials end; those that last have neither.
    expires: datetime.datetime | None = getattr(found, "_expiry_time", None)
    return Credentials(
        frozen.access_key,
        frozen.secret_key,
        frozen.token or None,
        None if expires is None else expires.timestamp(),
    )

"""The AWS chain of credentials: environment, files, web identity, container, instance. Imports aiobotocore."""

from __future__ import annotations

import asyncio
import datetime

from aiobotocore.session import AioSession

from storage_plugins.s3.sigv4 import Credentials
from storage_plugins.threads import DaemonThreads


class AwsChain:
    """Asks the chain in a thread with a loop of its own: it reads files, and may load much of aiobotocore.

    There is one thread, so that a process or service of the chain that hangs is not asked again before it ends.
    """

    def __init__(self, profile: str | None) -> None:
        """Ask nobody yet.

        Args:
            profile: of the AWS files; None for the one that the environment names, or the default one.
        """
        self._profile = profile
        self._thread = DaemonThreads(1, "aws-credentials")

    async def fetch(self) -> Credentials | None:
        """What the chain gives now, from its source and not from a cache; None if nothing in it has any.

        Raises:
            Exception: whatever the part of it raises that should have them.
        """
        return await asyncio.wrap_future(self._thread.submit(_fetch, self._profile))

    def close(self) -> None:
        """Let the thread end; if it hangs it is not waited for."""
        self._thread.close()


def _fetch(profile: str | None) -> Credentials | None:
    return asyncio.run(_load(profile))


async def _load(profile: str | None) -> Credentials | None:
    found = await AioSession(profile=profile).get_credentials()
    if found is None:
        return None
    frozen = await found.get_frozen_credentials()
    # No public name tells when refreshable credentials end; those that last have none at all.
    expires: datetime.datetime | None = getattr(found, "_expiry_time", None)
    return Credentials(
        frozen.access_key,
        frozen.secret_key,
        frozen.token or None,
        None if expires is None else expires.timestamp(),
    )

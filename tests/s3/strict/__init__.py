"""A small S3 server that is as strict as Amazon's, and breaks in the ways that networks and storages break.

It does what OpenStack Swift (`tests.s3.swift`) does not: two kinds of authentication at once are refused, objects lie
in cold storage classes, buckets have CORS rules, and each answer can go wrong.
"""

from __future__ import annotations

import contextlib
import datetime
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from tests.s3.account import Account
from tests.s3.strict.certificate import server_context
from tests.s3.strict.cors import CorsRule
from tests.s3.strict.server import Clock, StrictS3
from tests.s3.strict.store import Pattern

__all__ = ["CorsRule", "Pattern", "StrictS3", "strict_s3"]


@contextlib.asynccontextmanager
async def strict_s3(
    *, clock: Clock | None = None, tls: bool = False, session_token: str | None = None
) -> AsyncIterator[StrictS3]:
    """Run a server on this loop; it is empty, and has one account.

    Args:
        clock: what time it is for the server, by default the true one.
        tls: whether it speaks HTTPS, with a certificate for 127.0.0.1 and ``*.s3.localhost``.
        session_token: what requests must show besides the key.
    """
    with contextlib.ExitStack() as stack:
        context, authority = None, None
        if tls:
            context, authority = server_context(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        bound = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        account = Account(
            f"{'https' if tls else 'http'}://127.0.0.1:{bound.getsockname()[1]}",
            f"AKIA{secrets.token_hex(8).upper()}",
            secrets.token_hex(20),
            session_token=session_token,
            ca_file=authority,
        )
        server = StrictS3(account, clock or _now, context)
        await server.listen(bound)
        try:
            yield server
        finally:
            await server.close()


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)

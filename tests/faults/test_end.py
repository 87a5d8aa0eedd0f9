"""The end of a process while it sends: who can be served is served, the others see it, and all is charged."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from gateway.quotas.limits import own_account
from tests.faults.support import most_in_socket_buffers
from tests.harness import SCIENCE, SCIENTIST, TENANT, config_for, running_gateway, token
from tests.quotas.holders import open_quotas

GIBIBYTE = 1024**3
HEADER_BYTES = 1000
"""More than any header of an answer has."""


def read_as_fast_as_possible(url: str, path: str) -> int:
    """Bytes received, header included, until the connection ends."""
    parts = urlsplit(url)
    received = 0
    buffer = bytearray(1024 * 1024)
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        connection.settimeout(30)
        lines = [f"GET {path} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {token(SCIENTIST)}", "", ""]
        connection.sendall("\r\n".join(lines).encode())
        try:
            while count := connection.recv_into(buffer):
                received += count
        except ConnectionResetError:
            pass
    return received


async def test_what_is_on_its_way_when_the_process_ends_is_charged(
    database: str, redis_url: str, tmp_path: Path
) -> None:
    """Nobody waits any more for the thread that sends it: megabytes of every running download were free."""
    config = config_for(database, redis_url, tmp_path, server={"port": 0, "shutdown_timeout": 0.2})
    async with running_gateway(config, tmp_path) as running:
        await running.catalogue.grant("restricted", await running.catalogue.group(SCIENCE))
        entry = await running.catalogue.file(b"", checksum=False, recorded=False)
        os.truncate(entry.path, 100 * GIBIBYTE)  # sparse: takes no room on the disk
        await running.catalogue.connection.execute("UPDATE files SET size = $1", 100 * GIBIBYTE)
        readers = [
            asyncio.create_task(asyncio.to_thread(read_as_fast_as_possible, running.url, entry.stac)) for _ in range(3)
        ]
        await asyncio.sleep(0.5)
    received = sum(await asyncio.gather(*readers))
    async with open_quotas(config.redis, config.quotas, database) as quotas:
        account = own_account(SCIENTIST)
        used = (await quotas.usage(TENANT, [account]))[account]
    assert used.running == 0
    # What they were promised is three times the bytes of the file: that is two downloads.
    assert used.downloads == 2
    assert received - 3 * HEADER_BYTES <= used.octets <= received + 3 * most_in_socket_buffers()

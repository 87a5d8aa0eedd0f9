"""Looks at the cache of restored copies: that something can be kept there, and that there is room for all of it."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
from pathlib import Path

from gateway.config import Config
from gateway.db import NEIGHBOUR_ERRORS, one_connection
from gateway.doctor.findings import Finding, Findings, ok, problem, warning
from gateway.errors import ConfigurationError
from gateway.locations import EVERY_TENANT, Location, storage_locations
from gateway.staging.cache import cache_storage
from gateway.staging.cache_names import location_of, prefix_of
from gateway.staging.cache_rows import USED
from gateway.storage import CanKeep, OnDisk, StorageError

_CONTENT = b"written by gateway doctor, and removed at once\n"
_GIB = 2**30


async def look_at_cache(config: Config) -> Findings:
    """Its storage can keep files, which are found and removed again; folder and files share a disk with room enough."""
    name = config.staging.cache
    setting = next(one for one in config.storage if one.name == name)
    try:
        async with storage_locations([setting]) as locations:
            location = locations[setting.name]
            storage = cache_storage(location)
            for finding in _fit(location, storage, [tenant for one in config.storage for tenant in one.tenants]):
                yield finding
            kept = await _keep(location, storage)
            yield kept
            if kept.level == "ok" and storage.scratch is not None:
                yield await _room(config, storage.scratch, on_disk=isinstance(storage, OnDisk))
    except ConfigurationError as error:
        yield problem(
            str(error).removeprefix("staging.cache: "), "correct 'cache' of [staging], or its [[storage]] table"
        )


def _fit(location: Location, storage: CanKeep, tenants: list[str]) -> list[Finding]:
    """Whether what it keeps is served to those whose files may be restored."""
    found = []
    for tenant in sorted(set(tenants) - {EVERY_TENANT}) or ["tenant"]:
        prefix = prefix_of(tenant, location.prefixes, storage.base)
        if not location.serves_tenant(tenant):
            found.append(
                warning(f"serves no files of tenant {tenant!r}: none of it are restored here", 'set tenants = ["*"]')
            )
        elif not location.serves(tenant, prefix) or not prefix.startswith(storage.base):
            found.append(problem(f"would keep files below {prefix!r}, which it does not serve", "see its prefixes"))
    return found


async def _keep(location: Location, storage: CanKeep) -> Finding:
    scratch = storage.scratch
    assert scratch is not None  # noqa: S101 - cache_storage has looked
    # What is left should this process be killed is found and removed as a file of the cache.
    where = location_of(prefix_of("doctor", location.prefixes, storage.base), 0, secrets.randbelow(10**9) + 10**17)
    file = scratch / f"doctor-{secrets.token_hex(8)}"
    try:
        await asyncio.to_thread(_write, file)
        stat = await storage.keep(file, where)
        found = await storage.stat(where)
        await storage.remove(where)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return problem(f"{scratch} and the files are on different file systems", "set 'scratch' to one on the same")
        return problem(f"nothing can be kept: {error.strerror or error}", "see the rights of the gateway there")
    except StorageError as error:
        return problem(f"nothing can be kept: {error}", "see its options and the rights of its credentials")
    finally:
        await asyncio.to_thread(file.unlink, missing_ok=True)
    if stat != found or stat.size != len(_CONTENT):
        return problem("what is kept is not what is found", "see that nothing else writes there")
    return ok("files are kept, found and removed")


async def _room(config: Config, scratch: Path, *, on_disk: bool) -> Finding:
    size, used = config.staging.cache_size, 0
    disk = await asyncio.to_thread(shutil.disk_usage, scratch)
    if not on_disk:
        return ok(f"{disk.free / _GIB:.1f} GiB are free in {scratch} for files on their way")
    try:
        async with one_connection(config.database) as connection:
            used = await connection.fetchval(USED, config.staging.cache) or 0
    except (ConfigurationError, *NEIGHBOUR_ERRORS):
        return warning("whether there is room is not known: the catalogue does not answer", "see what is said of it")
    text = f"cache_size is {size / _GIB:.1f} GiB, of which {used / _GIB:.1f} are used; {disk.free / _GIB:.1f} are free"
    if size - used > disk.free:
        return warning(f"{text}: the disk is full before the cache is", "set a smaller 'cache_size' of [staging]")
    return ok(text)


def _write(file: Path) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(_CONTENT)

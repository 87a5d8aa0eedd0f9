"""Looks at a storage location: what it can, what is set for it, and whether a copy can really be had from it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterator

from gateway.config import Config, StorageLocation
from gateway.db import NEIGHBOUR_ERRORS
from gateway.doctor.findings import Finding, Findings, ok, problem, warning
from gateway.doctor.samples import Sample, Samples, samples_of
from gateway.doctor.signed_urls import Clients, Object, look_at_signed_url
from gateway.errors import ConfigurationError
from gateway.locations import EVERY_TENANT, Location, storage_locations
from gateway.storage import (
    CanFetch,
    CanKeep,
    CanSign,
    CanStage,
    CanStream,
    CopyNotFoundError,
    CopyOfflineError,
    KnowsTape,
    OnDisk,
    StageState,
    Stat,
    StorageError,
    ToStage,
    answering_within,
)
from gateway.text import shown

_MOST_READ = 1024
"""Bytes of the copy that are read."""

_CAPABILITIES = (
    (OnDisk, "opens"),
    (CanStream, "streams"),
    (CanSign, "signs URLs"),
    (CanStage, "restores"),
    (CanFetch, "fetches"),
    (KnowsTape, "knows tapes"),
)


async def look_at_storage(setting: StorageLocation, config: Config, clients: Clients) -> Findings:
    """Its options hold, its settings fit what it can, and a copy of the catalogue can be had in each way that is used.

    Args:
        setting: its ``[[storage]]`` table.
        config: of the gateway.
        clients: that signed URLs are for.
    """
    async with contextlib.AsyncExitStack() as stack:
        try:
            locations = await stack.enter_async_context(storage_locations([setting]))
        except ConfigurationError as error:
            text = str(error).removeprefix(f"storage {setting.name!r}: ")
            yield problem(text, "correct its [[storage]] table, or what that names")
            return
        location = locations[setting.name]
        for finding in _settings(setting.plugin, location, config.staging.cache):
            yield finding
        if isinstance(location.storage, OnDisk):
            yield await _root(location.storage)
        try:
            async with asyncio.timeout(clients.seconds):
                restores = isinstance(location.storage, CanStage)
                samples = await samples_of(setting.name, config.database, nearline=restores)
        except (ConfigurationError, *NEIGHBOUR_ERRORS):
            yield warning("no copy could be tried: the catalogue does not answer", "see what is said of postgresql")
            return
        if _mixes_tenants(location, samples):
            yield warning(
                f"serves every tenant, and there are {samples.tenants}: one could refer to the files of another",
                'list its tenants, or set prefixes = ["{tenant}/"]',
            )
        sample = next((it for it in samples.newest if location.serves(it.tenant, it.copy.location)), None)
        if sample is None:
            yield _nothing_to_try(samples)
        elif isinstance(location.storage, CanStage) and _is_nearline(location, location.storage, sample):
            async for finding in _look_at_nearline_copy(location, location.storage, sample, clients):
                yield finding
        elif isinstance(location.storage, OnDisk | CanStream):
            async for finding in _look_at_copy(location, location.storage, sample, clients):
                yield finding


def _settings(plugin: str, location: Location, cache: str | None) -> Iterator[Finding]:
    """``cache`` is the name of the storage that restored copies are kept in."""
    storage = location.storage
    abilities = [name for kind, name in _CAPABILITIES if isinstance(storage, kind)]
    if storage.name == cache and isinstance(storage, CanKeep):
        abilities.append("keeps restored copies")
    text = f"plug-in {plugin!r}: {', '.join(abilities) or 'nothing that the gateway knows of'}"
    if isinstance(storage, OnDisk | CanStream) or (isinstance(storage, CanFetch) and cache is not None):
        yield ok(text)
    elif isinstance(storage, CanFetch):
        yield problem(f"{text}: there is no cache to fetch files into", "name a [[storage]] for it as [staging] cache")
    else:
        yield problem(f"{text}: no file can be served from it", "take a plug-in that opens or streams")
    if isinstance(storage, CanFetch) and location.type == "ONLINE":
        yield warning(f"type {location.type!r}, but its files must be fetched first", 'set type = "NEARLINE"')
    if location.delivery == "redirect" and not isinstance(storage, CanSign):
        yield warning("delivery 'redirect' has no effect: it signs no URLs", "set delivery to 'auto' or 'stream'")
    if location.type == "NEARLINE" and not isinstance(storage, CanStage):
        yield warning("type 'NEARLINE', but it restores nothing: its files are never served", "take one that restores")


async def _root(storage: OnDisk) -> Finding:
    """Whether its directory can be looked into, even if nothing is known to be in it."""
    try:
        await storage.stat(f"gateway-doctor-{secrets.token_hex(8)}")
    except CopyNotFoundError:
        return ok("its directory can be looked into")
    except StorageError as error:
        return problem(f"its directory cannot be looked into: {error}", "let the gateway's user read and search it")
    return ok("its directory can be looked into")


def _mixes_tenants(location: Location, samples: Samples) -> bool:
    parted = all("{tenant}" in prefix for prefix in location.prefixes)
    return samples.tenants > 1 and EVERY_TENANT in location.tenants and not parted


def _is_nearline(location: Location, storage: object, sample: Sample) -> bool:
    return "NEARLINE" in (location.type, sample.copy.state) or isinstance(storage, CanFetch)


def _nothing_to_try(samples: Samples) -> Finding:
    if not samples.newest:
        return warning(
            "the catalogue has no online copy in it, so that nothing could be tried but its options",
            "run this again once something is ingested",
        )
    newest = samples.newest[0]
    return warning(
        f"serves none of the newest copies, as {shown(newest.copy.location)} of tenant {newest.tenant!r}",
        "see its tenants and prefixes",
    )


async def _look_at_copy(location: Location, storage: OnDisk | CanStream, sample: Sample, clients: Clients) -> Findings:
    name = shown(sample.copy.location)
    stat = None
    try:
        stat = await storage.stat(sample.copy.location)
    except CopyNotFoundError:
        yield problem(
            f"{name} is not there, though the catalogue has it", "see that its options lead to what was ingested"
        )
    except StorageError as error:
        yield problem(f"{name} cannot be looked at: {error}", "see its options and the rights of its credentials")
    if stat is None:
        return
    recorded = sample.copy.recorded
    if recorded is not None and recorded.version != stat.version:
        yield warning(f"{name} was changed since it was ingested: it is not served", "ingest it again")
    else:
        yield ok(f"{name} is there")
    beginning = b""
    try:
        beginning = await _beginning(storage, sample.copy.location, stat)
        yield ok("it can be read")
    except CopyOfflineError:
        yield warning("it cannot be read before it is restored", 'set type = "NEARLINE", if all of it is archived')
    except StorageError as error:
        yield problem(f"it cannot be read: {error}", "see the rights of the gateway and of its credentials")
    if beginning and isinstance(location.storage, CanSign) and location.delivery in ("auto", "redirect"):
        found = Object(sample.copy.location, sample.file_name, sample.mime_type, stat.size, beginning[:1])
        async for finding in look_at_signed_url(location, location.storage, found, clients):
            yield finding


async def _look_at_nearline_copy(location: Location, storage: CanStage, sample: Sample, clients: Clients) -> Findings:
    """It is read only where that waits for no tape."""
    name = shown(sample.copy.location)
    copy = ToStage("gateway-doctor", sample.copy.location, sample.copy.size, 3600)
    found: StageState | None = None
    try:
        async with answering_within(clients.seconds):
            found = (await storage.staged([copy])).get(copy.key)
    except StorageError as error:
        yield problem(f"{name}: nobody tells how it stands: {error}", "see its options, and what it restores by")
        return
    if found is None:
        yield warning(f"{name}: nothing is said of it", "see what the storage restores by")
    elif found.state == "LOST":
        yield problem(f"{name} is lost: {found.error}", "see that its options lead to what was ingested")
    elif found.state == "FAILED":
        yield problem(f"{name} cannot be restored: {found.error}", "see what the storage restores by")
    elif found.state != "ONLINE":
        yield ok(f"{name} is nearline: it must be restored first")
    elif isinstance(storage, OnDisk | CanStream):
        async for finding in _look_at_copy(location, storage, sample, clients):
            yield finding
    else:
        yield ok(f"{name} can be fetched")


async def _beginning(storage: OnDisk | CanStream, location: str, stat: Stat) -> bytes:
    """The first bytes of a copy, at least one unless it is empty."""
    count = min(stat.size, _MOST_READ)
    if isinstance(storage, OnDisk):
        with contextlib.closing(await storage.open(location, 0, count)) as file:
            return file.head
    if not count:
        return b""
    with contextlib.closing(await storage.stream(location, 0, count, stat.version)) as stream:
        return await stream.read()

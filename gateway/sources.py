"""Which copies of a file can answer, in which order, and what they must be."""

from __future__ import annotations

import dataclasses
import enum
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from http import HTTPStatus

from gateway.catalog.model import Copy, File
from gateway.delivery.source import Source
from gateway.errors import GatewayError, unavailable
from gateway.locations import Location
from gateway.storage import (
    CanStage,
    CanStream,
    CopyBrokenError,
    CopyChangedError,
    CopyNotFoundError,
    CopyOfflineError,
    CopyUnavailableError,
    OnDisk,
    Stat,
    Storage,
    StorageError,
    answering_within,
    can_stream,
    on_disk,
)

NOT_ONLINE = "NotOnline"
"""Code of the refusal of a file that must be restored first."""


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """A copy that can answer, and where it lies."""

    copy: Copy
    location: Location

    @property
    def is_online(self) -> bool:
        """Whether it can be read always, not only for a while."""
        return _is_online(self.copy, self.location)

    def is_verified(self, version: str | None) -> bool:
        """Whether the bytes of ``version`` were held against the checksum once, and were right, or need not be."""
        return self.location.verify == "never" or (version is not None and version == self.copy.verified_version)

    def source(self, expected: Stat | None, *, provable: bool) -> Source:
        """How it is read; ``provable`` says that there is a checksum to hold it against."""
        always = self.location.verify == "always"
        verified = self.is_verified(expected.version if expected is not None else None)
        return Source(
            self.copy.copy_id,
            self.copy.storage,
            readable(self.location.storage),
            self.copy.location,
            expected,
            self.copy.broken_version,
            prove=provable and (always or not verified),
            # A large file of this machine leaves by sendfile, and is verified in the background.
            prove_large=always or on_disk(self.location.storage) is None,
        )


class Resting:
    """Names of storage locations that failed a moment ago: others are asked first, so that not every request waits."""

    def __init__(self, seconds: float = 10, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._until: dict[str, float] = {}

    def add(self, name: str) -> None:
        """Let the location rest from now on."""
        self._until[name] = self._clock() + self._seconds

    def __contains__(self, name: object) -> bool:
        return self._until.get(str(name), 0) > self._clock() if self._until else False


class Hindrance(enum.Enum):
    """Why a copy cannot be served; the value says it to operators."""

    NO_STORAGE = "no [[storage]] here has this name"
    TENANT = "its storage location does not serve the tenant"
    PLACE = "its storage location does not serve what lies there"
    UNREADABLE = "its storage can neither open nor stream"
    NOT_ONLINE = "it is not online"
    BROKEN = "it has not the bytes of its checksum, as was seen before"


def assess(copy: Copy, locations: Mapping[str, Location], tenant: str) -> Candidate | Hindrance:
    """Whether a copy of a file of ``tenant`` can be served, as far as the catalogue and the configuration tell."""
    location = locations.get(copy.storage)
    if location is None:
        return Hindrance.NO_STORAGE
    if not location.serves(tenant, copy.location):
        return Hindrance.PLACE if location.serves_tenant(tenant) else Hindrance.TENANT
    if not _is_online(copy, location) and not _is_restored(copy, location):
        return Hindrance.NOT_ONLINE
    if _readable(location.storage) is None:
        return Hindrance.UNREADABLE
    if copy.version is not None and copy.version == copy.broken_version:
        return Hindrance.BROKEN
    return Candidate(copy, location)


def _is_online(copy: Copy, location: Location) -> bool:
    return copy.state == "ONLINE" and location.type == "ONLINE"


def _is_restored(copy: Copy, location: Location) -> bool:
    return copy.restored_until is not None and copy.state in ("ONLINE", "NEARLINE") and location.type != "OFFLINE"


@dataclasses.dataclass(frozen=True, slots=True)
class Nearline:
    """A copy that can be restored, and the storage that does it."""

    copy: Copy
    location: Location
    storage: CanStage


def restorable(copies: Iterable[Copy], locations: Mapping[str, Location], tenant: str) -> tuple[Nearline, ...]:
    """Those of all ``copies`` of a file that can be restored, the best first; none if one is online.

    Args:
        copies: of a file of the tenant.
        locations: those of this gateway, by name.
        tenant: of the caller, and so of the file.
    """
    found = []
    for copy in copies:
        location = locations.get(copy.storage)
        if location is None or not location.serves(tenant, copy.location) or copy.entry_id is not None:
            continue
        if copy.version is not None and copy.version == copy.broken_version:
            continue
        if _is_online(copy, location):
            return ()
        is_nearline = copy.state == "NEARLINE" or (copy.state == "ONLINE" and location.type == "NEARLINE")
        if is_nearline and location.type != "OFFLINE" and isinstance(location.storage, CanStage):
            found.append(Nearline(copy, location, location.storage))
    return tuple(sorted(found, key=lambda one: one.location.priority))


def choose(
    file: File, locations: Mapping[str, Location], tenant: str, *, resting: Container[str] = ()
) -> tuple[Candidate, ...]:
    """The copies that can answer now, the best first: at the lowest priority number, in storages that are not resting.

    Args:
        file: of the tenant.
        locations: those of this gateway, by name.
        tenant: of the caller, and so of the file.
        resting: names of locations that failed a moment ago; they are asked last.

    Raises:
        GatewayError: 410 all copies would have to be restored first; 502 all are known to be broken; 503 no location of
            this gateway has a copy that it may serve.
    """
    sound, hindrances = [], set()
    for copy in file.copies:
        found = assess(copy, locations, tenant)
        if isinstance(found, Candidate):
            sound.append(found)
        else:
            hindrances.add(found)
    if sound:
        return tuple(sorted(sound, key=lambda it: (it.copy.storage in resting, it.location.priority)))
    if Hindrance.BROKEN in hindrances and not restorable(file.copies, locations, tenant):
        raise _broken()
    if Hindrance.NOT_ONLINE in hindrances:
        raise _not_online()
    raise unavailable("No storage location of this gateway holds this file.", retry_after=300, code="NoStorage")


async def expect(
    file: File, candidates: Sequence[Candidate], resting: Resting, *, ask: bool, storage_timeout: float
) -> tuple[Stat, tuple[Candidate, ...]]:
    """What the answer is made of, and the copies that can give just that, the best first.

    It is what was recorded of the best copy at ingest, else what the storage says now. With ``ask`` the storage is
    asked in any case, so that HEAD tells what a GET would find. Others can stand in for it only where a checksum says
    that they are the same; without one, the storages are asked which copy is there, and that one stands alone.

    Raises:
        GatewayError: 404 the copies are gone; 502 they are not the file of the catalogue; 503 no storage answers.
    """
    alike = file.checksum is not None
    first: StorageError | None = None
    for index, candidate in enumerate(candidates):
        recorded = candidate.copy.recorded
        if recorded is not None and not ask and (alike or len(candidates) == 1):
            found = recorded
        else:
            try:
                found = await _ask(candidate, storage_timeout)
            except StorageError as error:
                if isinstance(error, CopyUnavailableError):
                    resting.add(candidate.copy.storage)
                first = first or error
                continue
        if file.size is not None and found.size != file.size:
            text = f"{candidate.copy.location}: has {found.size} bytes, the catalogue says {file.size}"
            first = first or CopyChangedError(text)
            continue
        rest = candidates[index:] if alike else candidates[index : index + 1]
        return found, tuple(rest)
    assert first is not None  # noqa: S101 - there was at least one candidate
    raise failure(first) from first


async def _ask(candidate: Candidate, storage_timeout: float) -> Stat:
    async with answering_within(storage_timeout):
        found = await readable(candidate.location.storage).stat(candidate.copy.location)
    recorded = candidate.copy.recorded
    if recorded is not None and found.version != recorded.version:
        raise CopyChangedError(f"{candidate.copy.location}: changed since it was ingested")
    if found.version == candidate.copy.broken_version:
        raise CopyBrokenError(f"{candidate.copy.location}: has not the bytes of its checksum, as was seen before")
    return found


def readable(storage: Storage) -> OnDisk | CanStream:
    """``storage``, of which is known that it can be read."""
    found = _readable(storage)
    if found is None:
        raise TypeError(f"storage {storage.name!r} can neither be opened nor streamed from")
    return found


def _readable(storage: Storage) -> OnDisk | CanStream | None:
    return on_disk(storage) or can_stream(storage)


def failure(error: StorageError) -> GatewayError:
    """What a caller is told when no copy can be read; the storage's own words are for the log."""
    if isinstance(error, CopyNotFoundError):
        return GatewayError(HTTPStatus.NOT_FOUND, "The file is missing from its storage location.", code="FileMissing")
    if isinstance(error, CopyOfflineError):
        return _not_online()
    if isinstance(error, CopyChangedError):
        detail = "What is stored is no longer the file that the catalogue describes, so it is not delivered."
        return GatewayError(HTTPStatus.BAD_GATEWAY, detail, code="FileChanged", headers={"Retry-After": "300"})
    if isinstance(error, CopyBrokenError):
        return _broken()
    return unavailable("The storage location does not answer at the moment; try again.", retry_after=30)


def _broken() -> GatewayError:
    detail = "What is stored has not the checksum of the catalogue, so it is not delivered."
    return GatewayError(HTTPStatus.BAD_GATEWAY, detail, code="FileBroken", headers={"Retry-After": "300"})


def _not_online() -> GatewayError:
    return GatewayError(HTTPStatus.GONE, "This file is not online; it must be restored first.", code=NOT_ONLINE)

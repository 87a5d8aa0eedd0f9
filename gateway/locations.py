"""Storage locations: the ``[[storage]]`` tables of the configuration, with the plug-ins that serve them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Iterable
from importlib.metadata import entry_points
from typing import Literal

from gateway.config import StorageLocation
from gateway.errors import ConfigurationError
from gateway.http.offload import Offload
from gateway.storage import Storage

ENTRY_POINT_GROUP = "gateway.storage"

EVERY_TENANT = "*"


@dataclasses.dataclass(frozen=True, slots=True)
class Location:
    """A storage and what its ``[[storage]]`` table says of it; the settings are described in `gateway.config`."""

    storage: Storage
    type: Literal["ONLINE", "NEARLINE", "OFFLINE"] = "ONLINE"
    priority: int = 0
    tenants: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ("",)
    delivery: Literal["auto", "stream", "redirect", "accel"] = "auto"
    redirect_ttl: float = 60
    redirect_max_age: int = 0
    redirect_min_size: int = 0
    verify: Literal["first", "always", "never"] = "first"
    offload: Offload | None = None
    """How the proxy in front can send its files, where it can."""

    def serves_tenant(self, tenant: str) -> bool:
        """Whether it may hold files of ``tenant`` at all."""
        return tenant in self.tenants or EVERY_TENANT in self.tenants

    def serves(self, tenant: str, location: str) -> bool:
        """Whether files of ``tenant`` may lie at ``location`` of this storage.

        A path with dot segments lies where it seems to only as long as nobody on the way resolves them: never served.
        """
        if not self.serves_tenant(tenant):
            return False
        if not {".", ".."}.isdisjoint(location.split("/")):
            return False
        return any(location.startswith(prefix.replace("{tenant}", tenant)) for prefix in self.prefixes)

    def is_own(self, tenant: str, location: str) -> bool:
        """Whether what lies at ``location`` can be of no other tenant: none has files here, or not below its prefix."""
        if self.tenants == {tenant}:
            return True
        own = (prefix.replace("{tenant}", tenant) for prefix in self.prefixes if "{tenant}" in prefix)
        return any(location.startswith(prefix) for prefix in own)


def load_plugin(name: str) -> type[Storage]:
    """The plug-in class announced as ``name``.

    Raises:
        ConfigurationError: no installed package announces it, or it cannot be imported.
    """
    found = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none; is the gateway installed?"
        raise ConfigurationError(f"storage plug-in {name!r} is not installed; installed are: {known}")
    try:
        plugin: type[Storage] = found[name].load()
    except ImportError as error:
        raise ConfigurationError(f"storage plug-in {name!r} cannot be imported: {error}") from error
    return plugin


@contextlib.asynccontextmanager
async def storage_locations(settings: Iterable[StorageLocation]) -> AsyncIterator[dict[str, Location]]:
    """Make the storages of all ``[[storage]]`` tables, by name.

    Raises:
        ConfigurationError: a plug-in is not installed, or refuses its options.
    """
    async with contextlib.AsyncExitStack() as stack:
        locations = {}
        for setting in settings:
            try:
                storage = load_plugin(setting.plugin).from_options(setting.name, setting.options)
            except ConfigurationError as error:
                raise ConfigurationError(f"storage {setting.name!r}: {error}") from error
            stack.push_async_callback(storage.close)
            locations[setting.name] = _location(setting, storage)
        yield locations


def _location(setting: StorageLocation, storage: Storage) -> Location:
    offload = None
    if setting.offload is not None and setting.offload_prefix is not None:
        offload = Offload(setting.offload, setting.offload_prefix)
    return Location(
        storage,
        type=setting.type,
        priority=setting.priority,
        tenants=frozenset(setting.tenants),
        prefixes=tuple(setting.prefixes),
        delivery=setting.delivery,
        redirect_ttl=setting.redirect_ttl,
        redirect_max_age=setting.redirect_max_age,
        redirect_min_size=setting.redirect_min_size,
        verify=setting.verify,
        offload=offload,
    )

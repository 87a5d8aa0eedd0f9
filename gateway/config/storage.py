"""``[[storage]]``: where files lie, and how they leave."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gateway.config.section import PluginTable, Text


class StorageLocation(PluginTable):
    """``[[storage]]``: one storage location. Settings not named here are options of its plug-in."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    """Name by which copies refer to it; never change it once files are ingested."""
    plugin: Text
    """Name of the installed plug-in (entry point group ``gateway.storage``)."""
    type: Literal["ONLINE", "NEARLINE", "OFFLINE"] = "ONLINE"
    """ONLINE serves at once, NEARLINE after a restore, OFFLINE never."""
    priority: int = 0
    """Of several copies the one at the lowest number is served."""
    tenants: Annotated[list[Text], Field(min_length=1)]
    """Tenants whose files it may hold; ``["*"]`` for all. A copy of another tenant is neither ingested nor served."""
    prefixes: Annotated[list[Annotated[str, Field(pattern=r"^(.*/)?$")]], Field(min_length=1)] = [""]  # noqa: RUF012 - pydantic copies it
    """What locations may start with, each with a slash at its end; ``{tenant}`` stands for the tenant's name, so that
    ``["{tenant}/"]`` keeps the files of each tenant apart. Anything else is neither ingested nor served."""
    delivery: Literal["auto", "stream", "redirect", "accel"] = "auto"
    """How its files leave: ``stream`` through this process (from a disk by sendfile), ``redirect`` to a signed URL of
    the storage, ``accel`` by the proxy in front (see ``offload``). ``auto`` takes the cheapest that is safe for the
    request and client. What a way cannot do is streamed: HEAD, several ranges, preconditions."""
    redirect_ttl: Annotated[float, Field(ge=1, le=604800)] = 60
    """Seconds that a signed URL works, at most; less where the credentials end sooner."""
    redirect_max_age: Annotated[int, Field(ge=0)] = 0
    """Seconds that a client may keep a redirect; below ``redirect_ttl``. 0 is ``no-store``."""
    redirect_min_size: Annotated[int, Field(ge=0)] = 65536
    """Bytes from which on ``auto`` redirects: for a smaller file the second request costs the client more."""
    verify: Literal["first", "always", "never"] = "first"
    """When its bytes are held against the catalogue's checksum: ``first``, once for each version of each copy, on its
    first delivery or in the background right after; ``always``, on each whole delivery, which then neither sendfile nor
    a redirect can make; ``never``."""
    offload: Literal["X-Accel-Redirect", "X-Sendfile"] | None = None
    """Have the proxy in front send the files, told by this field: for requests of ``trusted_proxies`` that name it in
    X-Sendfile-Type."""
    offload_prefix: Annotated[str, Field(pattern=r"^(/[^/\x00-\x20]+)+$")] | None = None
    """Where the proxy finds the storage: for nginx the path of an internal location, for X-Sendfile the directory."""

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        if (self.offload is None) != (self.offload_prefix is None):
            raise ValueError("'offload' and 'offload_prefix' go together: set both or none")
        if self.delivery == "accel" and self.offload is None:
            raise ValueError("delivery 'accel' needs 'offload' and 'offload_prefix'")
        if self.redirect_max_age and self.redirect_max_age >= self.redirect_ttl:
            raise ValueError("'redirect_max_age' must be below 'redirect_ttl': a kept redirect would lead nowhere")
        if self.verify == "always" and self.delivery in ("redirect", "accel"):
            raise ValueError("verify 'always' needs delivery 'stream' or 'auto': other bytes do not pass through here")
        return self

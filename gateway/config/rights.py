"""``[rights]`` and ``[[policies]]``: who may see and download what."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.config.quotas import DataType
from gateway.config.section import PluginTable, Seconds, Section, Text


class Rights(Section):
    """``[rights]``: what the rights in the database leave to settings."""

    open_data_types: list[DataType] = [  # noqa: RUF012 - pydantic copies it
        "QUICKLOOK_SD",
        "QUICKLOOK_MD",
        "QUICKLOOK_HD",
        "THUMBNAIL",
        "DESCRIPTION",
    ]
    """Data types of files that whoever sees the product may download, without licence and right to its files."""
    hide_forbidden: bool = False
    """Whether a product of the caller's own tenant that he may not see is answered as if there were none: 404 instead
    of 403."""


class PolicyTable(PluginTable):
    """``[[policies]]``: what rights with CUSTOM_ACCESS may name. Settings not named here are options of its plug-in."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    """Name by which rights refer to it."""
    plugin: Text
    """``opa``, ``properties``, or an installed plug-in (entry point group ``gateway.policies``)."""
    timeout: Seconds = 1
    """Seconds that a decision, on up to 100 products at once, may take; then the answer is 503."""

"""``[companion]``: the STAC API that this gateway stands in front of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from gateway.config.section import Seconds, Section, Text


def _root(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in value or set(value) & set("?# \t\r\n"):
        raise ValueError("must be an http or https URL without user and query, like 'https://stac.example.org/api'")
    return value.rstrip("/")


class Companion(Section):
    """``[companion]``: absent, the gateway serves the STAC API of its own catalogue."""

    upstream: Annotated[str, AfterValidator(_root)]
    """Root URL of the STAC API in front of which the gateway stands: what it says passes through, with asset links that
    lead here. Its host is the only one that is asked."""
    tenant: Text
    """Whose its items are: hrefs count only where a ``[[storage]]`` takes them for this tenant, and rights, licences
    and quotas are those of this tenant."""
    authorization: SecretStr | None = None
    """Value of the Authorization field that the gateway shows to it, like ``Bearer …``; absent, it shows none."""
    forward_authorization: bool = False
    """Whether it is shown the Authorization field of the caller instead: only where it takes the same tokens."""
    timeout: Seconds = 10
    """Seconds that it may take to answer, and then to go on with its answer."""
    max_age: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 300
    """Seconds for which what it said of an item is believed by a download without asking again."""
    ca_file: Path | None = None
    """Certificates (PEM) to trust instead of the system's."""

"""``[audit]``: the record of downloads."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gateway.config.section import RandomSecret, Section


class Audit(Section):
    """``[audit]``: the record of downloads and refusals."""

    keep_days: Annotated[int, Field(ge=1, le=36_500)] = 400
    """Days that records are kept; they go by whole months."""
    addresses: Literal["plain", "hashed", "none"] = "plain"
    """What is kept of clients' IP addresses: they themselves, their HMAC-SHA-256 by ``secret`` (the same address always
    looks the same), or nothing."""
    secret: RandomSecret | None = None
    """Key of hashed addresses, at least 32 bytes: with a shorter one all addresses could be tried."""

    @model_validator(mode="after")
    def _hashed_by_a_secret(self) -> Self:
        if self.addresses == "hashed" and self.secret is None:
            raise ValueError("'addresses' needs a 'secret' to hash with (openssl rand -base64 48 makes one)")
        return self

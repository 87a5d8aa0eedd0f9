"""``[audit]``: the record of downloads."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from gateway.config.section import Section

SECRET_BYTES = 32
"""Shortest secret of hashed addresses: with a shorter one all addresses could be tried."""


class Audit(Section):
    """``[audit]``: the record of downloads and refusals."""

    keep_days: Annotated[int, Field(ge=1, le=36_500)] = 400
    """Days that records are kept; they go by whole months."""
    addresses: Literal["plain", "hashed", "none"] = "plain"
    """What is kept of clients' IP addresses: they themselves, their HMAC-SHA-256 by ``secret`` (the same address always
    looks the same), or nothing."""
    secret: SecretStr | None = None
    """Key of hashed addresses, at least 32 bytes."""

    @model_validator(mode="after")
    def _a_secret_that_is_one(self) -> Self:
        if self.secret is None:
            if self.addresses == "hashed":
                raise ValueError("'addresses' needs a 'secret' to hash with (openssl rand -base64 48 makes one)")
            return self
        if "replace-me" in self.secret.get_secret_value():
            raise ValueError("'secret' is the placeholder of the example, which everybody knows")
        length = len(self.secret.get_secret_value().encode())
        if length < SECRET_BYTES:
            raise ValueError(f"'secret' has {length} bytes; it needs at least {SECRET_BYTES}")
        return self

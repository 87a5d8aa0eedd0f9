"""``[identity]``: how callers show who they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from gateway.config.section import Section, Text

HMAC_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Shortest secret of each algorithm in bytes: that of its hash (RFC 7518 §3.2)."""


class JwtKey(Section):
    """``[[identity.jwt]]``: one key that bearer tokens may be signed with, and the algorithms it is pinned to."""

    algorithms: Annotated[list[Literal["HS256", "HS384", "HS512", "RS256"]], Field(min_length=1)]
    """The only values of a token's ``alg`` that this key verifies."""
    secret: SecretStr | None = None
    """For HS algorithms: the shared secret, at least as long as the hash (32, 48, 64 bytes)."""
    public_key_file: Path | None = None
    """For RS algorithms: PEM file with the public key."""
    issuer: Text | None = None
    """Required value of ``iss``; not looked at when absent (REGARDS sets none)."""
    audience: Text | None = None
    """Required value of ``aud``; not looked at when absent."""

    @model_validator(mode="after")
    def _one_key_of_the_right_kind(self) -> Self:
        kinds = {algorithm[:2] for algorithm in self.algorithms}
        if kinds == {"HS"}:
            if self.secret is None or self.public_key_file is not None:
                raise ValueError("HS algorithms need 'secret' and no 'public_key_file'")
            if "replace-me" in self.secret.get_secret_value():
                raise ValueError("'secret' is the placeholder of the example, which everybody knows")
            length = len(self.secret.get_secret_value().encode())
            shortest = max(HMAC_SECRET_BYTES[algorithm] for algorithm in self.algorithms)
            if length < shortest:
                raise ValueError(
                    f"'secret' has {length} bytes; {', '.join(self.algorithms)} need at least {shortest} "
                    "(openssl rand -base64 48 makes a good one)"
                )
        elif kinds == {"RS"}:
            if self.public_key_file is None or self.secret is not None:
                raise ValueError("RS algorithms need 'public_key_file' and no 'secret'")
        else:
            raise ValueError("'algorithms' mixes HS and RS: give each its own [[identity.jwt]]")
        return self


LINK_SECRET_BYTES = 32
LONGEST_LINK_SECONDS = 7 * 86400


class Links(Section):
    """``[identity.links]``: signed download links."""

    secret: SecretStr
    """What all signatures are derived from: at least 32 bytes. With another one all links end."""
    lifetime: Annotated[int, Field(ge=1, le=LONGEST_LINK_SECONDS)] = 86400
    """Seconds that a link works if its maker names no end."""
    max_lifetime: Annotated[int, Field(ge=1, le=LONGEST_LINK_SECONDS)] = LONGEST_LINK_SECONDS
    """Seconds that a link may work at most: a week or less."""

    @field_validator("secret")
    @classmethod
    def _unknown_to_others(cls, value: SecretStr) -> SecretStr:
        secret = value.get_secret_value()
        if "replace-me" in secret:
            raise ValueError("is the placeholder of the example, which everybody knows")
        if len(secret.encode()) < LINK_SECRET_BYTES:
            raise ValueError(
                f"has {len(secret.encode())} bytes; it must have at least {LINK_SECRET_BYTES} "
                "(openssl rand -base64 48 makes a good one)"
            )
        return value

    @model_validator(mode="after")
    def _within_the_longest(self) -> Self:
        if self.lifetime > self.max_lifetime:
            raise ValueError("'lifetime' is more than 'max_lifetime'")
        return self


class Identity(Section):
    """``[identity]``: how callers show who they are."""

    jwt: Annotated[list[JwtKey], Field(min_length=1)]
    """Keys of bearer tokens; the first that fits a token's ``alg`` and verifies it is taken."""
    links: Links | None = None
    """Signed download links; there are none without this table."""
    leeway: Annotated[float, Field(ge=0, le=60)] = 10
    """Seconds that the clocks of token issuers may differ from ours."""

"""``[identity]``: how callers show who they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

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


class Identity(Section):
    """``[identity]``: how callers show who they are."""

    jwt: Annotated[list[JwtKey], Field(min_length=1)]
    """Keys of bearer tokens; the first that fits a token's ``alg`` and verifies it is taken."""
    leeway: Annotated[float, Field(ge=0, le=60)] = 10
    """Seconds that the clocks of token issuers may differ from ours."""

"""The text of a token: a signed JWT in compact form, read strictly."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
"""A signed JWT (RFC 7515 §7.1): three parts of base64url without padding."""
_TYPES = frozenset({None, "jwt", "at+jwt", "application/at+jwt", "application/jwt"})
"""Values of ``typ``, in small letters: JWTs (RFC 7519 §5.1) and access tokens (RFC 9068 §2.1). Others say that they are
made for something else (RFC 8725 §3.11)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """What a token says, before anything of it is verified."""

    algorithm: str
    kid: str | None
    claims: Mapping[str, Any]
    message: bytes = dataclasses.field(repr=False)
    """What the signature is over: header and payload as they came."""
    signature: bytes = dataclasses.field(repr=False)


def parse_token(text: str) -> Token:
    """Read a token. It is read once: what is verified is what is believed.

    No member of a header but ``alg`` and ``kid`` has any effect; keys and addresses of keys in it are not looked at.

    Raises:
        ValueError: it is no JWT, or one whose header asks for what is not done here (``crit``, ``b64``). The message
            quotes nothing.
    """
    if not _COMPACT.fullmatch(text):
        raise ValueError("the token is not a JWT")
    message, _, signature = text.rpartition(".")
    encoded_header, _, encoded_payload = message.partition(".")
    header = _object(encoded_header)
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(algorithm, str) or not isinstance(kid, str | None) or not isinstance(kind, str | None):
        raise ValueError("the token's header is not valid")  # noqa: TRY004 - of the text, not of an argument
    if "crit" in header or header.get("b64", True) is not True or (kind and kind.lower()) not in _TYPES:
        raise ValueError("the token's header asks for what is not supported")
    return Token(algorithm, kid, _object(encoded_payload), message.encode(), _decode(signature))


def _object(encoded: str) -> dict[str, Any]:
    try:
        value = json.loads(_decode(encoded).decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError("the token is not a JWT") from error
    if not isinstance(value, dict):
        raise ValueError("the token is not a JWT")  # noqa: TRY004 - of the text, not of an argument
    return value


def _decode(encoded: str) -> bytes:
    """Decode base64url, of which each run of bytes has but one form."""
    data = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    if base64.urlsafe_b64encode(data).decode().rstrip("=") != encoded:
        raise ValueError("the token is not a JWT")
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that is there twice (RFC 7515 §4, RFC 7519 §4): parsers differ in which one they take."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a name is there twice")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")

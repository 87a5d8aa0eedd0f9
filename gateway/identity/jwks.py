"""What an identity provider publishes: its JWK Set (RFC 7517), where that is, and how long it is fresh."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm

from gateway.http.outbound import Target, parse_target
from gateway.identity.keys import PublicKey, VerificationKey, fits

MOST_KEYS = 64
"""Usable keys of a set; those after them are passed over."""
FRESH_SECONDS = (60.0, 86_400.0)
"""Shortest and longest time that keys are fresh, whatever the answer says."""
_USUAL_FRESH_SECONDS = 600.0
"""Where the answer says nothing."""
_LONGEST_KID = 1024
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""Members of private and symmetric keys (RFC 7518 §6): who reads such a key can sign with it."""
_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_MAX_AGE = re.compile(r'max-age="?(\d{1,9})"?', re.ASCII)
_UNREADABLE = (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, AttributeError, KeyError, OverflowError)
"""What a hostile or broken key raises in the libraries."""


class UnusableError(Exception):
    """What was published cannot be used. The message quotes nothing of it but the name of a host."""


def parse_key_set(body: bytes, algorithms: Sequence[str]) -> tuple[VerificationKey, ...]:
    """The keys of a JWK Set that verify some of ``algorithms``.

    Passed over, as RFC 7517 §5 asks: keys of other types, lengths, curves, uses or algorithms, private and symmetric
    ones, and whatever cannot be read.

    Raises:
        UnusableError: it is no JWK Set, or no key of it can be used.
    """
    listed = _object(body).get("keys")
    if not isinstance(listed, list):
        raise UnusableError("gave no JWK Set")
    keys: list[VerificationKey] = []
    for jwk in listed:
        if len(keys) < MOST_KEYS and isinstance(jwk, dict) and (key := _key(jwk, algorithms)) and key not in keys:
            keys.append(key)
    if not keys:
        raise UnusableError(f"gave a JWK Set without a public key for {', '.join(algorithms)}")
    return tuple(keys)


def _key(jwk: Mapping[str, Any], algorithms: Sequence[str]) -> VerificationKey | None:
    kid = jwk.get("kid")
    if (kid is not None and (not isinstance(kid, str) or len(kid) > _LONGEST_KID)) or not _PRIVATE.isdisjoint(jwk):
        return None
    if jwk.get("use", "sig") != "sig" or not _is_for_verifying(jwk.get("key_ops")):
        return None
    candidates = [
        algorithm
        for algorithm in algorithms
        if jwk.get("alg", algorithm) == algorithm and _TYPES[algorithm[:2]] == jwk.get("kty")
    ]
    if not candidates:
        return None
    try:
        key = jwt.PyJWK.from_dict(dict(jwk), candidates[0]).key
    except _UNREADABLE:
        return None
    fitting = tuple(algorithm for algorithm in candidates if fits(algorithm, key))
    return VerificationKey(fitting, key, kid) if fitting and isinstance(key, PublicKey) else None


def _is_for_verifying(operations: object) -> bool:
    return operations is None or (isinstance(operations, list) and "verify" in operations)


def parse_discovery(
    body: bytes, issuer: str, hosts: Collection[str], names: Sequence[str], *, insecure_http: bool
) -> list[Target]:
    """Where a discovery document (OpenID Connect Discovery 1.0 §3) says that something is, like the keys.

    Args:
        body: the document.
        issuer: that it must be of (§4.3).
        hosts: that may be named, as `Target.authority` writes them.
        names: of the members that say it (``jwks_uri``).
        insecure_http: whether http to loopback addresses is allowed.

    Raises:
        UnusableError: it is of another issuer, or names a place that is not allowed.
    """
    document = _object(body)
    if document.get("issuer") != issuer:
        raise UnusableError("gave a discovery document of another issuer")
    return [_place(document, name, hosts, insecure_http=insecure_http) for name in names]


def _place(document: Mapping[str, Any], name: str, hosts: Collection[str], *, insecure_http: bool) -> Target:
    place = document.get(name)
    if not isinstance(place, str):
        raise UnusableError(f"gave a discovery document without {name!r}")
    try:
        target = parse_target(place, insecure_http=insecure_http)
    except ValueError as error:
        raise UnusableError(f"gave a discovery document whose {name!r} is not allowed: {error}") from error
    if target.authority not in hosts:
        raise UnusableError(f"gave a discovery document whose {name!r} is at {target.authority}, at none of 'hosts'")
    return target


def fresh_seconds(headers: Mapping[str, str]) -> float:
    """How long an answer is fresh (RFC 9111 §4.2), within `FRESH_SECONDS`."""
    shortest, longest = FRESH_SECONDS
    control = headers.get("Cache-Control", "").lower()
    if "no-store" in control or "no-cache" in control:
        return shortest
    stated = _MAX_AGE.search(control)
    if stated is None:
        return _USUAL_FRESH_SECONDS
    age = headers.get("Age", "")
    return min(max(float(stated[1]) - (int(age) if re.fullmatch(r"[0-9]{1,9}", age) else 0), shortest), longest)


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise UnusableError("gave no JSON") from error
    if not isinstance(value, dict):
        raise UnusableError("gave no JSON object")
    return value

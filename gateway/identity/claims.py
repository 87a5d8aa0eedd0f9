"""The claims of a verified token: for whom, from when to when, and who it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from gateway.config import ClaimNames, Issuer
from gateway.identity.principal import Principal
from gateway.text import is_storable

LONGEST_CLAIM = 1024
"""Bytes: e-mail addresses are keys in PostgreSQL, whose indexes take no more than some 2700."""
MOST_GROUPS = 1000
_LATEST = 253_402_300_799
"""Last second of the year 9999. A later time is a mistake (milliseconds, say) and would make a token for ever."""
_HIERARCHY = ("INSTANCE_ADMIN", "PROJECT_ADMIN", "ADMIN", "EXPLOIT", "REGISTERED_USER", "PUBLIC")
"""REGARDS' own roles, the highest first."""


class ClaimError(Exception):
    """A claim is missing or wrong. The message may be shown: it quotes no claim's value."""


@dataclasses.dataclass(frozen=True, slots=True)
class ClaimMapping:
    """Where the claims of an issuer say who the caller is. The defaults are REGARDS'."""

    names: ClaimNames = ClaimNames()  # noqa: RUF009 - it is frozen
    tenant: str | None = None
    default_role: str | None = None
    role_prefix: str = ""
    instance_admin: bool = True
    unverified_email: bool = True

    @classmethod
    def by(cls, setting: Issuer) -> ClaimMapping:
        """As an issuer's table says."""
        return cls(
            setting.claims,
            setting.tenant,
            setting.default_role,
            setting.role_prefix or "",
            setting.instance_admin,
            setting.unverified_email,
        )

    def principal(self, claims: Mapping[str, Any]) -> Principal:
        """Who the caller is.

        Raises:
            ClaimError: a claim is missing, of another type, or not one that can be stored.
        """
        names = self.names
        email = _text(claims, names.email)
        if not self.unverified_email and claims.get("email_verified", True) not in (True, "true"):
            raise ClaimError("the token's e-mail address is not verified")
        return Principal(
            tenant=_text(claims, names.tenant) if self.tenant is None else self.tenant,
            subject=_text(claims, names.sub),
            email=email,
            role=self._role(claims),
            groups=_groups(claims, names.groups),
        )

    def _role(self, claims: Mapping[str, Any]) -> str:
        """The role: of several the highest that REGARDS knows; another only if it is alone, or has the prefix."""
        value = claim(claims, self.names.role)
        listed = isinstance(value, list)
        shown: list[Any] = value if isinstance(value, list) else [] if value is None else [value]
        if len(shown) > MOST_GROUPS or not all(_is_text(role) for role in shown):
            raise ClaimError(f"the token's claim {self.names.role!r} is no role and no list of roles")
        prefix = self.role_prefix
        roles = [role.removeprefix(prefix) for role in shown if role.startswith(prefix) and role != prefix]
        if not self.instance_admin:
            roles = [role for role in roles if role != "INSTANCE_ADMIN"]
        known = [role for role in _HIERARCHY if role in roles]
        others = roles if prefix or not listed else []
        chosen = next(iter([*known, *others]), self.default_role)
        if chosen is None:
            raise ClaimError(f"the token's claim {self.names.role!r} is missing or names no role")
        return chosen


REGARDS = ClaimMapping()
"""What REGARDS' own tokens say."""


def check_times(claims: Mapping[str, Any], now: float, leeway: float) -> float:
    """The second in which a token expires, if it is good now (RFC 7519 §4.1.4 to §4.1.6).

    Args:
        claims: of the token.
        now: in seconds since the epoch.
        leeway: seconds that the issuer's clock may differ from ours.

    Raises:
        ClaimError: it is not, or ``exp`` is missing, or a time is no number of seconds.
    """
    times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
    for name, value in times.items():
        if not _is_time(value):
            raise ClaimError(f"the token's claim {name!r} is no time in seconds")
    if "exp" not in times:
        raise ClaimError("the token lacks the claim 'exp'")
    if times["exp"] <= now - leeway:
        raise ClaimError("the token has expired")
    if max(times.get("nbf", 0), times.get("iat", 0)) > now + leeway:
        raise ClaimError("the token is not valid yet")
    return float(times["exp"])


def check_audience(claims: Mapping[str, Any], audience: str | Literal[False]) -> None:
    """See that a token is for ``audience`` (RFC 7519 §4.1.3), or for nobody in particular where that is False.

    Raises:
        ClaimError: it is for somebody else, or for nobody.
    """
    if audience is False and "aud" not in claims:
        return
    if "aud" not in claims:
        raise ClaimError("the token lacks the claim 'aud'")
    shown = claims["aud"]
    listed = shown if isinstance(shown, list) else [shown]
    if audience is False or audience not in listed or not all(isinstance(one, str) for one in listed):
        raise ClaimError("the token was made by or for somebody else")


def claim(claims: Mapping[str, Any], name: str) -> object:
    """The claim of this name, else what its parts between dots lead to; None if there is nothing."""
    if name in claims:
        return claims[name]
    value: object = claims
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claim(claims, name)
    if not isinstance(value, str) or not _is_text(value):
        raise ClaimError(f"the token's claim {name!r} is missing or is no plain text")
    return value


def _groups(claims: Mapping[str, Any], name: str | None) -> tuple[str, ...]:
    if name is None:
        groups = claims.get("groups", claims.get("accessGroups", []))
    elif (groups := claim(claims, name)) is None:
        groups = []
    if not isinstance(groups, list) or len(groups) > MOST_GROUPS or not all(_is_text(group) for group in groups):
        raise ClaimError(f"the token's claim {name or 'groups'!r} is no list of names")
    return tuple(groups)


def _is_time(value: object) -> bool:
    """Whether ``value`` is a NumericDate (RFC 7519 §2)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _LATEST


def _is_text(value: object) -> bool:
    return isinstance(value, str) and is_storable(value) and 0 < len(value.encode()) <= LONGEST_CLAIM

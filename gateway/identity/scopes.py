"""What a credential is good for."""

from __future__ import annotations

from http import HTTPStatus

from gateway.errors import GatewayError
from gateway.identity.principal import Principal, Scope


def require_scope(principal: Principal, scope: Scope | None) -> None:
    """See that the credential of ``principal`` is good for ``scope``; one with scopes is good for nothing else.

    Args:
        principal: the caller.
        scope: what the request does; None for what no scope is for.

    Raises:
        GatewayError: 403 with the challenge of RFC 6750 §3.1.
    """
    if principal.scopes is None or (scope is not None and scope in principal.scopes):
        return
    challenge = 'Bearer realm="downloads", error="insufficient_scope"' + (f', scope="{scope}"' if scope else "")
    detail = f"Your {principal.credential} lacks the scope {scope!r}." if scope else "This needs another credential."
    raise GatewayError(HTTPStatus.FORBIDDEN, detail, "InsufficientScope", {"WWW-Authenticate": challenge})

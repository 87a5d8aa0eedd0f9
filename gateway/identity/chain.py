"""From a request to its caller."""

from __future__ import annotations

from multidict import CIMultiDictProxy, MultiMapping

from gateway.config import Identity, Quotas
from gateway.errors import unauthorized
from gateway.identity.jwt import BearerTokens, load_key
from gateway.identity.networks import Networks
from gateway.identity.principal import Principal, anonymous
from gateway.text import is_storable


class IdentityChain:
    """Each way of being someone in turn; the first that a request shows decides, for good or bad."""

    def __init__(self, settings: Identity, quotas: Quotas) -> None:
        self._tokens = BearerTokens([load_key(key) for key in settings.jwt], settings.leeway)
        self._networks = Networks(quotas.anonymous_ipv4_prefix, quotas.anonymous_ipv6_prefix)

    def identify(self, headers: CIMultiDictProxy[str], query: MultiMapping[str], address: str) -> Principal:
        """The caller: by ``Authorization: Bearer``, else anonymous in the tenant of ``?scope=`` or header ``scope``.

        ``address`` is the client's IP address, empty if there is none: an anonymous caller is known by its network.
        A credential that is shown and does not hold is refused, never taken for anonymous.

        Raises:
            GatewayError: 401 with WWW-Authenticate.
        """
        credentials = headers.getall("Authorization", [])
        if len(credentials) > 1:
            raise unauthorized("more than one Authorization field", error="invalid_request")
        if credentials:
            scheme, _, token = credentials[0].partition(" ")
            if scheme.lower() != "bearer" or not token.strip():
                raise unauthorized("the Authorization field must be 'Bearer <token>'", error="invalid_request")
            return self._tokens.verify(token.strip())
        tenant = query.get("scope") or headers.get("scope")
        if tenant:
            if not is_storable(tenant):
                raise unauthorized("the scope names no tenant")
            return anonymous(tenant, self._networks.of(address))
        raise unauthorized("show a bearer token, or name the tenant with ?scope= for public data")

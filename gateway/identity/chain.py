"""From a request to its caller."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from gateway.errors import GatewayError, unauthorized
from gateway.identity.networks import Networks
from gateway.identity.principal import Principal, anonymous
from gateway.identity.shown import Shown, Way
from gateway.text import is_storable


class IdentityChain:
    """Each way of being someone in turn; the one that a request shows decides, for good or bad."""

    def __init__(self, ways: Sequence[Way], ambient: Sequence[Way], networks: Networks) -> None:
        """Ask ``ways``, of which a request may show one, then ``ambient`` ones (cookies), which come of themselves."""
        self._ways = tuple(ways)
        self._ambient = tuple(ambient)
        self._networks = networks

    async def identify(self, shown: Shown) -> Principal:
        """The caller: by what he shows, else anonymous in the tenant of the path, of ``?scope=`` or header ``scope``.

        An anonymous caller is known by his network. A credential that is shown and does not hold is refused, never
        taken for anonymous.

        Raises:
            GatewayError: 401 with WWW-Authenticate; 404 below the path of a tenant that is not the caller's, as of one
                that does not exist; 503 nobody can tell at the moment.
        """
        found = [(way, credential) for way in self._ways if (credential := way.find(shown)) is not None]
        if len(found) > 1:
            raise unauthorized("more than one credential", error="invalid_request")
        if not found:
            if "Authorization" in shown.headers:
                raise unauthorized(
                    "the Authorization field must be 'Bearer <token>' or hold an API key", error="invalid_request"
                )
            found = [(way, credential) for way in self._ambient if (credential := way.find(shown)) is not None][:1]
        for way, credential in found:
            principal = await way.identify(credential, shown)
            if shown.tenant is not None and shown.tenant != principal.tenant:
                raise no_tenant(shown.tenant)
            return principal
        if shown.tenant is not None:
            if not is_storable(shown.tenant):
                raise no_tenant(shown.tenant)
            return anonymous(shown.tenant, self._networks.of(shown.address))
        tenant = shown.query.get("scope") or shown.headers.get("scope") or shown.otherwise
        if tenant:
            if not is_storable(tenant):
                raise unauthorized("the scope names no tenant")
            return anonymous(tenant, self._networks.of(shown.address))
        raise unauthorized("show a bearer token, or name the tenant with ?scope= for public data")


def no_tenant(name: str) -> GatewayError:
    """404: there is no such tenant, as far as the caller may know."""
    return GatewayError(HTTPStatus.NOT_FOUND, f"There is no tenant {name!r}.")

"""What a request shows of its caller, and the ways to read it."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from multidict import CIMultiDictProxy, MultiMapping

from gateway.catalog.model import Address
from gateway.errors import unauthorized
from gateway.identity.principal import Principal

API_KEY_PREFIX = "gdk_"
"""What every API key begins with; no JWT does."""


@dataclasses.dataclass(frozen=True, slots=True)
class Shown:
    """The parts of a request that may tell who sent it."""

    headers: CIMultiDictProxy[str] = dataclasses.field(repr=False)
    query: MultiMapping[str] = dataclasses.field(repr=False)
    address: str
    """The client's IP address; empty if there is none."""
    method: str = "GET"
    path: str = "/"
    """As it came, percent-encoded, without the query."""
    file: Address | None = None
    """The file that is asked for, where the path is that of a download."""
    tenant: str | None = None
    """The tenant whose paths these are: nobody else is anybody there."""
    otherwise: str | None = None
    """The tenant of an anonymous caller who names none."""

    @property
    def authorization(self) -> tuple[str, str]:
        """The scheme, in lower case, and the credentials of the Authorization field; empty if there is none.

        Raises:
            GatewayError: 401; there is more than one.
        """
        fields = self.headers.getall("Authorization", [])
        if not fields:
            return "", ""
        if len(fields) > 1:
            raise unauthorized("more than one Authorization field", error="invalid_request")
        scheme, _, credentials = fields[0].partition(" ")
        return scheme.lower(), credentials.strip()


class Way(Protocol):
    """One way of being someone."""

    def find(self, shown: Shown) -> str | None:
        """The credential of this kind that is shown, however bad; None if none is.

        Raises:
            GatewayError: 401; what is shown is ambiguous.
        """

    async def identify(self, credential: str, shown: Shown) -> Principal:
        """Who it is.

        Raises:
            GatewayError: 401 the credential does not hold; 503 nobody can tell at the moment.
        """

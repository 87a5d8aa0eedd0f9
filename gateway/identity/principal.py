"""Who calls."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Literal

Scope = Literal["download", "order", "quota", "admin"]
"""What an API key may be good for: to download, to order, to see and set quotas, to administer."""
SCOPES: frozenset[Scope] = frozenset({"download", "order", "quota", "admin"})

ADMIN_ROLES = frozenset({"ADMIN", "PROJECT_ADMIN", "INSTANCE_ADMIN"})
"""REGARDS' roles that see and download everything of their tenant."""

UNKNOWN_NETWORK = "unknown"
"""The network of all anonymous callers whose address nobody knows."""


Credential = Literal["none", "token", "api key", "session", "link", "order token"]
"""How a caller showed who he is: not at all, by a bearer token, an API key, a browser session, a
signed link, the token of an order."""


@dataclasses.dataclass(frozen=True, slots=True)
class Link:
    """The signed link that a caller came by."""

    identifier: str
    downloads: int | None = None
    """How many downloads it is good for; None for any number."""
    octets: int | None = None
    """How many bytes it is good for."""

    @property
    def is_counted(self) -> bool:
        """Whether it ends by use."""
        return self.downloads is not None or self.octets is not None


@dataclasses.dataclass(frozen=True, slots=True)
class Principal:
    """A caller, known or anonymous, within one tenant."""

    tenant: str
    subject: str
    """Login (``sub``), for logs."""
    email: str | None
    """What quotas, licences and memberships are bound to; None for an anonymous caller."""
    role: str
    groups: tuple[str, ...] = ()
    """Names of access groups that the token carries, beside the memberships in the database."""
    network: str | None = None
    """Where an anonymous caller comes from, like ``192.0.2.7/32``: what he is counted by. None for a known caller."""
    credential: Credential = "token"
    scopes: frozenset[Scope] | None = None
    """What the credential is good for; None for all that the caller may."""
    link: Link | None = None
    """The link that he came by, if his credential is one."""
    api_key: str | None = None
    """Id of the API key that he showed, if his credential is one."""
    until: datetime.datetime | None = None
    """When the credential ends, and what is made with it, too; None for one that binds nothing beyond itself."""

    def __hash__(self) -> int:
        """Of what tells most callers apart: it is asked for several times in each request."""
        return hash((self.tenant, self.subject, self.credential))

    @property
    def is_anonymous(self) -> bool:
        """Whether the caller showed no credential."""
        return self.email is None

    @property
    def is_admin(self) -> bool:
        """Whether the role lifts the caller above groups and rights."""
        return self.role in ADMIN_ROLES


def anonymous(tenant: str, network: str = UNKNOWN_NETWORK) -> Principal:
    """The caller without a token in ``tenant``, from ``network``: REGARDS' public user."""
    return Principal(tenant=tenant, subject="public", email=None, role="PUBLIC", network=network, credential="none")

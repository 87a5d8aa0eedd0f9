"""What can be said of one route in the description of the API."""

from __future__ import annotations

import dataclasses
from typing import Literal

from gateway.identity.principal import Scope


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """Words on a method of a path."""

    summary: str
    access: Literal["public", "anyone", "user", "administrator", "instance"] = "anyone"
    """Who may: everybody without a word; whoever shows a credential or names a tenant; the former alone; an
    administrator of the tenant; one of the whole gateway."""
    scope: Scope | None = None
    """What an API key must be good for: ``admin`` where ``access`` needs an administrator; else, for None, no API key
    will do."""
    any_key: bool = False
    """Whether every API key will do, whatever it is good for."""
    in_person: bool = False
    """Whether an administrator's API key will not do either."""
    link: bool = False
    """Whether a signed link will do."""
    query: tuple[str, ...] = ()
    """Names of parameters of the query, and of fields, as the components have them."""
    body: str | None = None
    """Schema of the body of the request."""
    answer: str | None = None
    """Schema of the answer."""
    types: tuple[str, ...] = ()
    """Media types of the answer, where it is not JSON alone."""
    statuses: tuple[int, ...] = (200,)
    """When all is well."""
    refusals: tuple[int, ...] = (503,)
    """Beside 401 and 403, which follow from ``access``, and those that follow from ``body``."""
    text: str = ""
    """More words."""
    tag: str = ""
    """Of the group that it is shown in, if not that of its API family."""
    body_type: str = "application/json"
    """Media type of the body of the request."""
    identifier: str = ""
    """The operationId, where a standard names it."""


FORM = "application/x-www-form-urlencoded"
"""Media type of what HTML forms send."""
UPLOAD = "multipart/form-data"
"""Media type of forms with a file."""
SEEN = (404, 503)
"""Refusals of what is looked up."""
CHANGED = (400, 404, 503)
"""Refusals of what is changed, or looked up by a query."""
NEW = (200, 201)
"""Statuses of what is made, or was there."""
GONE = (204,)
"""Status of what leaves nothing to tell."""

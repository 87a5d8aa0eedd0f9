"""Who may see and download what, as one piece of SQL.

The same text decides single downloads, batches of them and, later, every listing, so that they can never disagree. It
speaks of a row ``asked``, which says who asks: ``tenant``, ``email`` (NULL for anonymous callers), ``groups`` that the
token carries (a ``text[]``, or its text), ``role``, ``is_admin`` (whether the role lifts the caller above rights); and
of a row ``product`` (of ``products``). `caller_columns` gives what ``asked`` is made of.

Denied by default: without a row of ``access_rights`` that says otherwise both answers are false. CUSTOM_ACCESS needs
a policy to choose products, so on its own it grants nothing.
"""

from __future__ import annotations

import functools
import re

from gateway.identity.principal import Principal

_UNSAFE = re.compile(r'["\\]')
_ESCAPED = r"\\\g<0>"

# OFFSET 0 has each array made once, and not anew wherever it is spoken of.
CALLER = """
LATERAL (
    SELECT tenant.tenant_id, asked.email, asked.is_admin, ARRAY(
        SELECT g.group_id FROM groups g
        WHERE g.tenant_id = tenant.tenant_id AND g.name = ANY (asked.groups::text[])
        UNION
        SELECT g.group_id FROM group_members m JOIN groups g USING (group_id)
        WHERE m.email = asked.email AND g.tenant_id = tenant.tenant_id
    ) AS groups, ARRAY(
        SELECT g.group_id FROM groups g WHERE g.tenant_id = tenant.tenant_id AND g.is_public
    ) AS public_groups
    FROM tenants tenant WHERE tenant.name = asked.tenant OFFSET 0
)"""
"""A join item with at most one row: the caller, with the ids of his groups and of the public ones."""

RIGHTS = """
LATERAL (
    SELECT coalesce(bool_or(r.metadata_level = 'FULL_ACCESS' AND r.group_id = ANY (caller.public_groups)), false)
               AS visible_to_all,
           caller.is_admin OR coalesce(bool_or(r.metadata_level = 'FULL_ACCESS'), false) AS visible,
           caller.is_admin OR coalesce(
               bool_or(r.metadata_level = 'FULL_ACCESS' AND r.file_level = 'INHERITED_ACCESS'), false) AS downloadable
    FROM access_rights r
    WHERE r.dataset_id = product.dataset_id AND r.group_id = ANY (caller.groups || caller.public_groups)
)"""
"""A join item with one row: ``visible`` (the product), ``downloadable`` (its private files), ``visible_to_all``."""


def caller_columns(principal: Principal) -> tuple[str, str | None, str, str, bool]:
    """``tenant``, ``email``, ``groups``, ``role`` and ``is_admin`` of ``asked``."""
    return principal.tenant, principal.email, _array(principal.groups), principal.role, principal.is_admin


@functools.lru_cache(maxsize=4096)
def _array(names: tuple[str, ...]) -> str:
    """A ``text[]`` as text: a column of arrays of different lengths can be sent in no other form."""
    return "{" + ",".join(f'"{_UNSAFE.sub(_ESCAPED, name)}"' for name in names) + "}"

"""Who may see and download what, as one piece of SQL.

The same text decides a single download and, later, every listing, so that the two can never disagree. It speaks of a
row ``product`` (of ``products``) and takes the caller as the first four parameters of the statement it stands in:
``$1`` tenant, ``$2`` email (NULL for anonymous callers), ``$3`` groups that the token carries (``text[]``), ``$4``
whether the role lifts the caller above rights.

Denied by default: without a row of ``access_rights`` that says otherwise both answers are false. CUSTOM_ACCESS needs
a policy to choose products, so on its own it grants nothing.
"""

from __future__ import annotations

from gateway.identity.principal import Principal

CALLER = """
caller AS (
    SELECT tenant.tenant_id, $2::text AS email, $4::boolean AS is_admin, ARRAY(
        SELECT g.group_id FROM groups g
        WHERE g.tenant_id = tenant.tenant_id AND g.name = ANY ($3::text[])
        UNION
        SELECT g.group_id FROM group_members m JOIN groups g USING (group_id)
        WHERE m.email = $2 AND g.tenant_id = tenant.tenant_id
    ) AS groups, ARRAY(
        SELECT g.group_id FROM groups g WHERE g.tenant_id = tenant.tenant_id AND g.is_public
    ) AS public_groups
    FROM tenants tenant WHERE tenant.name = $1
)"""
"""A common table expression with at most one row: the caller, with the ids of his groups and of the public ones."""

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


def caller_parameters(principal: Principal) -> tuple[str, str | None, list[str], bool]:
    """``$1`` to ``$4``."""
    return principal.tenant, principal.email, list(principal.groups), principal.is_admin

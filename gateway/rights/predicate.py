"""Who may see and download what, as one piece of SQL.

The same text decides single downloads, batches of them and every listing, so that they can never disagree. It speaks
of a row ``asked``, which says who asks: ``tenant``, ``email`` (NULL for anonymous callers), ``groups`` that the token
carries (a ``text[]``, or its text), ``role``, ``is_admin`` (whether the role lifts the caller above rights);
`caller_columns` gives what it is made of. And it speaks of what is asked for: a row ``product`` (``product_id``,
``dataset_id``, ``quality_score`` and ``quality_level`` of ``products``), or a row ``dataset`` (``dataset_id``).

Denied by default: without a row of ``access_rights`` that says otherwise every answer is false. Where a right is
CUSTOM_ACCESS, a policy has the last word, which SQL leaves open: `gateway.rights.policies` takes it from there. So a
listing takes rows that are ``visible`` or have ``questions``, and leaves out those that are then judged invisible.
"""

from __future__ import annotations

import functools
import re

from gateway.identity.principal import Principal

PRODUCT_COLUMNS = "p.product_id, p.urn, p.dataset_id, p.quality_score, p.quality_level"
"""Of ``products p``: what a row ``product`` needs."""
_UNSAFE = re.compile(r'["\\]')
_ESCAPED = r"\\\g<0>"

# OFFSET 0 has each array made once, and not anew wherever it is spoken of; in FACTS, nothing made that is not wanted.
CALLER = """
LATERAL (
    SELECT tenant.tenant_id, tenant.licence_id, asked.email, asked.is_admin OR EXISTS (
        SELECT FROM roles o WHERE o.tenant_id = tenant.tenant_id AND o.name = asked.role AND o.parent = 'ADMIN'
    ) AS is_admin, ARRAY(
        SELECT g.group_id FROM groups g
        WHERE g.tenant_id = tenant.tenant_id AND g.name = ANY (asked.groups::text[])
        UNION ALL
        SELECT m.group_id FROM group_members m WHERE m.email = asked.email
        UNION ALL
        SELECT g.group_id FROM groups g WHERE g.tenant_id = tenant.tenant_id AND g.is_public
    ) AS groups, ARRAY(
        SELECT g.group_id FROM groups g WHERE g.tenant_id = tenant.tenant_id AND g.is_public
    ) AS public_groups
    FROM tenants tenant WHERE tenant.name = asked.tenant OFFSET 0
)"""
"""A join item with at most one row: the caller, with the ids of his groups, public ones included, whether he is above
rights (as ``is_admin`` or by a role whose parent is ADMIN), and the licence of his tenant.

``groups`` may hold an id twice, and ids of groups that he belongs to in other tenants, which mean nothing here: whoever
looks up what one of them may or is called sees to the tenant. That is cheaper for a few than for all of them.
"""

# ``+ 0`` keeps the rights of a dataset, which lie side by side, from being looked for one by one for each group.
RIGHTS = """
LATERAL (
    SELECT coalesce(bool_or(a.is_full AND a.group_id = ANY (caller.public_groups)), false) AS visible_to_all,
           caller.is_admin OR coalesce(bool_or(a.is_full), false) AS visible,
           caller.is_admin OR coalesce(bool_or(a.is_full AND a.file_level = 'INHERITED_ACCESS'), false) AS downloadable,
           CASE WHEN NOT caller.is_admin THEN
               json_agg(json_build_array(a.policy, a.policy_options, NOT a.is_full, a.file_level))
               FILTER (WHERE a.policy IS NOT NULL AND (NOT a.is_full OR a.file_level = 'CUSTOM_ACCESS'))
           END::text AS questions
    FROM (
        SELECT r.group_id, r.metadata_level = 'FULL_ACCESS' AS is_full, r.file_level, r.policy, r.policy_options
        FROM access_rights r JOIN groups g ON g.group_id = r.group_id AND g.tenant_id = caller.tenant_id
        WHERE r.dataset_id = product.dataset_id AND r.group_id + 0 = ANY (caller.groups)
          AND (r.metadata_level = 'FULL_ACCESS' OR (r.metadata_level = 'CUSTOM_ACCESS' AND r.policy IS NOT NULL))
          AND (r.quality_min IS NULL OR product.quality_score >= r.quality_min)
          AND (r.quality_max IS NULL OR product.quality_score <= r.quality_max)
          AND (r.quality_levels IS NULL OR product.quality_level = ANY (r.quality_levels))
    ) a
)"""
"""A join item with one row: ``visible`` (the product), ``downloadable`` (its private files), ``visible_to_all``.

``questions`` is JSON, NULL where no policy is to be asked: of each right that leaves something to a policy the name of
that, its options, whether it decides on the product itself, and the right's level of files.
"""

FACTS = """
LATERAL (
    SELECT json_build_object(
        'groups', (SELECT json_agg(g.name) FROM groups g
                   WHERE g.group_id = ANY (caller.groups) AND g.tenant_id = caller.tenant_id),
        'urn', p.urn, 'collection', d.collection_id, 'item', p.provider_id, 'properties', p.properties,
        'quality_score', p.quality_score, 'quality_level', p.quality_level
    )::text AS facts
    FROM products p JOIN datasets d ON d.dataset_id = p.dataset_id
    WHERE rights.questions IS NOT NULL AND p.product_id = product.product_id OFFSET 0
)"""
"""A join item, for LEFT JOIN after `RIGHTS`: what policies look at, as JSON, where they are to be asked."""

DATASET_RIGHTS = """
LATERAL (
    SELECT caller.is_admin OR EXISTS (
        SELECT FROM access_rights r JOIN groups g ON g.group_id = r.group_id AND g.tenant_id = caller.tenant_id
        WHERE r.dataset_id = dataset.dataset_id AND r.group_id + 0 = ANY (caller.groups)
          AND r.metadata_level <> 'NO_ACCESS'
    ) AS visible
)"""
"""A join item with one row: ``visible``, whether the caller may see the dataset itself. For that RESTRICTED_ACCESS is
enough."""


def asked(*key: str) -> str:
    """A from item with a row for each question: who asks (`caller_columns`), the ``key``, and a ``number`` from 1 on.

    The parameters are its columns, as arrays.
    """
    columns = "".join(f", ${number}::text[]" for number in range(6, 6 + len(key)))
    names = ", ".join(("tenant", "email", "groups", "role", "is_admin", *key, "number"))
    return f"""
unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[]{columns}) WITH ORDINALITY AS asked({names})"""


def caller_columns(principal: Principal) -> tuple[str, str | None, str, str, bool]:
    """``tenant``, ``email``, ``groups``, ``role`` and ``is_admin`` of ``asked``."""
    return principal.tenant, principal.email, _array(principal.groups), principal.role, principal.is_admin


@functools.lru_cache(maxsize=4096)
def _array(names: tuple[str, ...]) -> str:
    """A ``text[]`` as text: a column of arrays of different lengths can be sent in no other form."""
    return "{" + ",".join(f'"{_UNSAFE.sub(_ESCAPED, name)}"' for name in names) + "}"

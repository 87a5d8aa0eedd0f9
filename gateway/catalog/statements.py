"""The statements of the catalogue's look-ups: each answers a batch of questions in one round trip."""

from __future__ import annotations

from gateway.rights.predicate import CALLER, FACTS, PRODUCT_COLUMNS, RIGHTS, asked

# Two files of a product may hold the same bytes; the metered one is taken, so that no other name is a way round quota.
_FILE_BY_CHECKSUM = "f.product_id = product.product_id AND lower(f.checksum) = lower(asked.checksum)"
_FILE_BY_ASSET = "f.product_id = product.product_id AND f.asset_key = asked.asset"
# OFFSET 0 keeps the order: a question leads to its caller and its product by indexes, whatever the planner thinks.
_BY_URN = f"""
LATERAL (
    SELECT {PRODUCT_COLUMNS}, d.collection_id, d.licence_id
    FROM products p JOIN datasets d USING (dataset_id)
    WHERE p.tenant_id = caller.tenant_id AND p.urn = asked.product OFFSET 0
)"""  # noqa: S608 - made of constants; values are bound
_BY_ITEM = f"""
LATERAL (
    SELECT {PRODUCT_COLUMNS}, d.collection_id, d.licence_id
    FROM products p JOIN datasets d USING (dataset_id)
    WHERE d.tenant_id = caller.tenant_id AND d.collection_id = asked.collection AND p.provider_id = asked.item OFFSET 0
)"""  # noqa: S608 - as above


# The rules of quota_limits that concern a caller. Groups are looked at only where a tenant has rules for some; ORDER BY
# has the index asked for that, where EXISTS might read the table.
_CONCERNED = """
SELECT unnest(ARRAY['tenant', 'role', CASE WHEN caller.email IS NULL THEN 'anonymous' ELSE 'user' END]) AS subject,
       unnest(ARRAY['', asked.role, coalesce(caller.email, '')]) AS name
UNION ALL
SELECT 'group', of_caller.name
FROM (
    SELECT unnest(asked.groups::text[]) AS name
    UNION
    SELECT g.name FROM groups g WHERE g.group_id = ANY (caller.groups) AND g.tenant_id = caller.tenant_id
) of_caller
WHERE (
    SELECT q.name FROM quota_limits q WHERE q.tenant_id = caller.tenant_id AND q.subject = 'group'
    ORDER BY q.name LIMIT 1
) IS NOT NULL"""


# That a copy can be read for a while is decided by PostgreSQL's clock, which all gateways and workers share.
COPIES = """
json_agg(json_build_array(c.copy_id, c.storage, c.location, c.state, c.size, c.modified, c.version,
                          c.verified_version, c.broken_version,
                          CASE WHEN c.restored_until > now() THEN c.restored_until END, c.entry_id)
         ORDER BY c.copy_id)::text"""
"""All copies of a file, from ``copies c``, as `gateway.catalog.locate.read_copies` reads them."""


def _rules_where(condition: str) -> str:
    """A join item with one row: the rules that concern the caller, as JSON, if ``condition`` holds."""
    return f"""
LATERAL (
    SELECT json_agg(json_build_array(q.subject, q.name, q.shared, q.metric, q.period, q.value, q.burst, q.slow_rate,
                                     q.fail) ORDER BY q.subject, q.name, q.shared, q.metric, q.period)::text AS rules
    FROM ({_CONCERNED}) concerned
    JOIN quota_limits q ON q.tenant_id = caller.tenant_id AND q.subject = concerned.subject AND q.name = concerned.name
    WHERE {condition}
)"""  # noqa: S608 - as above


def _locate(questions: str, product: str, file: str, *, metered: str) -> str:
    """A row for each question that leads to a product; the data types that count are the parameter ``metered``.

    Who asks several things at once is looked up once: his groups may be hundreds.
    """
    return f"""
WITH question AS MATERIALIZED (SELECT asked.* FROM {questions}), who AS MATERIALIZED (
    SELECT asked.tenant, asked.groups AS named, asked.role, asked.is_admin AS lifted, caller.*
    FROM (SELECT DISTINCT tenant, email, groups, role, is_admin FROM question) asked CROSS JOIN {CALLER} caller
)
SELECT asked.number, product.urn, product.collection_id,
       rights.visible, rights.downloadable, rights.visible_to_all, rights.questions, facts.facts,
       licence.licence_id, licence.url AS licence_url, licence.version AS licence_version,
       licence.accepted AS licence_accepted,
       file.*, copies.copies, quota.rules
FROM question asked
JOIN who caller ON caller.tenant = asked.tenant AND coalesce(caller.email, '') = coalesce(asked.email, '')
    AND (caller.email IS NULL) = (asked.email IS NULL) AND caller.named = asked.groups AND caller.role = asked.role
    AND caller.lifted = asked.is_admin
CROSS JOIN {product} product
CROSS JOIN {RIGHTS} rights
LEFT JOIN {FACTS} facts ON true
LEFT JOIN LATERAL (
    SELECT l.licence_id, l.url, l.version, l.is_public OR EXISTS (
        SELECT FROM licence_acceptances a
        WHERE a.licence_id = l.licence_id AND a.version = l.version AND a.email = caller.email
    ) AS accepted
    FROM licences l WHERE l.licence_id = coalesce(product.licence_id, caller.licence_id)
) licence ON true
LEFT JOIN LATERAL (
    SELECT f.file_id, f.data_type, f.file_name, f.mime_type, f.size, f.checksum, f.checksum_algorithm, f.reference,
           f.data_type = ANY ({metered}) AS is_metered
    FROM files f WHERE {file}
    ORDER BY is_metered DESC, f.file_id LIMIT 1
) file ON true
LEFT JOIN LATERAL (
    SELECT {COPIES} AS copies
    FROM copies c WHERE c.file_id = file.file_id
) copies ON true
LEFT JOIN {_rules_where("file.is_metered")} quota ON true"""  # noqa: S608 - as above


LOCATE_BY_CHECKSUM = _locate(asked("product", "checksum"), _BY_URN, _FILE_BY_CHECKSUM, metered="$8::text[]")
LOCATE_BY_ASSET = _locate(asked("collection", "item", "asset"), _BY_ITEM, _FILE_BY_ASSET, metered="$9::text[]")
RULES = f"SELECT quota.rules FROM {asked()} CROSS JOIN {CALLER} caller CROSS JOIN {_rules_where('true')} quota"  # noqa: S608

WARM_UP: tuple[tuple[str, tuple[object, ...]], ...] = (
    (LOCATE_BY_CHECKSUM, ([],) * 8),
    (LOCATE_BY_ASSET, ([],) * 9),
)
"""What to run on a new connection so that the first look-up finds its statement prepared: one round trip, not two."""

"""What a caller may do with products and datasets that he names, all in one round trip."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.db import Database
from gateway.identity.principal import Principal
from gateway.rights.policies import Policies, Verdict
from gateway.rights.predicate import CALLER, DATASET_RIGHTS, FACTS, PRODUCT_COLUMNS, RIGHTS, asked, caller_columns
from gateway.text import is_storable

_ACCESS = f"""
WITH caller AS MATERIALIZED (SELECT caller.* FROM {asked()} CROSS JOIN {CALLER} caller)
SELECT product.urn, rights.visible, rights.downloadable, rights.questions, facts.facts
FROM caller CROSS JOIN unnest($6::text[]) AS wanted(urn)
CROSS JOIN LATERAL (
    SELECT {PRODUCT_COLUMNS} FROM products p WHERE p.tenant_id = caller.tenant_id AND p.urn = wanted.urn OFFSET 0
) product
CROSS JOIN {RIGHTS} rights
LEFT JOIN {FACTS} facts ON true
UNION ALL
SELECT dataset.urn, rights.visible, rights.visible, NULL, NULL
FROM caller CROSS JOIN unnest($6::text[]) AS wanted(urn)
JOIN datasets dataset ON dataset.tenant_id = caller.tenant_id AND dataset.urn = wanted.urn
CROSS JOIN {DATASET_RIGHTS} rights"""  # noqa: S608 - made of constants; values are bound


async def access(
    database: Database, policies: Policies, principal: Principal, urns: Sequence[str]
) -> dict[str, Verdict]:
    """What ``principal`` may with products and datasets, by URN; those of others and unknown ones are left out.

    A dataset that is visible counts as downloadable. Licences and quotas are not looked at.

    Raises:
        GatewayError: 503 PostgreSQL does not answer.
    """
    wanted = list({urn for urn in urns if is_storable(urn)})
    rows = await database.fetch(_ACCESS, *([value] for value in caller_columns(principal)), wanted)
    verdicts = await policies.judge(principal, rows)
    return {row["urn"]: verdict for row, verdict in zip(rows, verdicts, strict=True)}

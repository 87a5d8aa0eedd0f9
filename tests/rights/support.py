"""Rights with all their columns."""

from __future__ import annotations

import json
from typing import Any

from tests.harness import Catalogue, Entry


async def grant(
    made: Catalogue,
    collection: str,
    group: int,
    metadata: str = "FULL_ACCESS",
    files: str = "INHERITED_ACCESS",
    *,
    policy: str | None = None,
    options: dict[str, Any] | None = None,
    quality: tuple[float | None, float | None, list[str] | None] = (None, None, None),
) -> None:
    """As `Catalogue.grant`, with a policy and its options, and least score, most score and levels of ``quality``."""
    await made.grant(collection, group, metadata, files)
    await made.connection.execute(
        "UPDATE access_rights SET policy = $3, policy_options = $4::jsonb, quality_min = $5, quality_max = $6, "
        "quality_levels = $7 WHERE dataset_id = $1 AND group_id = $2",
        await made.dataset(collection),
        group,
        policy,
        None if options is None else json.dumps(options),
        *quality,
    )


async def rate(made: Catalogue, entry: Entry, score: float | None, level: str | None = None) -> None:
    """Say how good the product of ``entry`` is."""
    await made.connection.execute(
        "UPDATE products SET quality_score = $2, quality_level = $3 WHERE urn = $1", entry.product, score, level
    )


async def describe(made: Catalogue, entry: Entry, **properties: Any) -> None:
    """Give the product of ``entry`` its properties."""
    await made.connection.execute(
        "UPDATE products SET properties = $2::jsonb WHERE urn = $1", entry.product, json.dumps(properties)
    )

"""What PostgreSQL does for a statement."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import asyncpg

from gateway.catalog.locate import Question


async def plan(
    connection: asyncpg.Connection[Any], statement: str, questions: Sequence[Question], metered: str = "RAWDATA"
) -> dict[str, Any]:
    """What a prepared ``statement`` does for ``questions``: parameters of EXPLAIN itself would make another plan."""
    columns = [*zip(*questions, strict=True), (metered,)]
    kinds = ("text", "text", "text", "text", "boolean", *("text" for _ in columns[5:]))
    literals = [
        await connection.fetchval(f"SELECT quote_literal($1::{kind}[]::text)", column)
        for kind, column in zip(kinds, columns, strict=True)
    ]
    await connection.execute(f"PREPARE look_up AS {statement}")
    text = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE look_up({', '.join(literals)})")
    await connection.execute("DEALLOCATE look_up")
    explained: dict[str, Any] = json.loads(text)[0]
    return explained


def scans(node: dict[str, Any]) -> list[tuple[str, str, float]]:
    """How tables are read: the way, the table, and the rows that were read in all."""
    rows = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    found = [(node["Node Type"], node["Relation Name"], rows)] if "Relation Name" in node else []
    return found + [scan for part in node.get("Plans", []) for scan in scans(part)]


def loops(node: dict[str, Any], table: str) -> int:
    """How often ``table`` is turned to."""
    own = node["Actual Loops"] if node.get("Relation Name") == table else 0
    return int(own) + sum(loops(part, table) for part in node.get("Plans", []))


def searches(node: dict[str, Any], table: str) -> int:
    """How often an index of ``table`` is descended; PostgreSQL tells it from version 18 on."""
    own = node.get("Index Searches", 0) if node.get("Relation Name") == table else 0
    return int(own) + sum(searches(part, table) for part in node.get("Plans", []))

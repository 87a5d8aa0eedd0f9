"""How good a product is, as its properties say it: what quality filters of access rights look at."""

from __future__ import annotations

import dataclasses

from gateway.catalog.ingest.assets import Context
from gateway.catalog.ingest.extent import is_number, short
from gateway.catalog.ingest.model import JsonObject, Quality

LEVELS = ("ACCEPTED", "ACCEPTED_WITH_WARNINGS", "REJECTED")
"""REGARDS' levels."""


def quality(properties: JsonObject, context: Context) -> Quality:
    """``quality_score`` and ``quality_level`` of the properties; None with a remark for what is none."""
    score, level = properties.get("quality_score"), properties.get("quality_level")
    found = Quality()
    if is_number(score):
        found = dataclasses.replace(found, score=float(score))
    elif score is not None:
        context.remark(f"properties.quality_score is {short(score)}, no number: not rated")
    if isinstance(level, str) and level in LEVELS:
        return dataclasses.replace(found, level=level)
    if level is not None:
        context.remark(f"properties.quality_level is {short(level)}, none of {', '.join(LEVELS)}: not rated")
    return found

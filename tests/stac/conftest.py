"""Gateways for the tests of the STAC API."""

from __future__ import annotations

from tests.api.conftest import doors, every_way

__all__ = ["doors", "every_way"]

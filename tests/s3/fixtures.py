"""S3 servers as fixtures for every test."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.s3.swift import Swift, run_swift


@pytest.fixture(scope="session")
def swift() -> Iterator[Swift]:
    """A real Swift, started when the first test of this process asks for it."""
    if sys.platform != "linux":
        pytest.skip("Swift runs on Linux only")
    with run_swift() as running:
        yield running


@pytest.fixture
async def bucket(swift: Swift) -> str:
    """A new bucket of Swift."""
    return await swift.make_bucket()

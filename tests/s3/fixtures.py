"""S3 servers as fixtures for every test."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # Tests that ask for no S3 server do not wait for botocore.
    from tests.s3.strict import StrictS3
    from tests.s3.swift import Swift


@pytest.fixture(scope="session")
def swift() -> Iterator[Swift]:
    """A real Swift, started when the first test of this process asks for it."""
    if sys.platform != "linux":
        pytest.skip("Swift runs on Linux only")
    from tests.s3.swift import run_swift

    with run_swift() as running:
        yield running


@pytest.fixture
async def bucket(swift: Swift) -> str:
    """A new bucket of Swift."""
    return await swift.make_bucket()


@pytest.fixture
async def strict() -> AsyncIterator[StrictS3]:
    """A strict server, empty, for one test; `strict_s3` makes others, with a clock or TLS."""
    from tests.s3.strict import strict_s3

    async with strict_s3() as running:
        yield running

"""CRC-32 as ZIP has it, by the fastest code at hand."""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32 as of_zlib

try:
    # Of the optional package isal: ten times as fast, which is felt where bytes pass through Python.
    from isal.isal_zlib import crc32 as fastest
except ImportError:
    fastest = of_zlib

crc32: Callable[[bytes | memoryview, int], int] = fastest
"""The CRC-32 of ``data`` behind bytes that have the CRC-32 ``value``; it lets other threads run meanwhile."""

"""What is read of rows of orders everywhere."""

from __future__ import annotations

import asyncpg

from gateway.orders.lifecycle import Counts

COUNTS = "files_count, files_pending, files_available, files_downloaded, files_download_error, files_error"
"""Columns of ``orders`` that `counts_of` reads."""


def counts_of(row: asyncpg.Record) -> Counts:
    """The files of an order."""
    return Counts(
        row["files_count"],
        row["files_pending"],
        row["files_available"],
        row["files_downloaded"],
        row["files_download_error"],
        row["files_error"],
    )

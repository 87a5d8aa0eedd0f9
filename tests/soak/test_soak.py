"""The soak itself, small; and that it finds what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.soak.judge import most_at_once, most_within
from tests.soak.supervisor import Options, soak


@pytest.mark.timeout(120)
async def test_raced_reservations_are_counted_once_while_processes_replies_and_redis_are_lost(
    database: str, tmp_path: Path
) -> None:
    options = Options(10_000, processes=4, tasks=32, kills=2, restarts=1, most_seconds=100)
    report = await soak(options, database, tmp_path)
    assert report.violations == [], report.show()
    assert report.counts["granted"] > 5000
    assert report.counts["refused"] > 500
    assert (report.kills, sum(report.restarts.values())) == (2, 1)
    assert report.verdict.accounts > 20
    assert report.at_limit > 0


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 3)), max_size=30))
def test_most_downloads_in_a_window_are_those_of_its_fullest_place(downloads: list[tuple[float, int]]) -> None:
    downloads.sort()
    slow = [sum(count for at, count in downloads if end - 2 < at <= end) for end, _ in downloads]
    assert most_within(downloads, 2) == max(slow, default=0)


def test_a_burst_is_what_comes_beyond_the_rate() -> None:
    assert most_at_once([0.0, 0.0, 0.0], 10) == 3
    assert most_at_once([0.0, 0.1, 0.2, 0.3], 10) == 1
    assert most_at_once([0.0, 0.05, 0.1, 0.15], 10) == 3

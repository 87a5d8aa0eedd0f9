"""How slow a client may be."""

from __future__ import annotations

import pytest

from gateway.delivery.pace import Pace

PACE = Pace(send_timeout=60, min_rate=1000, grace=30)


@pytest.mark.parametrize(
    ("elapsed", "sent", "patience"),
    [
        (0, 0, 30),
        (29, 0, 1),
        (30, 0, 0),
        (31, 0, -1),
        (31, 1000, 0),
        (31, 2000, 1),
        (31, 10_000_000, 60),
        (100, 100_000, 30),
    ],
)
def test_patience_ends_with_the_average_or_the_silence(elapsed: float, sent: int, patience: float) -> None:
    assert PACE.patience(elapsed, sent) == pytest.approx(patience)


def test_without_a_rate_only_silence_counts() -> None:
    pace = Pace(send_timeout=5, min_rate=0, grace=0)
    assert pace.patience(1e9, 0) == 5

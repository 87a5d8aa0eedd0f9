"""When a restore is looked at again, as pure rules. All times are in seconds."""

from __future__ import annotations

import random

_MOST_POLLS = 10
"""A poll comes at most after so many times the setting."""
_POLLS_TO_GROW = 6
"""An interval grows by one setting in so many of them."""
LONGEST_PAUSE = 3600.0
"""After a failure."""
_SPREAD = 0.2
"""Of a pause: what failed together shall not come again together."""


def next_poll(poll: float, age: float, ready_in: float | None = None) -> float:
    """Seconds until a storage is asked again.

    Args:
        poll: the setting.
        age: since it was first asked.
        ready_in: when it says that the copy will be ready, if it does.
    """
    grown = poll * min(_MOST_POLLS, 1 + max(0.0, age) / (_POLLS_TO_GROW * poll))
    if ready_in is None:
        return grown
    # Right after it, but a storage that is late is not asked all the time.
    return min(grown, max(ready_in, poll / 2))


def pause_after(tries: int, retry: float) -> float:
    """Seconds until it is tried again after so many failures in a row, at least one."""
    pause = min(LONGEST_PAUSE, retry * 2.0 ** min(tries - 1, 30))
    return pause * (1 + _SPREAD * (2 * random.random() - 1))  # noqa: S311 - no secret


def fetch_deadline(size: int | None, fetch_timeout: float) -> float:
    """Seconds that the bytes of a copy may take to come: a drive has to be had first, then a megabyte a second."""
    return fetch_timeout + (size or 0) / 1e6

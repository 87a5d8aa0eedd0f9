"""Soft limits: downloads of a caller who is over one are slowed down, all of them together to one rate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from gateway.delivery.allowance import Allowance
from gateway.delivery.throttle import Throttled, Throttles
from gateway.quotas.leases import Lease
from gateway.quotas.standing import slowest


class Slowing:
    """Slows down the downloads of this process. The rate is shared with other processes by how many each runs."""

    def __init__(self) -> None:
        self._throttles = Throttles()

    @contextlib.contextmanager
    def pacing(self, lease: Lease) -> Iterator[Allowance]:
        """What the download of ``lease`` may send while the block runs."""
        slow = slowest(lease.standings)
        if slow is None:
            yield lease
            return
        account, rate = slow
        bucket = f"{lease.reservation.tenant}:{account}"
        with self._throttles.throttle(bucket, rate, most=lease.reservation.promised) as share:

            def heard(running: tuple[int, ...]) -> None:
                throttle = self._throttles.running[bucket]
                everywhere = max(running[lease.reservation.accounts.index(account)], throttle.downloads)
                throttle.rate = max(rate * throttle.downloads // everywhere, 1)

            lease.heard = heard
            try:
                yield Throttled(lease, share)
            finally:
                lease.heard = None

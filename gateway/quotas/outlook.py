"""Whether what is left of limits is enough for many downloads: pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from gateway.quotas.limits import Metric
from gateway.quotas.standing import Standing


@dataclasses.dataclass(frozen=True, slots=True)
class Outlook:
    """What a caller may still download now."""

    downloads: int | None
    """None: as many as he likes."""
    octets: int | None
    standings: tuple[Standing, ...]
    """Limits of downloads and bytes, soft ones included, which refuse nothing."""

    def suffices(self, downloads: int, octets: int) -> bool:
        """Whether that many metered files, of so many bytes together, are within it."""
        within_downloads = self.downloads is None or downloads <= self.downloads
        return within_downloads and (self.octets is None or octets <= self.octets)


def outlook(standings: Sequence[Standing]) -> Outlook:
    """What ``standings`` leave."""
    counted = tuple(standing for standing in standings if standing.limit.metric in ("downloads", "bytes"))
    return Outlook(_least(counted, "downloads"), _least(counted, "bytes"), counted)


def _least(standings: Sequence[Standing], metric: Metric) -> int | None:
    hard = [one.remaining for one in standings if one.limit.metric == metric and one.limit.slow_rate is None]
    return min(hard, default=None)

"""How far the clocks of others are from ours."""

from __future__ import annotations

import dataclasses

from gateway.doctor.findings import Finding, ok, warning

MOST_SECONDS = 5.0
"""By which clocks may differ without a warning."""

REMEDY = "keep the clocks of both machines right by NTP (chrony, systemd-timesyncd)"


@dataclasses.dataclass(frozen=True, slots=True)
class Skew:
    """What is known of another clock."""

    ahead: float
    """Seconds by which it is ahead of ours; negative if it is behind."""
    uncertainty: float
    """Seconds by which that may be wrong."""

    @property
    def certain(self) -> float:
        """Seconds by which the clocks differ at least."""
        return max(0.0, abs(self.ahead) - self.uncertainty)

    def __str__(self) -> str:
        return f"{abs(self.ahead):.0f} s {'ahead of' if self.ahead > 0 else 'behind'} ours"


def skew(theirs: float, before: float, after: float, *, resolution: float = 0) -> Skew:
    """Compare clocks; all arguments are seconds, the first three since the epoch.

    Args:
        theirs: what the other clock said, cut down to ``resolution``.
        before: our time when it was asked.
        after: our time when the answer was here.
        resolution: of ``theirs``.
    """
    uncertainty = (after - before + resolution) / 2
    return Skew(theirs + resolution / 2 - (before + after) / 2, uncertainty)


def clock_finding(found: Skew) -> Finding:
    """What to say of the clock of a neighbour."""
    if found.certain > MOST_SECONDS:
        return warning(f"its clock is {found}", REMEDY)
    return ok("its clock agrees with ours")

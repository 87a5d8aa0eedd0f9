"""Who is bound by which limits: from the rules that an administrator wrote to the limits of one caller."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from gateway.identity.principal import Link, Principal
from gateway.text import is_storable

Metric = Literal["downloads", "bytes", "concurrent", "rate"]
Subject = Literal["tenant", "group", "role", "user", "anonymous"]
Fail = Literal["closed", "capped"]
RuleKey = tuple[str, str, bool, str, str]
"""Subject, name, shared, metric and period: what a tenant has one rule of."""

MOST = 2**53
"""Greatest value of a limit: Redis' Lua counts in doubles, which are exact up to here."""
MOST_BURST = 2**31 - 1
MOST_NAME = 1024
"""Bytes of the name of a rule: what an index of PostgreSQL takes."""
UNLIMITED = -1

ANONYMOUS = "anonymous"
"""The account of all anonymous callers together."""
TENANT = "tenant"
"""The account of everyone in the tenant, anonymous callers included."""

_NAMELESS = ("tenant", "anonymous")
_CALENDAR = ("total", "day", "month")
_ROLLING = re.compile(r"([1-9][0-9]{0,7})s", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True)
class Limit:
    """A bound on one metric of one account. Unlimited is no Limit at all."""

    account: str
    """Whose counter it bounds, within a tenant: ``user:<email>``, ``network:<prefix>``, ``group:<name>``,
    ``role:<NAME>``, ``tenant``, ``anonymous`` or ``link:<id>``."""
    metric: Metric
    period: str
    """downloads, bytes: ``total`` (a lifetime), ``day``, ``month`` (of the calendar, UTC), or rolling seconds like
    ``3600s``; rate: rolling seconds; concurrent: ``now``."""
    value: int
    """Downloads, bytes, connections, or starts per period; 0 forbids."""
    burst: int = 1
    """Starts that may come at once (rate only)."""
    slow_rate: int | None = None
    """Bytes per second to which a download beyond the limit is slowed instead of being refused: a soft limit
    (downloads and bytes only)."""
    capped: bool = False
    """What happens while Redis is out of reach: False refuses, True admits a few per process (concurrent and rate
    only)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """A row of the table ``quota_limits``."""

    subject: Subject
    name: str
    """Of the group, role or user (email); empty for tenant and anonymous."""
    shared: bool
    """One counter for all whom the rule concerns, else one for each of them."""
    metric: Metric
    period: str
    value: int
    """As in `Limit`; -1 is unlimited."""
    burst: int = 1
    slow_rate: int | None = None
    fail: Fail = "closed"

    @property
    def key(self) -> RuleKey:
        """What a tenant has one rule of."""
        return self.subject, self.name, self.shared, self.metric, self.period

    @property
    def account(self) -> str:
        """The account of a shared rule."""
        return f"{self.subject}:{self.name}" if self.name else self.subject


def period_seconds(period: str) -> int | None:
    """The length of a rolling period; None for one that is not rolling."""
    match = _ROLLING.fullmatch(period)
    return None if match is None else int(match[1])


def complaint(rule: Rule) -> str | None:
    """What is wrong with ``rule``, in words; None if the table takes it."""
    checks = (_subject_complaint, _period_complaint, _number_complaint, _option_complaint)
    return next((text for check in checks if (text := check(rule)) is not None), None)


def limits_of(rules: Iterable[Rule], principal: Principal) -> tuple[Limit, ...]:
    """The limits of ``principal``, in a fixed order: his own, then those of `accounts_of` that he shares.

    Args:
        rules: those that concern him: of the tenant, of groups that he is in, of his role, and of himself (of
            anonymous callers if he is one). Their order does not matter.
        principal: the caller.

    Of the rules that count each caller by himself one applies for each metric and period: his own, else the tightest
    of his groups and role, else the tenant's (which is the default of users: anonymous callers have none). Anonymous
    callers whom no rule speaks of are refused, as in REGARDS. A signed link brings limits of its own along.
    """
    given = tuple(rules)
    own: defaultdict[tuple[Metric, str], list[Rule]] = defaultdict(list)
    shared = []
    for rule in given:
        if rule.shared:
            shared.append(_limit(rule, rule.account))
        elif not (principal.is_anonymous and rule.subject == "tenant"):
            own[rule.metric, rule.period].append(rule)
    if principal.is_anonymous and all(rule.subject != "anonymous" for rule in given):
        shared.append(Limit(ANONYMOUS, "downloads", "total", 0))
    account = own_account(principal)
    mine = [_limit(min(of_one, key=_precedence), account) for of_one in own.values()]
    return (*_in_order(mine), *_in_order([*shared, *_of_link(principal.link)]))


def accounts_of(principal: Principal, limits: Sequence[Limit]) -> tuple[str, ...]:
    """The accounts that a download of ``principal`` is charged to, in a fixed order and each once.

    His own, that of all anonymous callers if he is one, and the tenant's are charged whether a limit bounds them or
    not, so that their usage can be told; those of groups and of the role only where ``limits`` bound them.
    """
    always = (own_account(principal), *((ANONYMOUS,) if principal.is_anonymous else ()), TENANT)
    return tuple(dict.fromkeys((*always, *sorted(limit.account for limit in limits))))


def own_account(principal: Principal) -> str:
    """The account of ``principal`` alone; of his network if he is anonymous."""
    return f"network:{principal.network}" if principal.email is None else f"user:{principal.email}"


def _of_link(link: Link | None) -> list[Limit]:
    metrics: dict[Metric, int | None] = {} if link is None else {"downloads": link.downloads, "bytes": link.octets}
    return [
        Limit(f"link:{link.identifier}", metric, "total", value)
        for metric, value in metrics.items()
        if link is not None and value is not None
    ]


def _precedence(rule: Rule) -> tuple[object, ...]:
    """The least of these applies: by who it is for, then the tightest. What refuses is tighter than what slows."""
    rank = {"user": 0, "anonymous": 0, "tenant": 2}.get(rule.subject, 1)
    return (
        rank,
        rule.value == UNLIMITED,
        rule.slow_rate is not None,
        rule.value,
        rule.burst,
        rule.slow_rate or 0,
        rule.fail == "capped",
    )


def _limit(rule: Rule, account: str) -> Limit | None:
    if rule.value == UNLIMITED:
        return None
    return Limit(
        account, rule.metric, rule.period, rule.value, rule.burst, rule.slow_rate, capped=rule.fail == "capped"
    )


def _in_order(limits: Iterable[Limit | None]) -> list[Limit]:
    present = [limit for limit in limits if limit is not None]
    return sorted(present, key=lambda limit: (limit.account, limit.metric, limit.period))


def _subject_complaint(rule: Rule) -> str | None:
    if rule.subject not in ("tenant", "group", "role", "user", "anonymous"):
        return f"subject is {rule.subject!r}; it must be tenant, group, role, user or anonymous"
    if (rule.subject in _NAMELESS) != (rule.name == ""):
        return f"a rule of subject {rule.subject} has {'no' if rule.subject in _NAMELESS else 'a'} name"
    if not is_storable(rule.name):
        return "name has characters that no name can have"
    if len(rule.name.encode()) > MOST_NAME:
        return f"name is longer than {MOST_NAME} bytes"
    if rule.shared and rule.subject == "user":
        return "a rule of subject user cannot be shared: he is alone"
    return None


def _period_complaint(rule: Rule) -> str | None:
    rolling = period_seconds(rule.period) is not None
    counted = rolling or rule.period in _CALENDAR, "total, day, month, or seconds like 3600s"
    fits = {
        "downloads": counted,
        "bytes": counted,
        "concurrent": (rule.period == "now", "now"),
        "rate": (rolling, "seconds like 1s"),
    }
    if rule.metric not in fits:
        return f"metric is {rule.metric!r}; it must be downloads, bytes, concurrent or rate"
    fit, right = fits[rule.metric]
    return None if fit else f"period is {rule.period!r}; of {rule.metric} it must be {right}"


def _number_complaint(rule: Rule) -> str | None:
    if not UNLIMITED <= rule.value <= MOST:
        return f"value is {rule.value}; it must be -1 (unlimited), 0 (forbidden) or a number up to {MOST}"
    if not 1 <= rule.burst <= MOST_BURST:
        return f"burst is {rule.burst}; it must be from 1 to {MOST_BURST}"
    if rule.slow_rate is not None and not 1 <= rule.slow_rate <= MOST:
        return f"slow_rate is {rule.slow_rate}; it must be from 1 to {MOST} bytes per second, or absent"
    return None


def _option_complaint(rule: Rule) -> str | None:
    counts_up = rule.metric in ("downloads", "bytes")
    if rule.burst != 1 and rule.metric != "rate":
        return "burst is of the metric rate alone"
    if rule.slow_rate is not None and not counts_up:
        return "slow_rate is of the metrics downloads and bytes alone"
    if rule.fail not in ("closed", "capped"):
        return f"fail is {rule.fail!r}; it must be closed or capped"
    if rule.fail == "capped" and counts_up:
        return "fail capped is of the metrics concurrent and rate alone"
    return None

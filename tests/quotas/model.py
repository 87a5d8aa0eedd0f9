"""What the scripts of quotas should do, over plain lists and dictionaries: the sums are summed anew each time.

Nothing here is taken from the code under test but how calls and answers are laid out.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Iterator, Sequence
from typing import Any

SECOND = 1_000_000
DAY = 86_400 * SECOND
NEVER = -1


@dataclasses.dataclass(eq=False)
class Event:
    """One change of what accounts have used."""

    reservation: str
    kind: str
    accounts: tuple[str, ...]
    windows: tuple[int, ...]
    content: str
    downloads: int
    octets: int
    at: int
    known_by: set[object] = dataclasses.field(default_factory=set)
    """The processes that heard of it."""
    in_stream: bool = True
    """It waits for the ledger in Redis."""
    recorded: int | None = None
    """When the ledger got it."""

    @property
    def name(self) -> tuple[str, str]:
        return self.reservation, self.kind


@dataclasses.dataclass
class Running:
    """A lease."""

    accounts: tuple[str, ...]
    windows: tuple[int, ...]
    content: str
    promised: int
    mark: int
    charged: int
    downloads: int
    at: int
    runs_out: int
    opener: str
    whole: bool = False
    has_slot: bool = True
    grant: Event | None = None


@dataclasses.dataclass
class Content:
    """A caller's downloads of one content that count as one."""

    opened: str
    at: int
    leases: int
    delivered: int
    octets: int
    until: int
    whole: int = 0
    free: int = 0
    """How often it was handed over whole for nothing, since that was charged."""
    grant: Event | None = None
    """What was charged as the download, if that is known."""


@dataclasses.dataclass
class Epoch:
    """What an epoch forgets when it ends."""

    usable: bool = False
    was_open: bool = False
    leases: dict[str, Running] = dataclasses.field(default_factory=dict)
    ended: set[str] = dataclasses.field(default_factory=set)
    contents: dict[str, Content] = dataclasses.field(default_factory=dict)
    tats: dict[tuple[str, str], int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Bound:
    """A limit, as it reaches the script."""

    account: str
    metric: str
    period: str
    value: int
    burst: int
    soft: bool


@dataclasses.dataclass(frozen=True)
class Asked:
    """The arguments of a reservation."""

    identifier: str
    promised: int
    mark: int
    size: int
    window: int
    ttl: int
    about: dict[str, Any]
    windows: tuple[int, ...]
    way: str
    accounts: tuple[str, ...]
    content_key: str
    bounds: tuple[Bound, ...]

    @staticmethod
    def of(keys: Sequence[str], arguments: Sequence[Any]) -> Asked:
        about = json.loads(f"{{{arguments[7]}}}")
        accounts = tuple(about["u"])
        bounds = tuple(
            Bound(accounts[int(number) - 1], str(metric), str(period), int(value), int(burst), bool(int(soft)))
            for number, metric, period, value, burst, soft in _sixes(arguments[10:])
        )
        windows = tuple(int(window) for window in str(arguments[8]).split())
        promised, mark, size, window, ttl = (int(value) for value in arguments[1:6])
        return Asked(
            str(arguments[0]),
            promised,
            mark,
            size,
            window,
            ttl,
            about,
            windows,
            str(arguments[9]),
            accounts,
            keys[3],
            bounds,
        )


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a reservation would be charged."""

    downloads: int
    octets: int
    merged: bool


@dataclasses.dataclass(frozen=True)
class Stand:
    """A limit: 0 within, 1 refused, 2 slow down; what is used; microseconds until it changes."""

    state: int
    used: int
    reset: int


class Model:
    """One tenant."""

    def __init__(self, clock: int) -> None:
        self.clock = clock
        """Microseconds since 1970."""
        self.events: list[Event] = []
        self.epochs: dict[int, Epoch] = {}

    def epoch(self, number: int) -> Epoch:
        return self.epochs.setdefault(number, Epoch())

    # What is used.

    def of(self, account: str) -> list[Event]:
        """The events that count: those that the ledger has, and those that wait for it."""
        known = (event for event in self.events if event.in_stream or event.recorded is not None)
        return [event for event in known if account in event.accounts]

    def used(self, account: str, metric: str, period: str, at: int | None = None) -> int:
        now = self.clock if at is None else at
        amounts = ((event.downloads, event.octets) for event in self.of(account) if _counts(event, period, now))
        return sum(octets if metric == "bytes" else downloads for downloads, octets in amounts)

    def running(self, epoch: Epoch, account: str) -> list[int]:
        """When the leases of an account run out."""
        found = (lease for lease in epoch.leases.values() if not lease.whole and lease.has_slot)
        return sorted(lease.runs_out for lease in found if account in lease.accounts and lease.runs_out > self.clock)

    # What scripts do.

    def cost(self, epoch: Epoch, asked: Asked) -> Cost:
        content = epoch.contents.get(asked.content_key) if asked.window else None
        if content is None:
            return Cost(1, asked.promised, merged=False)
        if asked.way.endswith("whole") and self.clock < content.whole:
            return Cost(0, 0, merged=True)
        lasts = content.leases > 0 or self.clock < content.until
        if lasts and (asked.size < 0 or content.octets + asked.promised <= 2 * asked.size):
            return Cost(0, asked.promised, merged=True)
        return Cost(1, asked.promised, merged=False)

    def standings(self, epoch: Epoch, asked: Asked, cost: Cost) -> list[Stand]:
        """Before the reservation."""
        return [self._standing(epoch, bound, asked, cost) for bound in asked.bounds]

    def _standing(self, epoch: Epoch, bound: Bound, asked: Asked, cost: Cost) -> Stand:
        refused = 2 if bound.soft else 1
        if bound.metric == "concurrent":
            ends = self.running(epoch, bound.account)
            if bound.value == 0:
                return Stand(refused, len(ends), NEVER)
            if len(ends) >= bound.value and not asked.way.endswith("whole"):
                return Stand(refused, len(ends), ends[len(ends) - bound.value] - self.clock)
            return Stand(0, len(ends), NEVER)
        if bound.metric == "rate":
            return self._rate(epoch, bound)
        amount = cost.octets if bound.metric == "bytes" else cost.downloads
        used = self.used(bound.account, bound.metric, bound.period)
        over = bound.value == 0 or (amount > 0 and used + amount > bound.value)
        return Stand(refused if over else 0, used, self._reset(bound, amount, over=over))

    def _reset(self, bound: Bound, amount: int, *, over: bool) -> int:
        if bound.value == 0 or (over and amount > bound.value):
            return NEVER
        if bound.period == "total":
            return NEVER
        if bound.period in ("day", "month"):
            return _end_of(bound.period, self.clock) - self.clock
        if not over:
            return int(bound.period) * SECOND
        width = _width(int(bound.period))
        leaves = sorted({(event.at // width + 61) * width for event in self.of(bound.account)})
        return next(
            moment - self.clock
            for moment in leaves
            if moment > self.clock
            and self.used(bound.account, bound.metric, bound.period, moment) + amount <= bound.value
        )

    def _rate(self, epoch: Epoch, bound: Bound) -> Stand:
        if bound.value == 0:
            return Stand(1, 0, NEVER)
        interval = int(bound.period) * SECOND // bound.value
        tat = self._tat(epoch, bound)
        used = -((self.clock - tat) // interval)
        earliest = tat + interval - bound.burst * interval
        if earliest > self.clock:
            return Stand(1, used, earliest - self.clock)
        return Stand(0, used, tat + interval - self.clock)

    def _tat(self, epoch: Epoch, bound: Bound) -> int:
        interval = int(bound.period) * SECOND // bound.value
        kept = epoch.tats.get((bound.account, bound.period), 0)
        return min(max(kept, self.clock), self.clock + bound.burst * interval)

    def reserve(self, number: int, asked: Asked, known_by: object) -> list[Any]:
        """The answer: kind, then what it says; the standings are the last."""
        epoch = self.epoch(number)
        again = epoch.leases.get(asked.identifier)
        if asked.identifier in epoch.ended:
            return ["ended"]
        if again is not None:
            states = [dataclasses.replace(stand, state=0) for stand in self.standings(epoch, asked, Cost(0, 0, True))]
            return ["granted", again.downloads, again.charged, again.at, again.opener, states]
        cost = self.cost(epoch, asked)
        standings = self.standings(epoch, asked, cost)
        if asked.way.startswith("?"):
            return ["possible", cost.downloads, cost.octets, standings]
        if any(stand.state == 1 for stand in standings):
            return ["refused", standings]
        for bound, stand in zip(asked.bounds, standings, strict=True):
            if bound.metric == "rate":
                epoch.tats[bound.account, bound.period] = self.clock + stand.reset
        opener = self._open(epoch, asked, cost)
        whole = asked.way == "whole"
        after = [
            dataclasses.replace(stand, used=stand.used + _added(bound.metric, cost, whole=whole))
            for bound, stand in zip(asked.bounds, standings, strict=True)
        ]
        if whole and not cost.downloads and not cost.octets:
            return ["granted", 0, 0, self.clock, opener, after]
        event = self._add(
            asked.identifier,
            "grant",
            asked.accounts,
            asked.windows,
            asked.about["c"],
            cost.downloads,
            cost.octets,
            self.clock,
            known_by,
        )
        if asked.window and not cost.merged:
            epoch.contents[asked.content_key].grant = event
        epoch.leases[asked.identifier] = Running(
            asked.accounts,
            asked.windows,
            asked.about["c"],
            asked.promised,
            asked.mark,
            cost.octets,
            cost.downloads,
            self.clock,
            self.clock + asked.ttl * SECOND,
            opener,
            whole,
            grant=event,
        )
        return ["granted", cost.downloads, cost.octets, self.clock, opener, after]

    def _open(self, epoch: Epoch, asked: Asked, cost: Cost) -> str:
        if not asked.window:
            return asked.identifier
        whole, until = asked.way == "whole", self.clock + asked.window * SECOND
        if cost.merged:
            content = epoch.contents[asked.content_key]
            content.octets += cost.octets
            content.leases += not whole
            content.delivered += whole
            content.until = until
        else:
            before = epoch.contents.get(asked.content_key)
            content = epoch.contents[asked.content_key] = Content(
                asked.identifier, self.clock, int(not whole), int(whole), cost.octets, until
            )
            content.whole = before.whole if before else 0
        if whole and cost.octets:
            content.whole, content.free = until, 0
        elif whole:
            content.free += 1
        return content.opened

    def finish(
        self, number: int, identifier: str, way: str, sent: int, delivered: int, window: int, key: str, known_by: object
    ) -> str:
        """The kind of the answer."""
        epoch = self.epoch(number)
        lease = epoch.leases.get(identifier)
        if lease is None:
            if way == "settle":
                epoch.ended.add(identifier)
            return "nothing"
        if way == "expire":
            if lease.whole or lease.runs_out > self.clock:
                return "running"
            sent, delivered = lease.mark, 1
        del epoch.leases[identifier]
        epoch.ended.add(identifier)
        content = epoch.contents.get(key) if window else None
        if content is not None and content.opened != lease.opener:
            content = None
        if content is not None and lease.whole and lease.charged and content.free and not delivered:
            sent, delivered = lease.charged, 1
        self._change(lease, identifier, "end", 0, sent - lease.charged, lease.at, known_by)
        if lease.grant is not None and known_by is not None:
            lease.grant.known_by.add(known_by)
        if not window and not delivered:
            self._change(lease, lease.opener, "release", -1, 0, lease.at, known_by)
        if content is not None:
            self._leave(epoch, key, content, lease, sent, delivered)
            if not content.leases:
                content.until = self.clock + window * SECOND
            if not content.leases and not content.delivered:
                assert content.grant is not None
                self._change(content.grant, lease.opener, "release", -1, 0, content.at, known_by)
        return "ended"

    @staticmethod
    def _leave(epoch: Epoch, key: str, content: Content, lease: Running, sent: int, delivered: int) -> None:
        content.leases -= not lease.whole
        content.delivered += delivered - lease.whole
        content.octets += sent - lease.charged
        if lease.whole and lease.charged and not delivered:
            content.whole = 0
        if not content.leases and not content.delivered:
            del epoch.contents[key]

    def heartbeat(self, number: int, identifier: str, mark: int, ttl: int) -> str:
        lease = self.epoch(number).leases.get(identifier)
        if lease is None or lease.runs_out <= self.clock:
            return "gone"
        lease.runs_out = self.clock + ttl * SECOND
        lease.mark = max(lease.mark, mark)
        return "running"

    def restore(self, number: int, keys: Sequence[str], arguments: Sequence[Any]) -> None:
        identifier, epoch = str(arguments[0]), self.epoch(number)
        if identifier in epoch.leases or identifier in epoch.ended:
            return
        promised, mark, charged, at = (int(value) for value in arguments[1:5])
        about, window, ttl = json.loads(f"{{{arguments[7]}}}"), int(arguments[8]), int(arguments[9])
        opener = str(arguments[5])
        epoch.leases[identifier] = Running(
            tuple(about["u"]),
            tuple(about["w"]),
            about["c"],
            promised,
            mark,
            charged,
            0,
            at,
            self.clock + ttl * SECOND,
            opener,
            has_slot=not epoch.was_open,
        )
        if not window:
            return
        content = epoch.contents.get(keys[3])
        if content is None:
            until = self.clock + window * SECOND
            epoch.contents[keys[3]] = Content(opener, at, 1, 1, charged, until)
        elif content.opened == opener:
            content.leases += 1
            content.octets += charged

    def drop(self, number: int, identifier: str, key: str) -> None:
        epoch = self.epoch(number)
        epoch.ended.add(identifier)
        lease = epoch.leases.pop(identifier, None)
        content = epoch.contents.get(key)
        if lease is not None and content is not None and content.opened == lease.opener:
            content.leases -= 1

    def recall(self, number: int, key: str, account: str, window: int, arguments: Sequence[Any]) -> None:
        opener, at, octets, until = (str(arguments[0]), *(int(value) for value in arguments[1:]))
        grant = next(event for event in self.events if event.name == (opener, "grant"))
        told = [event for event in self.events if event.recorded is not None and event.accounts[0] == account]
        released = {event.reservation for event in told if event.kind == "release"}
        openers = [event for event in told if event.content == grant.content and event.kind == "grant"]
        latest = max(event.at for event in openers if event.downloads and event.reservation not in released)
        assert opener not in released
        assert grant.at == at == latest
        since = [event for event in told if event.content == grant.content and event.at >= at]
        assert octets == sum(event.octets for event in since)
        assert until == max(event.recorded or 0 for event in since) + window * SECOND
        if until > self.clock and key not in self.epoch(number).contents:
            self.epoch(number).contents[key] = Content(opener, at, 0, 1, octets, until)

    def _change(
        self, lease: Running | Event, of: str, kind: str, downloads: int, octets: int, at: int, known_by: object
    ) -> None:
        self._add(of, kind, lease.accounts, lease.windows, lease.content, downloads, octets, at, known_by)

    def _add(
        self,
        reservation: str,
        kind: str,
        accounts: tuple[str, ...],
        windows: tuple[int, ...],
        content: str,
        downloads: int,
        octets: int,
        at: int,
        known_by: object,
    ) -> Event:
        event = Event(reservation, kind, accounts, windows, content, downloads, octets, at, {known_by} - {None})
        assert event.name not in {other.name for other in self.events}, "the ledger would take only one of them"
        self.events.append(event)
        return event


def _sixes(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[first : first + 6] for first in range(0, len(values), 6))


def _width(window: int) -> int:
    return -(-window * SECOND // 60)


def _date(at: int) -> datetime.datetime:
    return datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(microseconds=at)


def _added(metric: str, cost: Cost, *, whole: bool) -> int:
    """To what is used, by a download that is granted."""
    return {"downloads": cost.downloads, "bytes": cost.octets, "rate": 1, "concurrent": 0 if whole else 1}[metric]


def _counts(event: Event, period: str, now: int) -> bool:
    """Whether it lies in the period that ``now`` does."""
    if period == "total":
        return True
    if period == "day":
        return _date(event.at).date() == _date(now).date()
    if period == "month":
        return (_date(event.at).year, _date(event.at).month) == (_date(now).year, _date(now).month)
    window = int(period)
    width = _width(window)
    return window in event.windows and now // width - 60 <= event.at // width <= now // width


def _end_of(period: str, now: int) -> int:
    date = _date(now).date()
    if period == "day":
        following = date + datetime.timedelta(days=1)
    else:
        following = (date.replace(day=28) + datetime.timedelta(days=4)).replace(day=1)
    return (following - datetime.date(1970, 1, 1)).days * DAY

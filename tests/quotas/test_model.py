"""Quotas against a model of plain dictionaries: whatever several processes do in whatever order, and whatever is lost
on the way, Redis, the ledger and the model count the same.

Time stands still unless a rule moves it: the clock of a tenant is set to a time that the server's has not reached, and
time never runs backwards. That is also the clock that is set back, all the while.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import os
import secrets
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

import pytest
import redis.asyncio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from gateway.catalog.model import File
from gateway.config import Quotas as QuotaSettings
from gateway.db import Database
from gateway.delivery.allowance import AllowanceEndedError
from gateway.delivery.transfer import Transfer
from gateway.errors import GatewayError
from gateway.identity.principal import Principal, anonymous
from gateway.quotas import leases as lease_module
from gateway.quotas import service
from gateway.quotas.calls import SCRIPTS, UNKNOWN_ERRORS
from gateway.quotas.leases import Lease
from gateway.quotas.limits import Limit
from gateway.redis.scripts import Scripts, open_scripts
from tests.quotas.model import DAY, SECOND, Asked, Cost, Model, Stand
from tests.quotas.support import Process, file, opened_database, redis_settings, user

T = TypeVar("T")

WINDOW, TTL = 3600, 60
PROCESSES = 3
SETTINGS = QuotaSettings(window=WINDOW, lease_ttl=TTL, process_timeout=600)
BEGIN = 25_625 * DAY - 200 * SECOND
"""Of all time here: shortly before 2040-02-28, and far from today."""
_EXPECTED = (*UNKNOWN_ERRORS, GatewayError)


class Wire:
    """Scripts of one process, which lose answers as told; all that Redis does is held against the model."""

    def __init__(self, scripts: Scripts, machine: QuotaMachine) -> None:
        self._scripts = scripts
        self._machine = machine
        self.owner: Member | None = None
        self.faults: dict[str, str] = {}
        """By script: its next call is lost "before" Redis gets it, or its answer "after" that."""

    @property
    def timeout(self) -> float:
        """Nothing is settled while counters are closed: nobody waits for that here."""
        return 5 if self._machine.epoch.usable else 0.005

    async def run(self, name: str, keys: Sequence[str], arguments: Sequence[str | int | bytes]) -> Any:
        fault = self.faults.pop(name, "")
        if fault == "before":
            raise TimeoutError
        if name in ("open", "restore"):
            # The server's own time is long ago here: the time at which this happens has to come from somewhere.
            arguments = self._machine.timed(name, arguments)
        answer = await self._scripts.run(name, keys, arguments)
        try:
            self._machine.ran(name, keys, arguments, answer, None if fault else self.owner)
        except Exception as problem:
            # Whoever waits for the answer may be a task that nobody asks how it went.
            self._machine.problems.append(problem)
            raise
        if fault:
            raise TimeoutError
        return answer

    async def call(self, *command: str | int | bytes) -> Any:
        answer = await self._scripts.call(*command)
        if command[0] == "UNLINK":
            self._machine.unlinked(str(command[1]))
        return answer

    def scan(self, pattern: str) -> AsyncIterator[str]:
        return self._scripts.scan(pattern)


@dataclasses.dataclass(eq=False)
class Member:
    """A process and the downloads that run in it."""

    process: Process
    wire: Wire
    leases: list[Lease] = dataclasses.field(default_factory=list)
    settled: list[Lease] = dataclasses.field(default_factory=list)
    """Those that may be settled once more."""
    alive: bool = True

    def is_open(self, tenant: str, epoch: int) -> bool:
        """Whether it admits downloads in this epoch; one that was not seen for a while may still be in the last."""
        tenancy = self.process.epochs.tenancies.get(tenant)
        return tenancy is not None and tenancy.opened and tenancy.epoch == epoch


@dataclasses.dataclass
class World:
    """What all runs share."""

    runner: asyncio.Runner
    client: redis.asyncio.Redis
    database: Database
    scripts: list[Scripts]


members = st.integers(0, PROCESSES - 1)
contents = st.sampled_from(["a", "b"])
amounts = st.integers(0, 60)
callers = st.sampled_from([0, 0, 0, 1, 2, 3])
faults = st.sampled_from(["", "", "", "", "", "before", "after"])
numbers = st.integers(0, 5)


def _same(work: Any) -> Any:
    def same(self: Any, **given: Any) -> None:
        work(self, **given)

    return same


def limits_for(account: str) -> st.SearchStrategy[Limit]:
    periods = st.sampled_from(["total", "day", "month", "60s", "3600s"])
    slow = st.sampled_from([None, None, None, 1000])
    return st.one_of(
        st.builds(
            Limit,
            st.just(account),
            st.just("downloads"),
            periods,
            st.sampled_from([0, 1, 2, 3, 5]),
            st.just(1),
            slow,
        ),
        st.builds(
            Limit, st.just(account), st.just("bytes"), periods, st.sampled_from([0, 30, 60, 200]), st.just(1), slow
        ),
        st.builds(Limit, st.just(account), st.just("concurrent"), st.just("now"), st.sampled_from([0, 1, 1, 2, 3])),
        st.builds(
            Limit,
            st.just(account),
            st.just("rate"),
            st.sampled_from(["1s", "7s", "60s"]),
            st.integers(0, 4),
            st.integers(1, 3),
        ),
    )


shared_accounts = st.sampled_from(["tenant", "group:g", "role:R", "anonymous"])


class QuotaMachine(RuleBasedStateMachine):
    """Two users and anonymous callers of two networks, in three processes."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.tenant = f't"{{%{secrets.token_hex(6)}}}\\é'
        self.prefix = ""
        self.callers: list[Principal] = [
            user('a"\\%}{é\n', self.tenant),
            user("b", self.tenant),
            anonymous(self.tenant, "192.0.2.0/24"),
            anonymous(self.tenant, "2001:db8::/64"),
        ]
        self.limits: dict[str, list[Limit]] = {}
        self.model = Model(BEGIN)
        self.number = 0
        """Of the epoch."""
        self.last: tuple[str, list[Any], list[Any]] | None = None
        """The last script that reserves, its answer and what the model says."""
        self.dump: tuple[int, dict[bytes, bytes], set[tuple[str, str]]] | None = None
        self.members: list[Member] = []
        self.asked: Asked | None = None
        self.problems: list[Exception] = []
        self.run(self.begin())

    @property
    def epoch(self) -> Any:
        return self.model.epoch(self.number)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def within_reason() -> T:
            async with asyncio.timeout(20):
                return await work

        result = self.world.runner.run(within_reason())
        if self.problems:
            raise self.problems[0]
        return result

    async def begin(self) -> None:
        rows = await self.world.database.fetch(
            "INSERT INTO tenants (name) VALUES ($1) RETURNING tenant_id", self.tenant
        )
        self.tenant_id = rows[0]["tenant_id"]
        await self.world.database.fetch("DELETE FROM quota_processes")
        for number in range(PROCESSES):
            self.members.append(await self.new_member(number))
        await self.members[0].process.upkeep.recovery.ensure(self.tenant)
        for member in self.members:
            await member.process.upkeep.look()
        assert all(member.is_open(self.tenant, self.number) for member in self.members)

    async def new_member(self, number: int) -> Member:
        wire = Wire(self.world.scripts[number], self)
        member = wire.owner = Member(Process.over(wire, self.world.database, SETTINGS), wire)  # type: ignore[arg-type]
        await member.process.upkeep.look()
        return member

    def teardown(self) -> None:
        self.run(self.end())

    async def end(self) -> None:
        for member in self.members:
            await self.abandon(member)
        await self.world.database.fetch("DELETE FROM tenants WHERE tenant_id = $1", self.tenant_id)
        await self.forget_keys()

    async def abandon(self, member: Member) -> None:
        """What a process was doing when it died."""
        tasks = {
            *member.process.quotas._settling,
            *(lease.renewal for lease in (*member.leases, *member.settled) if lease.renewal),
        }
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def keys(self) -> list[bytes]:
        return [key async for key in self.world.client.scan_iter(_glob(self.prefix) + "*", count=1000)]

    async def forget_key(self, key: str) -> None:
        await self.world.client.unlink(key)

    async def forget_scripts(self) -> None:
        await self.world.client.script_flush()

    async def forget_keys(self) -> None:
        if keys := await self.keys():
            await self.world.client.unlink(*keys)

    # What the model is told.

    def timed(self, name: str, arguments: Sequence[Any]) -> list[Any]:
        timed = list(arguments)
        place = {"open": 0, "restore": 10}[name]
        if name == "open":
            known = max((event.at for event in self.model.events if event.recorded is not None), default=0)
            assert int(timed[place]) >= known, "time would run backwards"
        timed[place] = max(int(timed[place]), self.model.clock)
        return timed

    def ran(
        self, name: str, keys: Sequence[str], arguments: Sequence[Any], answer: list[Any], known_by: Member | None
    ) -> None:
        """A script ran."""
        _, tenant, number, _ = keys[0].split(":", 3)
        self.prefix = self.prefix or f"gateway:{tenant}:"
        epoch = self.model.epoch(int(number))
        kind = answer[0].decode()
        if name == "restore":
            self.model.restore(int(number), keys, arguments)
            return
        if name == "drop":
            self.model.drop(int(number), str(arguments[0]), keys[3])
            return
        if name == "open":
            if kind == "open" and not epoch.was_open:
                epoch.usable = epoch.was_open = True
                self.number = int(number)
            assert (kind == "open") is epoch.usable
            return
        assert (kind == "closed") is not epoch.usable, f"{name} of epoch {number} gives {kind}"
        if kind == "closed" or kind == "load":
            return
        done = getattr(self, f"ran_{name}", None)
        if done is not None:
            done(int(number), keys, arguments, answer, known_by)

    def ran_reserve(
        self, number: int, keys: Sequence[str], arguments: Sequence[Any], answer: list[Any], known_by: Member | None
    ) -> None:
        asked = Asked.of(keys, arguments)
        expected = self.model.reserve(number, asked, known_by)
        kind = answer[0].decode()
        assert kind == expected[0]
        self.last, self.asked = (kind, answer, expected), asked
        if kind == "ended":
            return
        assert int(answer[1]) == self.model.clock
        first = {"refused": 2, "possible": 4, "granted": 9}[kind]
        if kind == "possible":
            assert [int(value) for value in answer[2:4]] == expected[1:3]
        elif kind == "granted":
            assert [int(answer[5]), int(answer[6]), int(answer[7]), answer[8].decode()] == expected[1:5]
            events = [event for event in self.model.events if event.name == (asked.identifier, "grant")]
            assert len(events) == bool(answer[4])
            if known_by is not None:
                for event in events:
                    event.known_by.add(known_by)
        told = [Stand(*(int(value) for value in answer[at : at + 3])) for at in range(first, len(answer), 3)]
        assert told == expected[-1], (asked, told, expected[-1])

    def ran_finish(
        self, number: int, keys: Sequence[str], arguments: Sequence[Any], answer: list[Any], known_by: Member | None
    ) -> None:
        identifier, way, *values = arguments
        sent, delivered, window, _ = (int(value) for value in values)
        before = len(self.model.events)
        kind = self.model.finish(number, str(identifier), str(way), sent, delivered, window, keys[3], known_by)
        assert answer[0].decode() == kind
        if kind == "ended":
            assert (len(answer) - 2) // 2 >= len(self.model.events) - before

    def ran_heartbeat(
        self, number: int, keys: Sequence[str], arguments: Sequence[Any], answer: list[Any], known_by: Member | None
    ) -> None:
        identifier, mark, ttl = arguments
        kind = self.model.heartbeat(number, str(identifier), int(mark), int(ttl))
        assert answer[0].decode() == kind
        if kind == "running":
            lease = self.model.epoch(number).leases[str(identifier)]
            told = [int(value) for value in answer[2:]]
            assert told == [len(self.model.running(self.model.epoch(number), account)) for account in lease.accounts]

    def ran_expired(
        self, number: int, keys: Sequence[str], arguments: Sequence[Any], answer: list[Any], known_by: Member | None
    ) -> None:
        leases = self.model.epoch(number).leases
        over = {
            name
            for name, lease in leases.items()
            if lease.has_slot and not lease.whole and lease.runs_out <= self.model.clock
        }
        assert {name.decode() for name in answer[1:]} == over

    def ran_recall(
        self, number: int, keys: Sequence[str], arguments: Sequence[Any], answer: list[Any], known_by: Member | None
    ) -> None:
        for content, key in enumerate(keys[1:]):
            told = arguments[4 * content : 4 * content + 4]
            account = next(event.accounts[0] for event in self.model.events if event.name == (str(told[0]), "grant"))
            self.model.recall(number, key, account, WINDOW, told)

    def ran_forget(
        self, number: int, keys: Sequence[str], arguments: Sequence[Any], answer: list[Any], known_by: Member | None
    ) -> None:
        for key in keys[1:]:
            self.unlinked(key)

    def unlinked(self, key: str) -> None:
        """An account that is loaded anew forgets its rates."""
        _, _, number, rest = key.split(":", 3)
        kind, _, account = rest.partition(":")
        if kind == "account":
            tats = self.model.epoch(int(number)).tats
            for name in [name for name in tats if name[0] == account]:
                del tats[name]

    def forget_last(self) -> None:
        self.last = None

    # Rules: callers.

    @rule(who=callers, given=st.data())
    def change_limits(self, who: int, given: st.DataObject) -> None:
        own = _own(self.callers[who])
        account = given.draw(st.one_of(st.just(own), shared_accounts))
        drawn = given.draw(
            st.lists(limits_for(account), max_size=3, unique_by=lambda limit: (limit.metric, limit.period))
        )
        self.limits[account] = sorted(drawn, key=lambda limit: (limit.metric, limit.period))

    def limits_of(self, who: int) -> tuple[Limit, ...]:
        accounts = [_own(self.callers[who]), "group:g", "role:R", "tenant"]
        if self.callers[who].is_anonymous:
            accounts = [_own(self.callers[who]), "anonymous", "tenant"]
        return tuple(limit for account in accounts for limit in self.limits.get(account, []))

    def wanted(self, who: int, content: str, size: int | None = 40) -> File:
        return file(content, self.limits_of(who), size=size)

    def reserve(
        self,
        number: int,
        who: int,
        content: str,
        promised: int,
        sized: bool,
        fault: str,
        fault_of_giving_back: str,
    ) -> None:
        member = self.members[number]
        member.wire.faults = {"reserve": fault, "finish": fault_of_giving_back}
        wanted = self.wanted(who, content, 40 if sized else None)
        lease = self.run(
            self.asking(member, member.process.quotas.reserve(self.callers[who], wanted, Transfer(promised)))
        )
        if lease is not None:
            assert lease.reservation.accounts == _accounts(self.callers[who], wanted.limits)
            assert lease.at == self.model.clock
            assert lease.mark == min(promised, 16)
            member.leases.append(lease)
        elif self.last is not None and self.last[0] == "refused":
            self.run(self.retry_after(member, who, wanted, promised, self.last[2][1]))

    reserving = rule(
        number=members,
        who=callers,
        content=contents,
        promised=amounts,
        sized=st.booleans(),
        fault=faults,
        fault_of_giving_back=faults,
    )
    # A rule of which there are several is taken more often.
    reserve_one, reserve_another, reserve_one_more = (
        reserving(reserve),
        reserving(_same(reserve)),
        reserving(_same(reserve)),
    )

    @rule(number=members, who=callers, content=contents, promised=amounts, fault=faults)
    def charge(self, number: int, who: int, content: str, promised: int, fault: str) -> None:
        member = self.members[number]
        member.wire.faults = {"reserve": fault}
        wanted = self.wanted(who, content)
        self.run(self.asking(member, member.process.quotas.charge(self.callers[who], wanted, promised)))

    async def asking(self, member: Member, ask: Coroutine[Any, Any, T]) -> T | None:
        """What was granted; None if it was not."""
        self.forget_last()
        before = len(self.model.events)
        could = self.epoch.usable and member.is_open(self.tenant, self.number)
        lost = bool(member.wire.faults.get("reserve"))
        refused: GatewayError | None = None
        try:
            granted = await ask
        except GatewayError as error:
            refused = error
        if refused is not None:
            if self.epoch.usable and member.is_open(self.tenant, self.number):
                await member.process.settled()
            if refused.status == 503:
                assert not could or lost, refused
                assert int(refused.headers["Retry-After"]) >= 1
            else:
                assert refused.status == 429
                assert len(self.model.events) == before
                self.right_words(refused)
            return None
        assert could
        assert not lost
        assert self.last is not None
        assert self.last[0] == "granted"
        self.last = None
        return granted

    def right_words(self, error: GatewayError) -> None:
        assert self.last is not None
        kind, _, (_, standings) = self.last
        assert kind == "refused"
        refused = [stand for stand in standings if stand.state == 1]
        assert error.body is not None
        told = error.body["limits"]
        assert isinstance(told, list)
        assert [(limit["used"], limit["reset"]) for limit in told] == [
            (stand.used, None if stand.reset < 0 else -(-stand.reset // SECOND)) for stand in refused
        ]
        if all(stand.reset >= 0 for stand in refused):
            wait = max(-(-stand.reset // SECOND) for stand in refused)
            assert int(error.headers["Retry-After"]) == max(wait, 1)
        else:
            assert "Retry-After" not in error.headers

    async def retry_after(
        self, member: Member, who: int, wanted: File, promised: int, standings: Sequence[Stand]
    ) -> None:
        """Had nothing else happened, the same request would be granted when it is said to be, and no moment before."""
        resets = [stand.reset for stand in standings if stand.state == 1]
        if not self.epoch.usable or min(resets) < 0:
            return
        now = self.model.clock

        async def would_be(later: int) -> tuple[bool, Cost]:
            await self.set_clock(now + later)
            estimate = await member.process.quotas.estimate(self.callers[who], wanted, promised)
            assert self.asked is not None
            return estimate.admitted, self.model.cost(self.epoch, self.asked)

        try:
            _, cost = await would_be(0)
            for later, admitted in ((max(resets), True), (max(resets) - 1, False)):
                found, later_cost = await would_be(later)
                # Later it may be another download.
                assert found is admitted or later_cost != cost
        finally:
            await self.set_clock(now)

    @rule(number=members, who=callers, content=contents, promised=amounts, whole=st.booleans())
    def estimate(self, number: int, who: int, content: str, promised: int, whole: bool) -> None:
        member = self.members[number]
        work = member.process.quotas.estimate(
            self.callers[who], self.wanted(who, content), promised, "whole" if whole else "stream"
        )
        before = len(self.model.events)
        with contextlib.suppress(GatewayError):
            self.run(work)
            assert self.epoch.usable
        assert len(self.model.events) == before

    # Rules: what runs.

    def lease(self, which: int) -> tuple[Member, Lease]:
        """One of those that run, or were settled and may be once more."""
        found = [(member, lease) for member in self.members for lease in (*member.leases, *member.settled)]
        return found[which % len(found)]

    def has_leases(self) -> bool:
        return any(member.leases or member.settled for member in self.members)

    @precondition(has_leases)
    @rule(which=numbers, amount=amounts, fault=faults)
    def send(self, which: int, amount: int, fault: str) -> None:
        """As a sender does: never more than is granted; it waits for more when that is sent."""
        member, lease = self.lease(which)
        if not (self.epoch.usable and member.is_open(self.tenant, self.number)) or lease in member.settled:
            return
        member.wire.faults = {"heartbeat": fault}
        self.run(self.sending(member, lease, amount))

    async def sending(self, member: Member, lease: Lease, amount: int) -> None:
        goal = min(lease.transfer.promised, lease.transfer.sent + amount)
        try:
            while lease.transfer.sent < goal:
                granted = lease.granted()
                assert granted >= lease.transfer.sent
                lease.transfer.sent = min(goal, granted)
                if lease.transfer.sent < goal:
                    await lease.more()
                    assert lease.granted() > lease.transfer.sent
        except AllowanceEndedError:
            pass
        lease.granted()
        if lease.renewal is not None:
            await asyncio.wait([lease.renewal])
        lease.transfer.finished = lease.transfer.sent == lease.transfer.promised
        kept = self.epoch.leases.get(lease.reservation.identifier)
        assert kept is None or lease.sent <= lease.mark <= kept.mark <= kept.promised

    @precondition(has_leases)
    @rule(which=numbers, fault=faults, keep=st.sampled_from([False, False, True]))
    def settle(self, which: int, fault: str, keep: bool) -> None:
        """Once, or once more: what is kept may be settled again."""
        member, lease = self.lease(which)
        member.wire.faults = {"finish": fault}
        (member.leases if lease in member.leases else member.settled).remove(lease)
        if keep:
            member.settled.append(lease)
        self.run(member.process.quotas.settle(lease, delivered=lease.transfer.delivered))

    @precondition(has_leases)
    @rule(which=numbers)
    def reserve_again(self, which: int) -> None:
        """The same call once more, as a connection does that died after sending it."""
        member, lease = self.lease(which)
        if lease.reservation.identifier not in {*self.epoch.leases, *self.epoch.ended}:
            # A call that was on its way when an epoch ended goes to the keys of that epoch.
            return
        before = len(self.model.events)
        self.forget_last()
        with contextlib.suppress(*_EXPECTED):
            self.run(member.process.quotas._ask(lease.reservation, lease.limits, "stream"))
        if self.last is not None and lease.reservation.identifier in self.epoch.leases:
            assert self.last[0] == "granted"
            assert len(self.model.events) == before

    @precondition(has_leases)
    @rule(number=members, fault=faults)
    def beat(self, number: int, fault: str) -> None:
        self.members[number].wire.faults = {"heartbeat": fault}
        self.run(self.members[number].process.upkeep.leases.beat())

    # Rules: upkeep.

    @rule(number=members)
    def sweep(self, number: int) -> None:
        self.run(self.upkeep(self.members[number].process.upkeep.sweep()))

    @rule(number=members, fault=faults)
    def drain(self, number: int, fault: str) -> None:
        self.members[number].wire.faults = {"confirm": fault}
        self.run(self.upkeep(self.members[number].process.upkeep.drain_ours()))

    @rule(number=members)
    def look(self, number: int) -> None:
        self.run(self.upkeep(self.members[number].process.upkeep.look()))

    async def upkeep(self, work: Coroutine[Any, Any, None]) -> None:
        with contextlib.suppress(*_EXPECTED):
            await work

    # Rules: time.

    @rule(
        seconds=st.sampled_from(
            [0.000001, 1, 1, 2, 7, 30, 59, 60, 61, 200, 3600, 3661, DAY // SECOND, 40 * DAY // SECOND]
        )
    )
    def time_goes_on(self, seconds: float) -> None:
        self.run(self.set_clock(self.model.clock + int(seconds * SECOND)))

    async def set_clock(self, clock: int) -> None:
        self.model.clock = clock
        if self.epoch.usable:
            await self.world.client.hset(f"{self.prefix}{self.number}:state", "clock", str(clock))

    # Rules: what goes wrong.

    @rule(number=members, what=st.sampled_from(["dies, and another begins", "is not seen for a while"]))
    def a_process(self, number: int, what: str) -> None:
        self.run(self.replace(number) if what.startswith("dies") else self.seem_dead(self.members[number]))

    async def replace(self, number: int) -> None:
        member = self.members[number]
        await self.abandon(member)
        member.alive = False
        await self.seem_dead(member)
        self.members[number] = await self.new_member(number)

    async def seem_dead(self, member: Member) -> None:
        await self.world.database.fetch(
            "UPDATE quota_processes SET seen = now() - interval '1 hour' WHERE process = $1",
            member.process.upkeep.process,
        )

    @precondition(lambda self: self.epoch.usable)
    @rule(which=st.integers(0, 8))
    def redis_forgets(self, which: int) -> None:
        """An account that nobody used for long; or the scripts, as an administrator may have it."""
        accounts = [*map(_own, self.callers), "tenant", "group:g", "role:R", "anonymous"]
        if which == len(accounts):
            self.run(self.forget_scripts())
            return
        account = accounts[which]
        key = f"{self.prefix}{self.number}:account:{account}"
        self.run(self.forget_key(key))
        self.unlinked(key)

    @precondition(lambda self: self.epoch.usable)
    @rule()
    def the_replica_is_up_to_date(self) -> None:
        self.run(self.take_dump())

    async def take_dump(self) -> None:
        keys = {key: await self.world.client.dump(key) for key in await self.keys()}
        waiting = {event.name for event in self.model.events if event.in_stream and event.recorded is None}
        self.dump = (self.number, {key: value for key, value in keys.items() if value is not None}, waiting)

    @precondition(lambda self: self.epoch.usable)
    @rule(how=st.sampled_from(["emptied", "restarted with its data", "an older replica"]))
    def redis_loses_something(self, how: str) -> None:
        self.run(self.lose(how))

    async def lose(self, how: str) -> None:
        state = f"{self.prefix}{self.number}:state"
        self.epoch.usable = False
        if how == "restarted with its data":
            await self.world.client.hset(state, "run", "another")
            return
        kept: set[tuple[str, str]] = set()
        await self.forget_keys()
        if how == "an older replica" and self.dump is not None and self.dump[0] == self.number:
            for key, value in self.dump[1].items():
                await self.world.client.restore(key, 0, value)
            await self.world.client.hset(state, "run", "another")
            kept = self.dump[2]
        for event in self.model.events:
            event.in_stream = event.in_stream and event.name in kept

    @precondition(lambda self: not self.epoch.usable)
    @rule()
    def all_find_out(self) -> None:
        """Recovery to its end, in the order of the processes."""
        self.run(self.recover())

    async def recover(self) -> None:
        for member in self.members:
            # What was to be lost of other calls is not of these.
            member.wire.faults.clear()
        for _ in range(4):
            for member in self.members:
                # Whoever asks Redis finds out; the others hear of it.
                await self.upkeep(self.ask_redis(member))
                await member.process.upkeep.look()
        assert self.epoch.usable
        assert all(member.is_open(self.tenant, self.number) for member in self.members)

    async def ask_redis(self, member: Member) -> None:
        await member.process.quotas.usage(self.tenant, ["tenant"])

    # What always holds.

    @invariant()
    def all_count_the_same(self) -> None:
        self.run(self.check())

    async def check(self) -> None:
        await self.recorded()
        model = self.model
        granted = {event.reservation for event in model.events if event.kind == "grant" and event.recorded is not None}
        for event in model.events:
            if event.recorded is None and not event.in_stream and self.epoch.usable and self.knows(event):
                assert event.kind != "grant"
                assert event.reservation not in granted
        if not self.epoch.usable:
            return
        for member in self.members:
            if member.is_open(self.tenant, self.number):
                await member.process.settled()
        await self.recorded()
        opened = [member for member in self.members if member.is_open(self.tenant, self.number)]
        if not opened:
            return
        accounts = sorted({account for event in model.events for account in event.accounts})
        differences = await asyncio.gather(*(opened[0].process.compared(self.tenant, account) for account in accounts))
        assert not any(differences), differences
        for account in accounts:
            await self.redis_has(account)
        await self.concurrency()

    def knows(self, event: Any) -> bool:
        """Whether a process that takes part in the epoch heard of it."""
        return any(member in event.known_by and member.is_open(self.tenant, self.number) for member in self.members)

    async def recorded(self) -> None:
        """What came to the ledger in this step came now."""
        rows = await self.world.database.fetch(
            "UPDATE quota_ledger SET recorded_at = 'epoch'::timestamptz + $2 * interval '1 microsecond'"
            " WHERE tenant_id = $1 AND recorded_at < now() + interval '1 day' "
            " RETURNING reservation, kind, downloads, bytes",
            self.tenant_id,
            self.model.clock,
        )
        events = {event.name: event for event in self.model.events}
        for row in rows:
            event = events[row["reservation"], row["kind"]]
            assert event.in_stream or not event.known_by.isdisjoint(self.members)
            assert (event.downloads, event.octets) == (row["downloads"], row["bytes"])
            event.recorded = self.model.clock

    async def redis_has(self, account: str) -> None:
        found = await self.world.client.hgetall(f"{self.prefix}{self.number}:account:{account}")
        kept = {_text(name): value for name, value in found.items()}
        if "c" not in kept:
            return
        names = ("d", "b", "day", "dd", "db", "month", "md", "mb")
        counters = dict(zip(names, map(int, kept["c"].split()), strict=True))
        rolling_sums = {name: int(value) for name, value in kept.items() if name.startswith("r")}
        model, now = self.model, self.model.clock
        used = {
            (period, metric): model.used(account, metric, period)
            for period in ("total", "day", "month", "60", "3600")
            for metric in ("downloads", "bytes")
        }
        assert min(used.values()) >= 0
        assert (counters["d"], counters["b"]) == (used["total", "downloads"], used["total", "bytes"])
        today = now // DAY
        day = (counters["dd"], counters["db"]) if counters["day"] == today else (0, 0)
        assert day == (used["day", "downloads"], used["day", "bytes"])
        date = datetime.date(1970, 1, 1) + datetime.timedelta(days=today)
        is_this_month = counters["month"] == date.year * 12 + date.month - 3
        month = (counters["md"], counters["mb"]) if is_this_month else (0, 0)
        assert month == (used["month", "downloads"], used["month", "bytes"])
        for window in (60, 3600):
            bucket = now // (window * SECOND // 60)
            for short, metric in (("d", "downloads"), ("b", "bytes")):
                rolling = sum(rolling_sums.get(f"r{window}:{bucket - back}:{short}", 0) for back in range(61))
                assert rolling == used[str(window), metric]

    async def concurrency(self) -> None:
        for account in {account for lease in self.epoch.leases.values() for account in lease.accounts}:
            key = f"{self.prefix}{self.number}:running:{account}"
            running = await self.world.client.zcount(key, f"({self.model.clock}", "+inf")
            assert running == len(self.model.running(self.epoch, account))


def _own(caller: Principal) -> str:
    return f"user:{caller.email}" if caller.email else f"network:{caller.network}"


def _accounts(caller: Principal, limits: Sequence[Limit]) -> tuple[str, ...]:
    always = [_own(caller), "tenant"] if caller.email else [_own(caller), "anonymous", "tenant"]
    return (*always, *sorted({limit.account for limit in limits} - set(always)))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _glob(text: str) -> str:
    return "".join(f"\\{character}" if character in "*?[]\\" else character for character in text)


@contextlib.asynccontextmanager
async def opened_world(runner: asyncio.Runner, url: str, dsn: str) -> AsyncIterator[World]:
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(redis.asyncio.Redis.from_url(url))
        database = await stack.enter_async_context(opened_database(dsn))
        scripts = [
            await stack.enter_async_context(open_scripts(redis_settings(url, pool_size=1), SCRIPTS))
            for _ in range(PROCESSES)
        ]
        yield World(runner, client, database, scripts)


@pytest.mark.timeout(3600)
def test_redis_the_ledger_and_the_model_count_the_same(
    redis_url: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "SLICE", 16)
    monkeypatch.setattr(lease_module, "MOST_SLICE", 32)
    for module, name in ((lease_module, "_PAUSE"), (service, "_SETTLE_PAUSE"), (service, "_LONGEST_PAUSE")):
        monkeypatch.setattr(module, name, 0.001)
    runs = 2000 if os.environ.get("GATEWAY_TEST_EXAMPLES") else 30
    with asyncio.Runner() as runner:
        opening = opened_world(runner, redis_url, database)
        world = runner.run(opening.__aenter__())
        try:
            run_state_machine_as_test(
                type("Machine", (QuotaMachine,), {"world": world}),
                settings=settings(
                    max_examples=runs,
                    stateful_step_count=50,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(opening.__aexit__(None, None, None))

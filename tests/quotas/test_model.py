"""Quotas against a model of plain dictionaries: whatever is called in whatever order, both count the same."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
import redis.asyncio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from gateway.errors import GatewayError
from gateway.identity.principal import Principal, anonymous
from gateway.quotas.service import Lease, Quotas
from tests.quotas.support import Limits, file, open_quotas, run_reserve, run_settle, user

T = TypeVar("T")

WINDOW = 3600


@dataclasses.dataclass
class Window:
    """One caller's downloads of one content that count as one."""

    running: int = 0
    delivered: int = 0


@dataclasses.dataclass
class Account:
    """What a caller has used, and the windows that are open."""

    downloads: int = 0
    octets: int = 0
    windows: dict[str, Window] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Held:
    """A lease, and what the model knows of it."""

    lease: Lease
    who: int
    content: str
    window: Window | None = None
    """None until it is granted."""
    ended: bool = False
    """Settled, or forgotten."""
    forgotten: bool = False
    """Its key ran out."""
    whole: bool = False
    """Charged as delivered at once."""


contents = st.sampled_from(["a", "b"])
callers = st.sampled_from([0, 0, 0, 1, 2])
amounts = st.integers(0, 50)


class QuotaMachine(RuleBasedStateMachine):
    """Two users and an anonymous caller; limits change at will."""

    url = ""
    leases = Bundle[Held]("leases")

    def __init__(self) -> None:
        super().__init__()
        tenant = secrets.token_hex(8)
        self.callers: list[Principal] = [user("a", tenant), user("b", tenant), anonymous(tenant)]
        self.accounts = [Account() for _ in self.callers]
        self.limits = [Limits(-1, -1) for _ in self.callers]
        self.runner = asyncio.Runner()
        self.stack = contextlib.AsyncExitStack()
        self.quotas: Quotas = self.run(self.stack.enter_async_context(open_quotas(self.url, window=WINDOW)))
        self.client: redis.asyncio.Redis = self.run(
            self.stack.enter_async_context(redis.asyncio.Redis.from_url(self.url))
        )

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.runner.close()

    @rule(
        who=callers, downloads=st.sampled_from([-1, -1, -1, 0, 1, 3]), octets=st.sampled_from([-1, -1, -1, 0, 50, 100])
    )
    def change_limits(self, who: int, downloads: int, octets: int) -> None:
        self.limits[who] = Limits(downloads, octets)

    @rule(target=leases, who=callers, content=contents, promised=amounts)
    def reserve(self, who: int, content: str, promised: int) -> Held:
        """Through the service, as a download does."""
        return self.reserve_through_the_service(who, content, promised)

    @rule(target=leases, who=callers, content=contents, promised=amounts, whole=st.booleans())
    def make_lease(self, who: int, content: str, promised: int, whole: bool) -> Held:
        """A lease that is not, or not yet, reserved."""
        held = self.unreserved(who, content, promised)
        held.whole = whole
        return held

    @rule(who=callers, content=contents, promised=amounts)
    def charge(self, who: int, content: str, promised: int) -> None:
        """Through the service, as a download does that somebody else sends."""
        reason = self.refusal(who, content, promised)
        wanted = self.quotas.charge(self.callers[who], file(content, self.limits[who]), promised)
        if reason is not None:
            with pytest.raises(GatewayError, match=reason):
                self.run(wanted)
            return
        self.run(wanted)
        held = self.unreserved(who, content, promised)
        held.whole = True
        self.grant(held)

    def reserve_through_the_service(self, who: int, content: str, promised: int) -> Held:
        reason = self.refusal(who, content, promised)
        wanted = self.quotas.reserve(self.callers[who], file(content, self.limits[who]), promised)
        if reason is not None:
            with pytest.raises(GatewayError, match=reason):
                self.run(wanted)
            return self.unreserved(who, content, promised)
        held = Held(self.run(wanted), who, content)
        self.grant(held)
        return held

    def unreserved(self, who: int, content: str, promised: int) -> Held:
        return Held(self.quotas._lease(self.callers[who], file(content), promised), who, content)

    @rule(held=leases)
    def reserve_again(self, held: Held) -> None:
        """The same lease, as a retry or a call that was held up does it."""
        if held.forgotten:  # no call is held up for that long
            return
        granted, downloads, octets = self.run(
            run_reserve(self.quotas, held.lease, self.limits[held.who], whole=held.whole)
        )
        if held.ended or held.window is not None:
            assert granted is not held.ended
        else:
            assert granted is (self.refusal(held.who, held.content, held.lease.promised) is None)
            if granted:
                self.grant(held)
        account = self.accounts[held.who]
        assert (downloads, octets) == (account.downloads, account.octets)

    @rule(held=leases, part=st.floats(0, 1), delivered=st.booleans())
    def settle(self, held: Held, part: float, delivered: bool) -> None:
        """Any lease: running, settled before, never reserved, run out."""
        sent = int(held.lease.promised * part) if delivered else 0
        settled = self.run(run_settle(self.quotas, held.lease, sent, delivered=delivered))
        running = held.window is not None and not held.ended
        assert settled is running
        if running:
            self.end(held, sent, delivered)
        held.ended, held.forgotten = True, False

    @rule(target=leases, held=leases, promised=amounts)
    def window_ends_and_the_next_begins(self, held: Held, promised: int) -> Held:
        if self.merges(held.who):
            existed = self.run(self.delete(held.lease.keys[2]))
            assert existed is (self.accounts[held.who].windows.pop(held.content, None) is not None)
        return self.reserve_through_the_service(held.who, held.content, promised)

    @rule(held=leases)
    def lease_runs_out(self, held: Held) -> None:
        """What it was charged stays charged; the window stays open as it is."""
        keys = held.lease.keys[1:] if held.lease.window == 0 else held.lease.keys[1:2]
        self.run(self.delete(*keys))
        held.ended = held.forgotten = True

    @invariant()
    def redis_counts_as_the_model(self) -> None:
        for who, account in zip(self.callers, self.accounts, strict=True):
            assert self.run(self.quotas.usage(who)) == (account.downloads, account.octets)
            assert account.downloads >= 0
            assert account.octets >= 0

    async def delete(self, *keys: str) -> bool:
        return bool(await self.client.delete(*keys))

    def merges(self, who: int) -> bool:
        return not self.callers[who].is_anonymous

    def refusal(self, who: int, content: str, promised: int) -> str | None:
        """What a refusal says, None when the limits allow it."""
        account, limits = self.accounts[who], self.limits[who]
        merged = self.merges(who) and content in account.windows
        full = limits.max_downloads > 0 and account.downloads >= limits.max_downloads and not merged
        if limits.max_downloads == 0 or full:
            return f"Download quota of {limits.max_downloads} exceeded"
        if limits.max_bytes >= 0 and account.octets + promised > limits.max_bytes:
            return f"Download quota of {limits.max_bytes} bytes would be exceeded"
        return None

    def grant(self, held: Held) -> None:
        account = self.accounts[held.who]
        window = account.windows.get(held.content) if self.merges(held.who) else None
        if window is None:
            window = Window()
            account.downloads += 1
            if self.merges(held.who):
                account.windows[held.content] = window
        if held.whole:
            window.delivered += 1
        else:
            window.running += 1
        account.octets += held.lease.promised
        held.window = window

    def end(self, held: Held, sent: int, delivered: bool) -> None:
        account, window = self.accounts[held.who], held.window
        assert window is not None
        account.octets += sent - held.lease.promised
        if self.merges(held.who) and account.windows.get(held.content) is not window:
            return
        if held.whole:
            window.delivered -= 1
        else:
            window.running -= 1
        window.delivered += delivered
        if not window.running and not window.delivered:
            account.downloads -= 1
            account.windows.pop(held.content, None)


def test_redis_counts_as_the_model_does(redis_url: str) -> None:
    machine = type("Machine", (QuotaMachine,), {"url": redis_url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )

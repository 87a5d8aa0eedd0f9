"""The life of orders, held against a model while users, workers and time do what they like, and workers die."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import os
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from gateway.orders import queue, upkeep
from gateway.orders.lifecycle import RULES, Action, FileState, RefusedError, Status
from gateway.orders.model import NoStager
from gateway.orders.reading import Scope
from tests.harness import SCIENTIST, TENANT
from tests.orders.support import MINE, NO_WISH, Shop, fill, open_shop, selection

T = TypeVar("T")
EXAMPLES = 200 if os.environ.get("GATEWAY_TEST_FULL") else 15
FILES = 4
"""Of each order; sub-orders of two."""
ALL = Scope(TENANT, None)
LEAST = datetime.timedelta(0)
NOW_OVER = "UPDATE orders SET expires_at = now() WHERE order_id = $1"


@dataclasses.dataclass
class Model:
    """What an order must be."""

    status: Status
    files: list[FileState]
    copies: list[bool]
    """Whether each file can be had."""
    held: list[tuple[queue.Claim, set[int]]] = dataclasses.field(default_factory=list)
    """Claims of workers that live: with the files they are for."""

    def end(self) -> None:
        """The rules of REGARDS, said in another way than the code has it."""
        if self.status is Status.RUNNING and FileState.PENDING not in self.files:
            bad = self.files.count(FileState.ERROR)
            spoilt = self.files.count(FileState.DOWNLOAD_ERROR)
            if bad == FILES:
                self.status = Status.FAILED
            else:
                self.status = Status.DONE_WITH_WARNING if bad or spoilt else Status.DONE
        elif self.status is Status.DONE and FileState.DOWNLOAD_ERROR in self.files:
            self.status = Status.DONE_WITH_WARNING

    def prepare(self, numbers: set[int]) -> None:
        for number in numbers:
            if self.files[number] is FileState.PENDING:
                self.files[number] = FileState.AVAILABLE if self.copies[number] else FileState.ERROR
        self.end()


class Life(RuleBasedStateMachine):
    shop: Shop
    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        super().__init__()
        self.orders: dict[int, Model] = {}
        self.claims: list[tuple[queue.Claim, int, set[int]]] = []
        """Of workers that have not finished: claim, order, numbers of the files."""
        self.run(self.shop.connection.execute("DELETE FROM order_files; DELETE FROM orders"))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def one(self, number: int) -> int:
        """An order."""
        return sorted(self.orders)[number % len(self.orders)]

    @rule(missing=st.lists(st.booleans(), min_size=FILES, max_size=FILES))
    @precondition(lambda self: len(self.orders) < 3)
    def create(self, missing: list[bool]) -> None:
        order_id = self.run(self.shop.order(selection("many")))
        self.orders[order_id] = Model(Status.RUNNING, [FileState.PENDING] * FILES, [True] * FILES)
        self.break_copies(missing)

    @rule(missing=st.lists(st.booleans(), min_size=FILES, max_size=FILES))
    def break_copies(self, missing: list[bool]) -> None:
        """All orders have the same files."""
        copies = [not one for one in missing]
        self.run(
            self.shop.connection.execute(
                "UPDATE copies SET state = CASE WHEN s.ok THEN 'ONLINE' ELSE 'LOST' END "
                "FROM (SELECT file_id, ($1::boolean[])[row_number() OVER (ORDER BY file_id)] AS ok FROM files) s "
                "WHERE s.file_id = copies.file_id",
                copies,
            )
        )
        for model in self.orders.values():
            model.copies = copies

    @rule(number=st.integers(0, 9), action=st.sampled_from(sorted(set(Action) - {Action.DOWNLOAD, Action.RESTART})))
    @precondition(lambda self: self.orders)
    def act(self, number: int, action: Action) -> None:
        order_id = self.one(number)
        model, actions = self.orders[order_id], self.shop.actions
        act = {
            Action.PAUSE: actions.pause,
            Action.RESUME: actions.resume,
            Action.RETRY: actions.retry,
            Action.DELETE: actions.delete,
            Action.REMOVE: actions.remove,
        }[action]
        if model.status not in RULES[action].statuses:
            with pytest.raises(RefusedError, match=RULES[action].refusal):
                self.run(act(ALL, order_id))
            return
        self.run(act(ALL, order_id))
        if action is Action.REMOVE:
            del self.orders[order_id]
            return
        model.status = RULES[action].becomes or model.status
        if action is Action.RETRY:
            again = (FileState.ERROR, FileState.DOWNLOAD_ERROR)
            model.files = [FileState.PENDING if state in again else state for state in model.files]
        model.end()

    @rule(number=st.integers(0, 9))
    @precondition(lambda self: self.orders and len(self.orders) < 3)
    def restart(self, number: int) -> None:
        order_id = self.one(number)
        model = self.orders[order_id]
        work = self.shop.actions.restart(MINE, SCIENTIST, order_id, NO_WISH)
        if model.status is Status.DELETED:
            with pytest.raises(Exception, match="doesn't exist"):
                self.run(work)
        elif model.status not in RULES[Action.RESTART].statuses:
            with pytest.raises(RefusedError):
                self.run(work)
        else:
            new = self.run(work)
            self.orders[new] = Model(Status.RUNNING, [FileState.PENDING] * FILES, model.copies)

    @rule()
    def claim(self) -> None:
        """A worker takes something, and has not finished yet."""
        claim = self.run(queue.claim(self.shop.database, 3600))
        able = [model for model in self.orders.values() if model.status is Status.RUNNING]
        in_hand = {(order, number) for _, order, numbers in self.claims for number in numbers}
        if claim is None:
            for order_id, model in self.orders.items():
                if model in able:
                    left = {n for n, state in enumerate(model.files) if state is FileState.PENDING}
                    assert all((order_id, n) in in_hand or (order_id, n ^ 1) in in_hand for n in left)
            return
        assert claim.order_id in self.orders
        numbers = {
            file_id - (claim.order_id << 24) - 1 for first, last in claim.ranges for file_id in range(first, last + 1)
        }
        assert not {(claim.order_id, number) for number in numbers} & in_hand, "nothing is given to two workers"
        self.claims.append((claim, claim.order_id, numbers))

    @rule(number=st.integers(0, 9))
    @precondition(lambda self: self.claims)
    def finish(self, number: int) -> None:
        claim, order_id, numbers = self.claims.pop(number % len(self.claims))

        async def work() -> Status | None:
            _, known = await queue.not_online(self.shop.database, claim)
            return await queue.finish(self.shop.database, claim, known, least=LEAST)

        status = self.run(work())
        model = self.orders.get(order_id)
        if model is None or model.status in (Status.EXPIRED, Status.DELETED):
            assert status is None, "what is over is not written to"
        else:
            model.prepare(numbers)
            assert status is model.status

    @rule(number=st.integers(0, 9))
    @precondition(lambda self: self.claims)
    def hand_back(self, number: int) -> None:
        """A worker is told to end: what it had waits again, or rests with its order."""
        claim, _, _ = self.claims.pop(number % len(self.claims))
        self.run(queue.hand_back(self.shop.database, claim))
        left = self.run(self.shop.connection.fetchval("SELECT count(*) FROM suborders WHERE lease = $1", claim.lease))
        assert left == 0

    @rule(number=st.integers(0, 9), writes_late=st.booleans())
    @precondition(lambda self: self.claims)
    def die(self, number: int, writes_late: bool) -> None:
        """A worker is killed, or only so slow that another one has taken over when it writes."""
        claim, _, _ = self.claims.pop(number % len(self.claims))
        self.run(
            self.shop.connection.execute(
                "UPDATE suborders SET due_at = now() - interval '1 day' WHERE lease = $1", claim.lease
            )
        )
        if writes_late:
            self.claim()
            self.run(
                self.shop.connection.execute(
                    "UPDATE suborders SET lease = gen_random_uuid() WHERE lease = $1", claim.lease
                )
            )
            assert self.run(queue.finish(self.shop.database, claim, {}, least=LEAST)) is None
            self.run(
                self.shop.connection.execute(
                    "UPDATE suborders SET due_at = now() - interval '1 day' WHERE state = 'RUNNING' "
                    "AND NOT lease = ANY ($1)",
                    [one.lease for one, _, _ in self.claims],
                )
            )

    @rule(number=st.integers(0, 9), file=st.integers(0, FILES - 1), well=st.booleans())
    @precondition(lambda self: self.orders)
    def download(self, number: int, file: int, well: bool) -> None:
        order_id = self.one(number)
        model = self.orders[order_id]
        becomes = FileState.DOWNLOADED if well else FileState.DOWNLOAD_ERROR
        over = model.status in (Status.EXPIRED, Status.DELETED)
        if over:
            return
        self.run(self.shop.actions.mark((order_id << 24) + 1 + file, becomes))
        if model.files[file] in (FileState.AVAILABLE, FileState.DOWNLOADED, FileState.DOWNLOAD_ERROR):
            model.files[file] = becomes
        model.end()

    @rule(number=st.integers(0, 9))
    @precondition(lambda self: self.orders)
    def time_is_over(self, number: int) -> None:
        order_id = self.one(number)
        self.run(self.shop.connection.execute(NOW_OVER, order_id))
        self.run(upkeep.run(self.shop.database, self.shop.settings))
        model = self.orders[order_id]
        waiting = FileState.AVAILABLE in model.files and model.status in (Status.DONE, Status.DONE_WITH_WARNING)
        if waiting or model.status in (Status.RUNNING, Status.PAUSED):
            model.status = Status.EXPIRED

    @invariant()
    def all_is_as_in_the_model(self) -> None:
        rows = self.run(self.shop.connection.fetch("SELECT order_id, status FROM orders"))
        assert {row["order_id"]: row["status"] for row in rows} == {
            order_id: model.status.value for order_id, model in self.orders.items()
        }
        rows = self.run(self.shop.connection.fetch("SELECT order_file_id, state FROM order_files ORDER BY 1"))
        found: dict[int, list[str]] = {}
        for row in rows:
            found.setdefault(row["order_file_id"] >> 24, []).append(row["state"])
        for order_id, model in self.orders.items():
            if model.status not in (Status.EXPIRED, Status.DELETED):
                assert found[order_id] == [state.value for state in model.files], order_id
        self.run(self.shop.counts_agree())

    def teardown(self) -> None:
        """Left alone, workers bring every order to its end."""
        live = [model for model in self.orders.values() if model.status is Status.RUNNING]
        self.run(self.shop.connection.execute("UPDATE suborders SET due_at = now() WHERE state = 'RUNNING'"))
        workers = self.shop.workers(NoStager())
        while self.run(workers.step()):
            pass
        for model in live:
            model.prepare(set(range(FILES)))
        left = self.run(self.shop.connection.fetchval("SELECT count(*) FROM orders WHERE status = 'RUNNING'"))
        assert left == 0
        self.run(self.shop.counts_agree())


@contextlib.contextmanager
def opened(dsn: str) -> Iterator[type[Life]]:
    loop = asyncio.new_event_loop()
    shop = open_shop(dsn, suborder_files=2)
    try:
        opened_shop = loop.run_until_complete(shop.__aenter__())
        try:
            loop.run_until_complete(fill(opened_shop.connection, products=FILES, files=1))
            yield type("LifeOfOrders", (Life,), {"shop": opened_shop, "loop": loop})
        finally:
            loop.run_until_complete(shop.__aexit__(None, None, None))
    finally:
        loop.close()


def test_orders_live_by_the_rules_whatever_happens(database: str) -> None:
    with opened(database) as machine:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=EXAMPLES, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )

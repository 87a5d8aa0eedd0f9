"""Calls that share round trips to a neighbour.

While one round trip is under way, the calls that arrive wait and go together with the next one. Nothing holds a call
back: when no round trip is under way it goes at once, with what else arrived in the same turn of the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")

MOST_AT_ONCE = 64
"""Calls in one round trip."""
MOST_WAITING = 10_000
"""Calls that may wait: more cannot be answered within any deadline."""


@dataclasses.dataclass(eq=False, slots=True)
class _Call(Generic[Q, A]):
    question: Q
    answer: asyncio.Future[A]
    deadline: float


def is_no_answer(error: Exception) -> bool:
    """Whether ``error`` says that a neighbour cannot be reached, or gave no answer in time."""
    return isinstance(error, OSError)


class Batches(Generic[Q, A]):
    """Asks questions in batches. Made by `batching`, which ends it."""

    def __init__(
        self,
        ask_all: Callable[[Sequence[Q]], Awaitable[Sequence[A | Exception]]],
        *,
        seconds: float,
        lanes: int,
        of_all: Callable[[Exception], bool] = is_no_answer,
    ) -> None:
        """Prepare to ask.

        Args:
            ask_all: makes one round trip. It gives an answer or an error for each question, in their order, or raises
                what went wrong with all of them.
            seconds: that a call may take, and that a round trip may take.
            lanes: most round trips at a time. There is more than one only while a full batch waits, or while the last
                one takes long.
            of_all: whether an error that was raised speaks of the neighbour: all callers get it at once. Any other may
                be due to one question, so that each is asked again by itself; a neighbour that is down or just coming
                back would have to bear that many times as many questions.
        """
        self._ask_all = ask_all
        self._seconds = seconds
        self._lanes = lanes
        self._of_all = of_all
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Call[Q, A]] = deque()
        self._under_way: dict[asyncio.Task[None], list[_Call[Q, A]]] = {}
        self._last_departure = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, question: Q) -> asyncio.Future[A]:
        """Ask with the next round trip; whoever awaits the answer may be cancelled, which touches no other call.

        The answer raises TimeoutError when there is none in time or too many calls wait, what went wrong with all of
        the batch, or else with this very question, if need be asked by itself: whatever is wrong with another one in
        the batch stays there.
        """
        now = self._loop.time()
        call = _Call(question, self._loop.create_future(), now + self._seconds)
        if len(self._waiting) >= MOST_WAITING:
            call.answer.set_exception(TimeoutError("too many calls wait"))
            return call.answer
        self._waiting.append(call)
        if self._timer is None:
            self._timer = self._loop.call_at(call.deadline, self._give_up_late_ones)
        if not self._under_way or (len(self._under_way) < self._lanes and self._needs_another_lane(now)):
            task = self._loop.create_task(self._work())
            self._under_way[task] = []
            self._last_departure = now
        return call.answer

    async def close(self) -> None:
        """Give up whatever still waits."""
        if self._timer is not None:
            self._timer.cancel()
        for call in self._unanswered():
            call.answer.set_exception(TimeoutError("the gateway ends"))
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _needs_another_lane(self, now: float) -> bool:
        return len(self._waiting) >= MOST_AT_ONCE or now - self._last_departure > self._seconds / 8

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this is one
        try:
            while self._waiting:
                batch = self._under_way[task] = self._next_batch()
                self._last_departure = self._loop.time()
                await self._answer(batch)
        finally:
            del self._under_way[task]

    def _next_batch(self) -> list[_Call[Q, A]]:
        batch: list[_Call[Q, A]] = []
        while self._waiting and len(batch) < MOST_AT_ONCE:
            call = self._waiting.popleft()
            if not call.answer.done():
                batch.append(call)
        return batch

    async def _ask_in_time(self, questions: Sequence[Q]) -> Sequence[A | Exception]:
        """The answers to a batch. A connection that is found to be dead is no reason to fail: it is asked once more."""
        async with asyncio.timeout(self._seconds):
            try:
                return await self._ask_all(questions)
            except Exception as error:
                if not self._of_all(error) or isinstance(error, TimeoutError):
                    raise
            return await self._ask_all(questions)

    async def _answer(self, batch: list[_Call[Q, A]]) -> None:
        if not batch:
            return
        try:
            answers = await self._ask_in_time([call.question for call in batch])
            if len(answers) != len(batch):
                raise ValueError(f"{len(batch)} questions got {len(answers)} answers")
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to whoever asked
            if len(batch) == 1 or self._of_all(error):
                answers = [error] * len(batch)
            else:
                for call in batch:
                    await self._answer([] if call.answer.done() else [call])
                return
        for call, answer in zip(batch, answers, strict=True):
            if call.answer.done():
                continue
            if isinstance(answer, Exception):
                call.answer.set_exception(answer)
            else:
                call.answer.set_result(answer)

    def _give_up_late_ones(self) -> None:
        """One timer for all calls: each would be far more work than all the rest."""
        now = self._loop.time()
        left = []
        for call in self._unanswered():
            if call.deadline <= now:
                call.answer.set_exception(TimeoutError("no answer in time"))
            else:
                left.append(call.deadline)
        self._timer = self._loop.call_at(min(left), self._give_up_late_ones) if left else None

    def _unanswered(self) -> list[_Call[Q, A]]:
        calls = [call for batch in self._under_way.values() for call in batch] + list(self._waiting)
        return [call for call in calls if not call.answer.done()]


@contextlib.asynccontextmanager
async def batching(
    ask_all: Callable[[Sequence[Q]], Awaitable[Sequence[A | Exception]]],
    *,
    seconds: float,
    lanes: int,
    of_all: Callable[[Exception], bool] = is_no_answer,
) -> AsyncIterator[Batches[Q, A]]:
    """Batches that end with the block; see `Batches`."""
    batches = Batches(ask_all, seconds=seconds, lanes=lanes, of_all=of_all)
    try:
        yield batches
    finally:
        await batches.close()

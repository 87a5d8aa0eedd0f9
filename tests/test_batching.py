"""Calls that share round trips: each gets its own answer, whatever happens to the others."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence

import pytest

from gateway import batching as module
from gateway.batching import Batches, batching


class PoisonError(Exception):
    pass


class OverloadedError(Exception):
    pass


class Neighbour:
    """Doubles numbers; a round trip waits while ``open`` is not set."""

    def __init__(self) -> None:
        self.round_trips: list[list[int]] = []
        self.poison: set[int] = set()
        self.refused: set[int] = set()
        self.trouble: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def ask_all(self, questions: Sequence[int]) -> list[int | Exception]:
        self.round_trips.append(list(questions))
        await self.open.wait()
        await asyncio.sleep(0)
        if self.trouble is not None:
            raise self.trouble
        if self.poison.intersection(questions):
            raise PoisonError(*self.poison.intersection(questions))
        return [PoisonError(question) if question in self.refused else 2 * question for question in questions]


@contextlib.asynccontextmanager
async def asking(neighbour: Neighbour, *, seconds: float = 30, lanes: int = 1) -> AsyncIterator[Batches[int, int]]:
    async with batching(neighbour.ask_all, seconds=seconds, lanes=lanes) as batches:
        yield batches


async def turns(count: int = 5) -> None:
    """Let everything that can go on go on."""
    for _ in range(count):
        await asyncio.sleep(0)


async def ask(batches: Batches[int, int], question: int) -> int:
    return await batches.ask(question)


async def test_one_call_at_a_time_is_one_round_trip_each() -> None:
    neighbour = Neighbour()
    async with asking(neighbour) as batches:
        assert [await batches.ask(number) for number in range(5)] == [0, 2, 4, 6, 8]
    assert neighbour.round_trips == [[0], [1], [2], [3], [4]]


async def test_what_arrives_during_a_round_trip_goes_together_with_the_next() -> None:
    neighbour = Neighbour()
    neighbour.open.clear()
    async with asking(neighbour) as batches:
        first = batches.ask(0)
        await turns()
        rest = [batches.ask(number) for number in range(1, 6)]
        await turns()
        assert neighbour.round_trips == [[0]]
        neighbour.open.set()
        assert await asyncio.gather(first, *rest) == [0, 2, 4, 6, 8, 10]
    assert neighbour.round_trips == [[0], [1, 2, 3, 4, 5]]


async def test_calls_of_one_turn_go_together_and_a_batch_is_bounded() -> None:
    neighbour = Neighbour()
    async with asking(neighbour) as batches:
        assert await asyncio.gather(*(batches.ask(number) for number in range(200))) == list(range(0, 400, 2))
    assert [len(batch) for batch in neighbour.round_trips] == [64, 64, 64, 8]


async def test_a_poison_and_ten_who_leave_harm_none_of_the_others() -> None:
    chance = random.Random(11)
    for _ in range(20):
        neighbour = Neighbour()
        neighbour.open.clear()
        poison, *leaving = chance.sample(range(64), 11)
        neighbour.poison.add(poison)
        async with asking(neighbour) as batches:
            tasks = [asyncio.create_task(ask(batches, number)) for number in range(64)]
            await turns(chance.randrange(4))
            for number in leaving[:5]:
                tasks[number].cancel()
            await turns()
            for number in leaving[5:]:
                tasks[number].cancel()
            neighbour.open.set()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for number, result in enumerate(results):
            if number == poison:
                assert isinstance(result, PoisonError)
                assert result.args == (poison,)
            elif number in leaving:
                assert isinstance(result, asyncio.CancelledError)
            else:
                assert result == 2 * number
        # Whoever has left is not asked for again.
        assert len(neighbour.round_trips) <= 1 + 64 - 10


@pytest.mark.parametrize("trouble", [ConnectionRefusedError(), TimeoutError(), OverloadedError()])
async def test_what_speaks_of_the_neighbour_goes_to_all_callers_at_once(trouble: Exception) -> None:
    """A batch is asked once more, as nobody knows whether only a connection was dead; but not if it took too long."""
    neighbour = Neighbour()
    neighbour.trouble = trouble
    async with batching(
        neighbour.ask_all, seconds=30, lanes=1, of_all=lambda error: isinstance(error, OSError | OverloadedError)
    ) as batches:
        results = await asyncio.gather(*(batches.ask(number) for number in range(100)), return_exceptions=True)
        assert results == [trouble] * 100
        asked = [64, 36] if isinstance(trouble, TimeoutError) else [64, 64, 36, 36]
        assert [len(batch) for batch in neighbour.round_trips] == asked
        neighbour.trouble = None
        assert await batches.ask(1) == 2


async def test_an_error_for_one_question_is_its_own() -> None:
    neighbour = Neighbour()
    neighbour.refused.add(3)
    async with asking(neighbour) as batches:
        results = await asyncio.gather(*(batches.ask(number) for number in range(5)), return_exceptions=True)
    assert [results[number] for number in (0, 1, 2, 4)] == [0, 2, 4, 8]
    assert isinstance(results[3], PoisonError)
    assert neighbour.round_trips == [[0, 1, 2, 3, 4]]


async def test_a_question_that_fails_alone_is_not_asked_again() -> None:
    neighbour = Neighbour()
    neighbour.poison.add(7)
    async with asking(neighbour) as batches:
        with pytest.raises(PoisonError):
            await batches.ask(7)
        assert await batches.ask(8) == 16
    assert neighbour.round_trips == [[7], [8]]


async def test_everybody_gets_an_answer_or_an_error_in_time_when_a_round_trip_hangs() -> None:
    neighbour = Neighbour()
    neighbour.open.clear()
    async with asking(neighbour, seconds=0.05) as batches:
        first = batches.ask(0)
        await turns()
        results = await asyncio.gather(first, *(batches.ask(number) for number in range(100)), return_exceptions=True)
        assert {type(result) for result in results} == {TimeoutError}
        neighbour.open.set()
        assert await batches.ask(1) == 2
        for number in range(10):
            assert await batches.ask(number) == 2 * number


async def test_another_lane_is_taken_when_a_full_batch_waits() -> None:
    neighbour = Neighbour()
    neighbour.open.clear()
    async with asking(neighbour, lanes=2) as batches:
        calls = [batches.ask(number) for number in range(64)]
        await turns()
        calls += [batches.ask(number) for number in range(64, 127)]
        await turns()
        assert len(neighbour.round_trips) == 1
        calls += [batches.ask(number) for number in range(127, 300)]
        await turns()
        assert [len(batch) for batch in neighbour.round_trips] == [64, 64]
        neighbour.open.set()
        assert await asyncio.gather(*calls) == list(range(0, 600, 2))


async def test_another_lane_is_taken_when_a_round_trip_takes_long() -> None:
    neighbour = Neighbour()
    stuck = neighbour.open = asyncio.Event()
    async with asking(neighbour, seconds=8, lanes=2) as batches:
        hanging = batches.ask(0)
        await asyncio.sleep(1.05)
        neighbour.open = asyncio.Event()
        neighbour.open.set()
        assert await batches.ask(1) == 2
        assert not hanging.done()
        stuck.set()
        assert await hanging == 0


async def test_calls_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 100)
    neighbour = Neighbour()
    neighbour.open.clear()
    async with asking(neighbour) as batches:
        calls = [batches.ask(number) for number in range(100)]
        with pytest.raises(TimeoutError):
            await batches.ask(100)
        neighbour.open.set()
        assert await asyncio.gather(*calls) == list(range(0, 200, 2))


async def test_an_answer_too_few_is_nobodys_answer() -> None:
    async def forgets_one(questions: Sequence[int]) -> list[int | Exception]:
        return list(questions[1:])

    async with batching(forgets_one, seconds=30, lanes=1) as batches:
        results = await asyncio.gather(*(batches.ask(number) for number in range(3)), return_exceptions=True)
    assert {type(result) for result in results} == {ValueError}


async def test_nobody_waits_for_ever_at_the_end() -> None:
    neighbour = Neighbour()
    neighbour.open.clear()
    async with asking(neighbour) as batches:
        calls = [asyncio.create_task(ask(batches, number)) for number in range(100)]
        await turns()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in results} == {TimeoutError}

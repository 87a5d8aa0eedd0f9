"""What breaks between the gateway and an object store is healed, or seen by everyone; never is it hidden."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Coroutine

import aiohttp
import pytest

from gateway.identity.principal import Principal
from tests.harness import SCIENCE, SCIENTIST, Entry, bearer, principal
from tests.s3.strict.faults import End, Fault
from tests.upstream.conftest import MEBIBYTE, Stand, StandFactory

BYTES = random.Random(17).randbytes(3 * MEBIBYTE)
OTHER = random.Random(18).randbytes(3 * MEBIBYTE)
ENDS: list[End] = ["reset", "fin"]
AT_ONCE = 8
STALL_SECONDS = 0.8
"""Within which a store must go on. Nothing else may last as long, though `AT_ONCE` requests share the loop."""
ROUNDS = 20 if os.environ.get("GATEWAY_TEST_FULL") else 4
FAULTS, CHANGES = (70, 50) if os.environ.get("GATEWAY_TEST_FULL") else (20, 15)
"""Of fifty clients that leave."""


async def fetch(stand: Stand, entry: Entry, **fields: str) -> tuple[int, bytes | None]:
    """Status and body; None for a body that is seen to be broken."""
    try:
        response, body = await stand.gateway.get(entry.stac, SCIENTIST, **fields)
    except aiohttp.ClientPayloadError:
        return 200, None
    return response.status, body


async def drain(response: aiohttp.ClientResponse, received: bytearray) -> None:
    async for piece in response.content.iter_any():
        received += piece


async def charged(stand: Stand, who: Principal = SCIENTIST, *, less_than: int) -> tuple[int, int]:
    """Downloads and bytes, once fewer than ``less_than`` bytes are held."""
    for _ in range(100):
        usage = await stand.gateway.usage(who)
        if usage[1] < less_than:
            break
        await asyncio.sleep(0.02)
    return usage


def one_fault(stand: Stand, kind: str, at: int, *, key: str) -> Fault:
    faults = stand.strict.faults
    return {"reset": faults.reset_after, "stall": faults.stall_after, "short": faults.short_body}[kind](at, key=key)


async def some_at_once(work: Callable[[int], Coroutine[object, object, None]], count: int) -> None:
    """Do ``work`` for the numbers below ``count``, a few at a time: most of it is waiting."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def in_turn(number: int) -> None:
        async with slots:
            await work(number)

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(in_turn(number))


@pytest.mark.parametrize(
    ("tls", "verified"),
    [(False, True), (False, False), (True, True)],
    ids=["spliced", "verified on the way", "from TLS"],
)
@pytest.mark.timeout(180)
async def test_a_single_fault_is_not_noticed(stand_for: StandFactory, *, tls: bool, verified: bool) -> None:
    """At random offsets on each way that bytes take: resets, short bodies, and some stalls."""
    dice = random.Random(42)
    async with stand_for(tls=tls, storage_timeout=STALL_SECONDS) as stand:
        seen: list[str] = []
        entries = [
            await stand.object(BYTES, item=f"item-{number}", key=f"key-{number}", verified=verified)
            for number in range(FAULTS)
        ]

        async def break_once(number: int) -> None:
            kind, start, at = plan[number]
            fault = one_fault(stand, kind, at, key=f"key-{number}")
            fields = {"Range": f"bytes={start}-"} if start else {}
            status, body = await fetch(stand, entries[number], **fields)
            assert fault.hits == 1, (kind, status, len(body or b""))
            if (status, body) != (206 if start else 200, BYTES[start:]):
                seen.append(f"{number}: {kind}, {status}, {body and len(body)}")

        plan = []
        for _ in entries:
            kind = dice.choice(["reset", "reset", "short", "short", "stall"])
            start = dice.choice([0, 0, 0, dice.randrange(len(BYTES) - MEBIBYTE)])
            plan.append((kind, start, dice.randrange(1, len(BYTES) - start)))
        await some_at_once(break_once, len(plan))
        assert not seen
        assert not [request for request in stand.strict.requests if stand.strict.faults.next(request)]


@pytest.mark.parametrize("verified", [True, False], ids=["spliced", "verified on the way"])
@pytest.mark.timeout(120)
async def test_an_object_that_changes_meanwhile_is_never_spliced(stand_for: StandFactory, *, verified: bool) -> None:
    """The client keeps a correct beginning, and sees that it is no more than that."""
    dice = random.Random(43)
    async with stand_for(storage_timeout=10) as stand:
        entries = [
            await stand.object(BYTES, item=f"item-{number}", key=f"key-{number}", verified=verified)
            for number in range(CHANGES)
        ]
        plan = [(dice.randrange(1, len(BYTES) - 1), dice.choice(ENDS)) for _ in entries]

        async def change(number: int) -> None:
            at, end = plan[number]
            path = entries[number].stac
            stand.strict.faults.replace_after(at, OTHER, then=end, key=f"key-{number}")
            async with stand.gateway.session.get(f"{stand.gateway.url}{path}", headers=bearer(SCIENTIST)) as got:
                assert got.status == 200
                received = bytearray()
                with pytest.raises(aiohttp.ClientPayloadError):
                    await drain(got, received)
            assert bytes(received) == BYTES[: len(received)]
            assert len(received) < len(BYTES)
            assert (await fetch(stand, entries[number]))[0] == 502

        await some_at_once(change, len(plan))


@pytest.mark.timeout(120)
async def test_a_fault_before_the_first_byte_is_an_error_and_costs_nothing(stand_for: StandFactory) -> None:
    """A hundred of them, of every kind; the next request is served."""
    async with stand_for(storage_timeout=STALL_SECONDS) as stand:
        faults = stand.strict.faults
        kinds: list[Callable[[str], Fault]] = [
            lambda key: faults.reset_before_head(times=2, key=key),
            lambda key: faults.stall_before_head(times=2, key=key),
            lambda key: faults.internal_error(key=key),
            lambda key: faults.slow_down(key=key),
            lambda key: faults.reset_after(0, times=2, key=key),
            lambda key: faults.short_body(0, key=key),
            lambda key: faults.gzip(key=key),
            lambda key: faults.wrong_length(7, key=key),
            lambda key: faults.wrong_length(-7, key=key),
        ]
        entries = [await stand.object(BYTES, item=f"item-{number}", key=f"key-{number}") for number in range(100)]
        answers: dict[int, int] = {}

        async def fail(number: int) -> None:
            who = principal(f"user-{number}", SCIENCE)
            kinds[number % len(kinds)](f"key-{number}")
            response, body = await stand.gateway.get(entries[number].stac, who)
            answers[response.status] = answers.get(response.status, 0) + 1
            assert response.status in (502, 503, 504), (number, response.status, body[:200])
            assert int(response.headers["Retry-After"]) > 0
            assert b"Signature" not in body
            assert await charged(stand, who, less_than=1) == (0, 0)

        await some_at_once(fail, len(entries))
        assert sum(answers.values()) == 100
        faults.clear()
        # A storage that failed a moment ago is asked all the same when there is no other.
        entry = await stand.object(BYTES)
        assert await fetch(stand, entry) == (200, BYTES)


async def test_a_store_that_is_gone_is_an_error_and_costs_nothing(stand: Stand) -> None:
    entry = await stand.object(BYTES)
    async with stand.strict.refusing():
        response, _ = await stand.gateway.get(entry.stac, SCIENTIST)
        assert response.status == 503
        assert await charged(stand, less_than=1) == (0, 0)
    assert await fetch(stand, entry) == (200, BYTES)


async def test_an_object_of_another_size_than_the_catalogue_says_is_refused_before_the_first_byte(stand: Stand) -> None:
    entry = await stand.object(BYTES, size=len(BYTES) + 1, recorded=False)
    assert (await fetch(stand, entry))[0] == 502
    longer = await stand.object(BYTES, item="longer", key="longer")
    stand.strict.store.put("archive", "longer", BYTES + b"x")
    assert (await fetch(stand, longer))[0] == 502
    assert await charged(stand, less_than=1) == (0, 0)


async def test_a_body_that_is_longer_than_it_was_announced_ends_where_it_should(stand: Stand) -> None:
    entry = await stand.object(BYTES)
    stand.strict.faults.longer_body(1000)
    assert await fetch(stand, entry) == (200, BYTES)
    assert await fetch(stand, entry) == (200, BYTES)


async def test_what_is_missing_archived_or_forbidden_has_its_own_answer(stand: Stand) -> None:
    gone = await stand.object(BYTES, key="gone", item="gone")
    stand.strict.store.delete("archive", "gone")
    assert (await fetch(stand, gone))[0] == 404
    cold = await stand.object(BYTES, key="cold", item="cold")
    etag = stand.strict.store.find("archive", "cold").etag
    stand.strict.store.put("archive", "cold", BYTES, storage_class="GLACIER", etag=etag)
    assert (await fetch(stand, cold))[0] == 503  # it is restored first


async def test_clients_that_leave_leave_no_connection_behind(stand: Stand) -> None:
    """Hundreds of downloads that are given up (1,000 in full): nothing is drained, and nothing stays open."""
    entry = await stand.object(BYTES)
    for _ in range(ROUNDS):
        responses = await asyncio.gather(
            *(
                stand.gateway.session.get(f"{stand.gateway.url}{entry.stac}", headers=bearer(SCIENTIST))
                for _ in range(50)
            )
        )
        for response in responses:
            await response.content.read(1)
            response.close()
    for _ in range(200):
        if stand.strict.open_connections <= 32:  # as many as are kept for later requests
            break
        await asyncio.sleep(0.05)
    assert stand.strict.open_connections <= 32
    assert await fetch(stand, entry) == (200, BYTES)


async def test_several_ranges_are_put_together_from_the_store(stand: Stand) -> None:
    entry = await stand.object(BYTES)
    small, large = [(0, 10), (100, 200)], [(5, MEBIBYTE + 1), (len(BYTES) - 9, len(BYTES))]
    for ranges, spans in [("0-9,100-199", small), (f"5-{MEBIBYTE},-9", large)]:
        response, body = await stand.gateway.get(entry.stac, SCIENTIST, Range=f"bytes={ranges}")
        assert response.status == 206
        assert len(body) == int(response.headers["Content-Length"])
        for start, stop in spans:
            assert BYTES[start:stop] in body

"""Bytes come from whichever copy can give them, and never are two versions mixed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from gateway.delivery import content as content_module
from gateway.delivery.content import MOST_RESUMES, MOST_VAIN, Content
from gateway.delivery.source import Source
from gateway.hashing import Hashers, Proof
from gateway.http.evaluate import Span
from gateway.storage import CopyBrokenError, CopyChangedError, CopyNotFoundError, CopyUnavailableError, StorageError
from tests.delivery.scripted import CollectingClient, Fault, ScriptedStorage, source

BYTES = random.Random(11).randbytes(2000)
WRONG = BYTES[:1500] + bytes([BYTES[1500] ^ 1]) + BYTES[1501:]
WHOLE = Span(0, len(BYTES))
CHECKSUM = hashlib.sha256(BYTES).hexdigest()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_module, "PAUSE", 0.0)


def content_of(sources: Sequence[Source], begin_proof: Callable[[], Proof] | None = None) -> Content:
    return Content(sources, len(BYTES), storage_timeout=5, begin_proof=begin_proof)


async def deliver(content: Content, span: Span = WHOLE) -> tuple[bytes, StorageError | None]:
    """What a client gets, and the error that ends it, if one does."""
    client = CollectingClient()
    try:
        await content.open(span, at_once=False)
        await content.send(span, client.as_client)
    except StorageError as error:
        return bytes(client.received), error
    finally:
        content.close()
    assert client.transfer.sent == len(client.received)
    return bytes(client.received), None


def storage(*faults: Fault, name: str = "first", content: bytes = BYTES) -> ScriptedStorage:
    return ScriptedStorage(name, content, list(faults))


faults = st.one_of(
    st.builds(Fault, st.sampled_from(["unavailable", "missing", "offline", "changed", "replaced", "none"])),
    st.builds(Fault, st.sampled_from(["error", "ends"]), st.integers(0, len(BYTES))),
)
copies = st.lists(
    st.tuples(st.lists(faults, max_size=5), st.booleans(), st.sampled_from([BYTES, BYTES, WRONG])),
    min_size=1,
    max_size=3,
)
spans = st.one_of(
    st.just(WHOLE), st.tuples(st.integers(0, 1999), st.integers(1, 2000)).map(lambda it: Span(it[0], max(it)))
).filter(lambda span: span.start < span.stop)


@settings(max_examples=500 if "GATEWAY_TEST_FULL" in os.environ else 200, deadline=None)
@given(copies, spans)
def test_whatever_fails_a_delivery_is_right_or_seen_to_be_broken(
    described: list[tuple[list[Fault], bool, bytes]], span: Span
) -> None:
    """Copies fail by any script, are recorded or not, and may hold wrong bytes: these show on whole deliveries only.

    Of a copy that nobody recorded, nobody can say at first that it was replaced.
    """
    storages = [
        storage(
            *[fault for fault in script if recorded or fault.kind != "replaced"],
            name=f"copy-{number}",
            content=held if span == WHOLE else BYTES,
        )
        for number, (script, recorded, held) in enumerate(described)
    ]
    sources = [source(number, one, recorded=described[number][1], prove=True) for number, one in enumerate(storages)]

    async def run() -> None:
        hashers = Hashers()
        content = content_of(sources, lambda: hashers.proof("SHA-256", CHECKSUM))
        received, error = await deliver(content, span)
        hashers.close()
        expected = BYTES[span.start : span.stop]
        if error is None:
            assert received == expected
            event("whole")
        else:
            assert len(received) < len(expected)
            event(type(error).__name__)
        if all(one.content == BYTES for one in storages):
            assert received == expected[: len(received)]
        for one in storages:
            await one.close()
        for proved, _, holds in content.proved:
            assert holds == (storages[proved.copy_id].content == BYTES)

    asyncio.run(run())


@given(st.integers(0, len(BYTES)), st.sampled_from(["error", "ends"]), spans)
def test_a_single_fault_is_never_noticed(after: int, kind: str, span: Span) -> None:
    async def run() -> None:
        first = storage(Fault(kind, after))  # type: ignore[arg-type]
        content = content_of([source(0, first)])
        client = CollectingClient()
        # A fault before the first byte is the business of the next copy: it is answered with an error, and no more.
        if after == 0:
            with pytest.raises(CopyUnavailableError):
                await content.open(span, at_once=False)
            return
        await content.open(span, at_once=False)
        await content.send(span, client.as_client)
        content.close()
        assert bytes(client.received) == BYTES[span.start : span.stop]

    asyncio.run(run())


async def test_the_next_copy_serves_where_the_first_cannot_be_opened() -> None:
    for kind in ("unavailable", "missing", "offline", "changed"):
        first, second = storage(Fault(kind)), storage(name="second")
        content = content_of([source(0, first), source(1, second)])
        assert await deliver(content) == (BYTES, None)
        assert [used.storage_name for used, _ in content.used] == ["second"]
        assert [one.storage_name for one in content.unavailable] == (["first"] if kind == "unavailable" else [])


async def test_without_any_copy_the_first_ones_error_is_told() -> None:
    content = content_of([source(0, storage(Fault("missing"))), source(1, storage(Fault("unavailable")))])
    received, error = await deliver(content)
    assert (received, type(error)) == (b"", CopyNotFoundError)


async def test_a_copy_that_breaks_off_is_resumed_and_then_left_for_the_next() -> None:
    script = [Fault("error", 300), *[Fault("unavailable")] * MOST_VAIN]
    first, second = storage(*script), storage(name="second")
    content = content_of([source(0, first), source(1, second)])
    assert await deliver(content) == (BYTES, None)
    assert [used.storage_name for used, _ in content.used] == ["first", "second"]
    assert not first.faults


async def test_a_changed_object_is_never_spliced() -> None:
    """The storage would give the rest of another version."""
    content = content_of([source(0, storage(Fault("error", 300), Fault("replaced")))])
    received, error = await deliver(content)
    assert (received, type(error)) == (BYTES[:300], CopyChangedError)


async def test_an_object_that_was_never_described_is_not_spliced_either() -> None:
    content = content_of([source(0, storage(Fault("error", 300), Fault("replaced")), recorded=False)])
    received, error = await deliver(content)
    assert (received, type(error)) == (BYTES[:300], CopyChangedError)


async def test_resumes_have_a_budget() -> None:
    first = storage(*[Fault("error", 10)] * 1000)
    received, error = await deliver(content_of([source(0, first)]))
    assert isinstance(error, CopyUnavailableError)
    assert received == BYTES[: 10 * (MOST_RESUMES + 1)]


async def test_a_copy_of_another_size_is_not_opened() -> None:
    short = storage(content=BYTES[:-1])
    content = content_of([source(0, short, recorded=False), source(1, storage(name="second"))])
    assert await deliver(content) == (BYTES, None)


async def test_wrong_bytes_are_held_back_and_cut() -> None:
    hashers = Hashers()
    content = content_of([source(0, storage(content=WRONG), prove=True)], lambda: hashers.proof("SHA-256", CHECKSUM))
    received, error = await deliver(content)
    hashers.close()
    assert isinstance(error, CopyBrokenError)
    assert len(received) < len(BYTES)
    assert [(used.copy_id, holds) for used, _, holds in content.proved] == [(0, False)]


async def test_wrong_bytes_of_a_small_span_are_replaced_by_the_next_copys() -> None:
    hashers = Hashers()
    sources = [source(0, storage(content=WRONG), prove=True), source(1, storage(name="second"), prove=True)]
    content = content_of(sources, lambda: hashers.proof("SHA-256", CHECKSUM))
    await content.open(WHOLE, at_once=True)
    assert await content.read(WHOLE) == BYTES
    content.close()
    hashers.close()
    assert [(used.copy_id, holds) for used, _, holds in content.proved] == [(0, False), (1, True)]


async def test_of_two_copies_that_gave_wrong_bytes_together_nobody_is_blamed() -> None:
    hashers = Hashers()
    first, second = storage(Fault("error", 300), Fault("missing")), storage(name="second", content=WRONG)
    content = content_of(
        [source(0, first, prove=True), source(1, second, prove=True)], lambda: hashers.proof("SHA-256", CHECKSUM)
    )
    received, error = await deliver(content)
    hashers.close()
    assert isinstance(error, CopyBrokenError)
    assert len(received) < len(BYTES)
    assert content.proved == []
    assert [used.copy_id for used, _ in content.used] == [0, 1]

"""Never is more sent than is allowed, by whichever way bytes leave, and waiting for it costs nobody anything."""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.delivery import allowance as allowance_module
from gateway.delivery.allowance import AllowanceEndedError
from gateway.delivery.pace import Pace
from gateway.delivery.sender import SMALL_BYTES
from gateway.delivery.watch import ClientStalledError
from gateway.http.evaluate import Span
from tests.delivery.answering import BOUNDARY, WAYS, Answering, Marks, Outcome, answering
from tests.storage_plugins.conftest import authority
from tests.storage_plugins.support import descriptors, until
from tests.storage_plugins.web import Authority

__all__ = ["authority"]

BYTES = random.Random(17).randbytes(2 * 1024 * 1024 + 13)
WHOLE = Span(0, len(BYTES))

every_way = pytest.mark.parametrize("name", WAYS)


@pytest.fixture(autouse=True)
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance_module, "LOOK_SECONDS", 0.05)


def bytes_of(*spans: Span) -> list[bytes]:
    return [BYTES[span.start : span.stop] for span in spans]


def is_all_of(outcome: Outcome, *spans: Span) -> bool:
    """Whether it is a whole answer with these."""
    bodies = bytes_of(*spans)
    if len(spans) == 1:
        right = outcome.body == bodies[0]
    else:
        parts = outcome.body.split(f"--{BOUNDARY}".encode())[1:-1]
        right = [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts] == bodies
    length = sum(span.length for span in spans)
    return right and outcome.transfer.finished and outcome.transfer.sent == length


@every_way
def test_nothing_is_sent_beyond_the_mark_and_all_arrives(name: str, authority: Authority) -> None:
    """Whatever the spans and the marks: the transfer and the allowance check every step."""
    offsets = st.one_of(st.integers(0, len(BYTES)), st.sampled_from([0, 1, SMALL_BYTES, 256 * 1024, len(BYTES)]))
    spans = st.lists(
        st.tuples(offsets, offsets).filter(lambda it: it[0] != it[1]).map(lambda it: Span(min(it), max(it))),
        min_size=1,
        max_size=3,
    )

    @settings(max_examples=15, deadline=None)
    @given(st.one_of(st.just([WHOLE]), spans), st.lists(st.integers(1, len(BYTES)), max_size=8))
    def hold(spans: list[Span], marks: list[int]) -> None:
        length = sum(span.length for span in spans)
        stops = sorted({mark for mark in marks if mark < length})

        async def run() -> None:
            with tempfile.TemporaryDirectory() as directory:
                async with answering(WAYS[name], BYTES, Path(directory), authority) as (server, _):
                    allowance = Marks([*stops, length])
                    outcome = await server.get(*spans, allowance=allowance)
                    assert is_all_of(outcome, *spans)
                    assert allowance.waits == len(stops) + 1
                    if server.upstream is not None:
                        assert len(server.upstream.asked) == len(spans)

        asyncio.run(run())

    hold()


@every_way
async def test_of_a_whole_file_one_request_gives_all_whatever_the_marks(
    name: str, tmp_path: Path, authority: Authority
) -> None:
    marks = [1, 4096, 100_000, 100_001, 700_000, 1_500_000, len(BYTES) - 1, len(BYTES)]
    async with answering(WAYS[name], BYTES, tmp_path, authority) as (server, calls):
        allowance = Marks(marks)
        assert is_all_of(await server.get(WHOLE, allowance=allowance), WHOLE)
        assert allowance.waits == len(marks)
        assert calls.called
        if server.upstream is not None:
            assert [asked.fields["range"] for asked in server.upstream.asked] == [f"bytes=0-{len(BYTES) - 1}"]


@every_way
async def test_without_an_allowance_all_is_sent_at_once(name: str, tmp_path: Path, authority: Authority) -> None:
    async with answering(WAYS[name], BYTES, tmp_path, authority) as (server, calls):
        for spans in ([WHOLE], [Span(5, 6)], [Span(0, 700_000), Span(3, 9)]):
            assert is_all_of(await server.get(*spans), *spans)
        assert calls.called


@every_way
@pytest.mark.parametrize("spans", [[WHOLE], [Span(7, 1_200_007), Span(1_400_000, len(BYTES))]])
async def test_where_an_allowance_ends_the_client_has_all_that_was_granted_and_sees_the_break(
    name: str, spans: list[Span], tmp_path: Path, authority: Authority
) -> None:
    async with answering(WAYS[name], BYTES, tmp_path, authority) as (server, _):
        outcome = await server.get(*spans, allowance=Marks([10, 300_000, 1_299_999]))
        assert outcome.status == 200
        assert isinstance(outcome.transfer.problem, AllowanceEndedError)
        assert outcome.refused is None
        assert (outcome.transfer.sent, outcome.transfer.finished) == (1_299_999, False)
        assert len(outcome.body) < outcome.promised
        *whole, last = spans
        assert all(body in outcome.body for body in bytes_of(*whole))
        left = 1_299_999 - sum(span.length for span in whole)
        assert outcome.body.endswith(BYTES[last.start : last.start + left])
        assert not outcome.body.endswith(BYTES[last.start : last.start + left + 1])


@pytest.mark.parametrize("length", [100, SMALL_BYTES, len(BYTES)])
async def test_an_allowance_that_ends_before_the_first_byte_leaves_the_answer_to_the_caller(
    length: int, tmp_path: Path, authority: Authority
) -> None:
    async with answering(WAYS["splice"], BYTES, tmp_path, authority) as (server, _):
        outcome = await server.get(Span(0, length), allowance=Marks([]))
        assert outcome.status == 429
        assert isinstance(outcome.refused, AllowanceEndedError)
        assert (outcome.transfer.sent, outcome.transfer.problem) == (0, None)
        assert server.upstream is not None
        assert server.upstream.asked == []


async def test_a_small_answer_is_held_back_like_a_large_one(tmp_path: Path, authority: Authority) -> None:
    async with answering(WAYS["sendfile on the loop"], BYTES, tmp_path, authority) as (server, _):
        for spans in ([Span(0, 1000)], [Span(0, 1000), Span(5000, 6000)]):
            length = sum(span.length for span in spans)
            assert is_all_of(await server.get(*spans, allowance=Marks([length])), *spans)
            assert is_all_of(await server.get(*spans, allowance=Marks([1, 300, length])), *spans)
        outcome = await server.get(Span(0, 1000), allowance=Marks([300]))
        assert (outcome.body, outcome.transfer.sent) == (BYTES[:300], 300)
        assert isinstance(outcome.transfer.problem, AllowanceEndedError)


async def test_an_answer_without_bytes_asks_for_none(tmp_path: Path, authority: Authority) -> None:
    async with answering(WAYS["sendfile on the loop"], BYTES, tmp_path, authority) as (server, _):
        allowance = Marks([])
        outcome = await server.get(allowance=allowance)
        assert (outcome.status, outcome.body, outcome.transfer.finished) == (200, b"", True)
        assert allowance.waits == 0


@pytest.mark.parametrize("name", ["sendfile on the loop", "sendfile in threads", "splice", "relay", "stream to TLS"])
async def test_waiting_for_an_allowance_is_held_against_neither_client_nor_storage(
    name: str, tmp_path: Path, authority: Authority
) -> None:
    """The wait is longer than all that either may take."""
    hasty = Pace(send_timeout=0.5, min_rate=1e9, grace=0.5, storage_timeout=0.5)
    marks = [200_000, len(BYTES)]
    async with answering(WAYS[name], BYTES, tmp_path, authority) as (server, _):
        outcome = await server.get(WHOLE, allowance=Marks(marks, pause=0.6), pace=hasty)
        assert outcome.transfer.problem is None
        assert is_all_of(outcome, WHOLE)
        assert server.upstream is None or len(server.upstream.asked) == 1


@pytest.mark.parametrize("name", ["sendfile on the loop", "splice", "relay", "pieces", "stream to TLS"])
async def test_a_client_that_stalls_is_cut_whatever_it_is_allowed(
    name: str, tmp_path: Path, authority: Authority
) -> None:
    content = bytes(32 * 1024 * 1024)
    async with answering(WAYS[name], content, tmp_path, authority) as (server, _):
        pace = Pace(send_timeout=0.3, min_rate=0, grace=0, storage_timeout=5)
        path = server.plan(Span(0, len(content)), allowance=Marks([1, len(content)]), pace=pace)
        reader, writer = await server.connect(path)
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        assert await asyncio.wait_for(server.asked(path).done, 10) is None
        assert isinstance(server.asked(path).transfer.problem, ClientStalledError)
        writer.transport.abort()


class Never:
    """Grants some bytes, and then says nothing."""

    def __init__(self, mark: int) -> None:
        self.mark = mark
        self.waiting = asyncio.Event()
        self.left = False

    def granted(self) -> int:
        return self.mark

    async def more(self) -> None:
        self.waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.left = True


async def waiting(server: Answering, mark: int) -> tuple[str, Never, asyncio.StreamReader, asyncio.StreamWriter]:
    """An answer that waits at ``mark``."""
    allowance = Never(mark)
    path = server.plan(WHOLE, allowance=allowance)
    reader, writer = await server.connect(path)
    await asyncio.wait_for(allowance.waiting.wait(), 5)
    return path, allowance, reader, writer


@every_way
@pytest.mark.parametrize("mark", [0, 700_000])
async def test_cancelled_while_it_waits_it_leaves_nothing_behind(
    name: str, mark: int, tmp_path: Path, authority: Authority
) -> None:
    async with answering(WAYS[name], BYTES, tmp_path, authority) as (server, _):
        assert is_all_of(await server.get(Span(0, 10)), Span(0, 10))
        before = len(descriptors())
        path, allowance, reader, writer = await waiting(server, mark)
        asked = server.asked(path)
        assert asked.task is not None
        asked.task.cancel()
        received = await asyncio.wait_for(reader.read(), 5)
        assert received.partition(b"\r\n\r\n")[2] == BYTES[:mark]
        with pytest.raises(asyncio.CancelledError):
            await asked.done
        assert (allowance.left, asked.transfer.sent) == (True, mark)
        writer.transport.abort()
        await until(lambda: len(descriptors()) <= before)
        assert is_all_of(await server.get(WHOLE, allowance=Marks([5, len(BYTES)])), WHOLE)


@every_way
@pytest.mark.parametrize("mark", [0, 700_000])
async def test_a_client_that_leaves_is_not_waited_for(
    name: str, mark: int, tmp_path: Path, authority: Authority
) -> None:
    async with answering(WAYS[name], BYTES, tmp_path, authority) as (server, _):
        path, allowance, _, writer = await waiting(server, mark)
        writer.transport.abort()
        assert await asyncio.wait_for(server.asked(path).done, 5) is None
        assert isinstance(server.asked(path).transfer.problem, ConnectionError)
        assert allowance.left


async def test_an_allowance_may_time_out_by_itself(tmp_path: Path, authority: Authority) -> None:
    """Its own TimeoutError is not taken for a client that is gone."""

    class Defect(Never):
        async def more(self) -> None:
            raise TimeoutError

    async with answering(WAYS["splice"], BYTES, tmp_path, authority) as (server, _):
        path = server.plan(WHOLE, allowance=Defect(1000))
        reader, writer = await server.connect(path)
        received = await asyncio.wait_for(reader.read(), 5)
        assert received.partition(b"\r\n\r\n")[2] == BYTES[:1000]
        with pytest.raises(TimeoutError):
            await server.asked(path).done
        writer.transport.abort()

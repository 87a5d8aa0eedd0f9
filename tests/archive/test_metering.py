"""Which bytes of an archive count: by brute force."""

from __future__ import annotations

import asyncio
import datetime

from hypothesis import given
from hypothesis import strategies as st

from gateway.archive.layout import Layout, LayoutBuilder, MemberSpan
from gateway.archive.metering import Meter, Metered
from gateway.delivery.transfer import Transfer
from gateway.http.evaluate import Span

CREATED = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)


@st.composite
def archives(draw: st.DrawFn) -> tuple[Layout, list[bool], list[Span]]:
    builder, counts = LayoutBuilder(), []
    for number in range(draw(st.integers(1, 6))):
        counts.append(draw(st.booleans()))
        known = draw(st.booleans())
        size = draw(st.integers(0, 40))
        builder.add(f"{number}", size, 1 if known else None, None, identity="", key=counts[-1])
    builder.add_text("NOTICE.txt", b"missing", CREATED)
    layout = builder.finish(CREATED)
    spans = []
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, layout.length - 1))
        spans.append(Span(start, draw(st.integers(start + 1, layout.length))))
    return layout, [*counts, False], spans


def by_byte(layout: Layout, counts: list[bool], spans: list[Span]) -> list[int]:
    """Of each byte of the answer: the index of the member that it counts for, or -1."""
    owners = []
    for span in spans:
        crcs = layout.columns.crcs[:]
        for piece in layout.pieces(span.start, span.stop, crcs):
            if isinstance(piece, MemberSpan):
                owners += [piece.member if counts[piece.member] else -1] * piece.length
            else:
                owners += [-1] * len(piece)
    return owners


@given(archives())
def test_bytes_that_count_are_those_of_members_that_do(made: tuple[Layout, list[bool], list[Span]]) -> None:
    layout, counts, spans = made
    owners = by_byte(layout, counts, spans)
    meter = Meter(layout, spans, bool)
    assert meter.total == sum(owner >= 0 for owner in owners)
    for sent in range(len(owners) + 1):
        assert meter.counted(sent) == sum(owner >= 0 for owner in owners[:sent])
    for counted in range(meter.total + 1):
        reached = meter.reach(counted)
        assert meter.counted(reached) == counted
        if counted < meter.total:
            assert owners[reached] >= 0, "the next one would be one too many"
        else:
            assert reached == len(owners)
    first = next((owner for owner in owners if owner >= 0), None)
    assert meter.first() == first
    assert set(meter.members()) == {owner for owner in owners if owner >= 0}


class Granting:
    def __init__(self, most: int) -> None:
        self.most = most

    def granted(self) -> int:
        return self.most

    async def more(self) -> None:
        self.most += 1


@given(archives())
def test_no_more_is_granted_than_what_counts_is(made: tuple[Layout, list[bool], list[Span]]) -> None:
    layout, _, spans = made
    meter = Meter(layout, spans, bool)
    whole, counting, inner = Transfer(sum(span.length for span in spans)), Transfer(meter.total), Granting(0)
    metered = Metered(meter, inner, counting, whole)

    async def send() -> None:
        while True:
            granted = metered.granted()
            assert granted >= whole.sent
            whole.sent = granted
            metered.note()
            assert counting.sent == inner.most
            if whole.sent == whole.promised:
                return
            await metered.more()

    asyncio.run(send())
    assert counting.sent == meter.total

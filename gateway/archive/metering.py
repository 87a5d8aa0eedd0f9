"""Which bytes of an archive count in quotas: those of the content of members that do, and no others. Pure."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence

from gateway.archive.layout import Layout
from gateway.delivery.allowance import Allowance
from gateway.delivery.transfer import Transfer
from gateway.http.evaluate import Span


class Meter:
    """Tells, for one answer, how many of its first bytes count, and how far so many bytes that count reach."""

    def __init__(self, layout: Layout, spans: Sequence[Span], counts: Callable[[int], bool]) -> None:
        """The answer has ``spans``, one after the other; ``counts`` says of a member's key whether it counts."""
        self._layout = layout
        self._spans = spans
        self._before = array("Q", [0])  # Bytes that count of all members before each.
        columns = layout.columns
        total = 0
        for size, key in zip(columns.sizes, columns.keys, strict=True):
            total += size if counts(key) else 0
            self._before.append(total)
        self.total = sum(self._within(span.start, span.stop) for span in spans)
        """Bytes of the answer that count."""

    def counted(self, sent: int) -> int:
        """How many of the first ``sent`` bytes of the answer count."""
        found = 0
        for span in self._spans:
            length = min(sent, span.length)
            found += self._within(span.start, span.start + length)
            sent -= length
            if sent <= 0:
                break
        return found

    def reach(self, counted: int) -> int:
        """Up to which byte the answer may be sent before more than ``counted`` bytes that count are."""
        reached = 0
        for span in self._spans:
            within = self._within(span.start, span.stop)
            if counted < within:
                return reached + self._offset(self._up_to(span.start) + counted) - span.start
            counted -= within
            reached += span.length
        return reached

    def first(self) -> int | None:
        """The index of the first member in the answer of which bytes count; None without any."""
        for span in self._spans:
            if self._within(span.start, span.stop):
                return bisect_right(self._before, self._up_to(span.start)) - 1
        return None

    def members(self) -> Iterator[int]:
        """The indices of members of which bytes that count are in the answer; for each span that they lie in."""
        for span in self._spans:
            first, last = self._up_to(span.start), self._up_to(span.stop)
            stop = min(self._layout.member_at(span.stop) + 1, len(self))
            for index in range(self._layout.member_at(span.start), stop):
                if self._before[index] < last and self._before[index + 1] > max(first, self._before[index]):
                    yield index

    def __len__(self) -> int:
        return len(self._before) - 1

    def _within(self, start: int, stop: int) -> int:
        return self._up_to(stop) - self._up_to(start)

    def _up_to(self, offset: int) -> int:
        """Bytes that count before ``offset`` of the archive."""
        index = self._layout.member_at(offset)
        if index == len(self):
            return self._before[index]
        before, after = self._before[index], self._before[index + 1]
        return before if after == before else min(max(offset - self._layout.content_of(index)[0], 0) + before, after)

    def _offset(self, counted: int) -> int:
        """Where the byte lies before which ``counted`` bytes of the archive count; there is one."""
        index = bisect_right(self._before, counted) - 1
        return self._layout.content_of(index)[0] + counted - self._before[index]


class Metered:
    """An `Allowance` of the bytes of an archive, from one of those bytes of it that count."""

    def __init__(self, meter: Meter, inner: Allowance, counting: Transfer, whole: Transfer) -> None:
        """``counting`` is told what is sent of what ``whole`` has sent."""
        self._meter = meter
        self._inner = inner
        self._counting = counting
        self._whole = whole

    def note(self) -> None:
        """Tell what is sent by now."""
        self._counting.sent = self._meter.counted(self._whole.sent)

    def granted(self) -> int:
        """See `Allowance`."""
        self.note()
        return self._meter.reach(self._inner.granted())

    async def more(self) -> None:
        """See `Allowance`."""
        await self._inner.more()

"""A token bucket that several draw from, each its fair part: who gets how much, and when. It does not wait itself."""

from __future__ import annotations

import dataclasses
import heapq

SECOND = 1_000_000_000
"""In nanoseconds. All is counted in whole numbers, so that nothing is lost or gained however long it runs."""
MIN_PIECE = 4096
"""Bytes that are given at least at once, unless fewer are wanted: a write costs much the same however small it is."""
PIECES_PER_SECOND = 8
"""How often everybody is given something, where the rate allows that with pieces that are not too small."""
BURSTS_PER_SECOND = 4
"""The burst is the bytes of this part of a second."""


@dataclasses.dataclass(slots=True, eq=False)
class Member:
    """One who draws from a bucket."""

    most: int | None
    """Bytes it will want in all, so that none are given in vain; None: nobody knows."""
    granted: int = 0
    """Bytes it was given."""
    turn: int = 0
    """Bytes that it had at the bucket's turn; see `TokenBucket`."""
    claim: int | None = None
    """The number under which it asks for a piece; None when it does not."""

    def wants(self, piece: int) -> int:
        """How much of ``piece`` it has a use for."""
        return piece if self.most is None else min(piece, self.most - self.granted)


class TokenBucket:
    """Gives bytes to its members, ``rate`` of them a second.

    Over any interval it gives at most ``rate`` bytes for each of its seconds and one `burst`. It begins empty, so that
    one who leaves and comes back gains nothing.

    Of those who ask, the one goes first who has got least since all began to ask (start-time fair queueing, Goyal, Vin
    and Cheng 1996): the bytes of those who keep asking differ by a piece at most, whatever the sizes of the pieces. One
    who comes, or comes back, is level with whoever is behind; what it did not ask for before is not made up for.
    """

    def __init__(self, rate: int, now: int) -> None:
        """Nothing is in it.

        Args:
            rate: bytes a second, at least 1.
            now: nanoseconds of any clock that never goes back.
        """
        self._rate = rate
        self._at = now
        self._level = 0  # Bytes times nanoseconds of a second.
        self._turn = 0
        self._claims = 0
        self._asking: list[tuple[int, int, Member]] = []
        self.members: set[Member] = set()

    @property
    def rate(self) -> int:
        """Bytes a second."""
        return self._rate

    @property
    def burst(self) -> int:
        """Bytes that may gather while nobody asks."""
        return max(MIN_PIECE, self._rate // BURSTS_PER_SECOND)

    @property
    def piece(self) -> int:
        """Bytes that one is given at once: smaller ones with more members, so that nobody waits long for the next."""
        return max(MIN_PIECE, self._rate // (PIECES_PER_SECOND * max(len(self.members), 1)))

    def change_rate(self, rate: int, now: int) -> None:
        """Give ``rate`` bytes a second (at least 1) from ``now`` on."""
        self._refill(now)
        self._rate = rate
        self._level = min(self._level, self.burst * SECOND)

    def join(self, most: int | None = None) -> Member:
        """Have a new member, who will want ``most`` bytes in all."""
        member = Member(most, turn=self._turn)
        self.members.add(member)
        return member

    def leave(self, member: Member) -> None:
        """Let a member go. A second call does nothing."""
        self.withdraw(member)
        self.members.discard(member)

    def ask(self, member: Member) -> None:
        """Have ``member``, who wants more, given a piece when its turn comes; asking again before changes nothing."""
        if member.claim is None:
            self._claims += 1
            member.claim, member.turn = self._claims, max(member.turn, self._turn)
            heapq.heappush(self._asking, (member.turn, member.claim, member))

    def withdraw(self, member: Member) -> None:
        """Have ``member`` ask no more."""
        member.claim = None

    def serve(self, now: int) -> list[Member]:
        """Give pieces to those whose turn it is, as far as there are bytes; returns who got one."""
        self._refill(now)
        served = []
        while (member := self._next()) is not None:
            count = member.wants(self.piece)
            if count * SECOND > self._level:
                break
            heapq.heappop(self._asking)
            self._level -= count * SECOND
            self._turn = member.turn
            member.turn += count
            member.granted += count
            member.claim = None
            served.append(member)
        return served

    def wait(self) -> int | None:
        """Nanoseconds from the last `serve` until there is a piece for the next one; None when nobody asks."""
        member = self._next()
        if member is None:
            return None
        missing = member.wants(self.piece) * SECOND - self._level
        return max(-(-missing // self._rate), 0)

    def _refill(self, now: int) -> None:
        passed, self._at = max(now - self._at, 0), max(now, self._at)
        self._level = min(self._level + passed * self._rate, self.burst * SECOND)

    def _next(self) -> Member | None:
        while self._asking:
            _, claim, member = self._asking[0]
            if member.claim == claim:
                return member
            heapq.heappop(self._asking)  # It was withdrawn.
        return None

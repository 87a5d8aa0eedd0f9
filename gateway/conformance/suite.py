"""What a check is, what it finds, and how all of them run."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Literal

from gateway.conformance.asking import MOST_HOPS, Answer, Asking, NoAnswerError, joined
from gateway.conformance.walking import Subject

Outcome = Literal["pass", "fail", "warning", "skip"]


class WrongError(Exception):
    """The server breaks a rule: the message says what was seen and what would be right."""


class UnusualError(Exception):
    """The server does what is allowed, and what clients will stumble over."""


class SkippedError(Exception):
    """This cannot be checked here; the message says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fetched:
    """An answer, and the redirects before it."""

    first: Answer
    last: Answer

    @property
    def is_redirected(self) -> bool:
        """Whether there was one."""
        return self.first is not self.last


@dataclasses.dataclass(slots=True)
class Run:
    """What checks ask, and what they share."""

    asking: Asking
    subject: Subject
    _plain: Fetched | WrongError | NoAnswerError | None = None
    """What the plain GET gave, once it was asked for."""

    async def fetch(self, headers: Mapping[str, str] | None = None, *, read: bool = True) -> Fetched:
        """GET the asset as a client does: through redirects, on which no token is shown.

        Raises:
            WrongError: they do not end, or lead nowhere.
        """
        first = answer = await self.asking.ask("GET", self.subject.url, headers, read=read)
        for _ in range(MOST_HOPS):
            if answer.status not in (301, 302, 303, 307, 308):
                return Fetched(first, answer)
            answer = await self.asking.ask("GET", self.target(answer), headers, token="", read=read)
        raise WrongError(f"more than {MOST_HOPS} redirects")

    async def plain(self) -> Fetched:
        """What the plain GET of the asset gives; asked once.

        Raises:
            WrongError: its redirects do not end, or lead nowhere.
            NoAnswerError: there is no answer.
        """
        if self._plain is None:
            try:
                self._plain = await self.fetch()
            except (WrongError, NoAnswerError) as error:
                self._plain = error
        if isinstance(self._plain, Exception):
            raise self._plain
        return self._plain

    async def get(self) -> Fetched:
        """The same, for what looks at bytes.

        Raises:
            SkippedError: it gives none, as another check says.
        """
        with contextlib.suppress(WrongError, NoAnswerError):
            fetched = await self.plain()
            if fetched.last.status == 200:
                return fetched
        raise SkippedError("there is no download to look at")

    @staticmethod
    def target(answer: Answer) -> str:
        """Where a redirect leads.

        Raises:
            WrongError: nowhere.
            NoAnswerError: to no URL.
        """
        location = answer.headers.get("Location", "")
        if not location:
            raise WrongError(f"{answer.status} without a Location")
        return joined(answer.url, location)


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One rule."""

    name: str
    source: str
    """Where the rule is written."""
    look: Callable[[Run], Awaitable[None]]
    """Raises `WrongError`, `UnusualError` or `SkippedError`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What a check found."""

    name: str
    source: str
    outcome: Outcome
    text: str
    seconds: float


async def results_of(
    checks: Sequence[Check], run: Run, clock: Callable[[], float] = time.monotonic
) -> AsyncGenerator[Result]:
    """Each check in turn; none keeps another from running."""
    for check in checks:
        began = clock()
        outcome: Outcome = "pass"
        text = ""
        try:
            await check.look(run)
        except (WrongError, NoAnswerError) as error:
            outcome, text = "fail", str(error)
        except UnusualError as error:
            outcome, text = "warning", str(error)
        except SkippedError as error:
            outcome, text = "skip", str(error)
        yield Result(check.name, check.source, outcome, text, clock() - began)

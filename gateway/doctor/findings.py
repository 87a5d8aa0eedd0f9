"""What ``gateway doctor`` finds, and how it looks at everything at once."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Literal

Level = Literal["ok", "warning", "problem"]

_GRACE_SECONDS = 1.0
"""What a check that ran out of time gets to give back what it holds."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. Neither text holds a secret."""

    level: Level
    text: str
    """What is there."""
    remedy: str = ""
    """What to change, unless all is well."""


Findings = AsyncGenerator[Finding, None]


def ok(text: str) -> Finding:
    """All is well."""
    return Finding("ok", text)


def warning(text: str, remedy: str) -> Finding:
    """It works, but not as well or as safely as it should."""
    return Finding("warning", text, remedy)


def problem(text: str, remedy: str) -> Finding:
    """Downloads fail, or will."""
    return Finding("problem", text, remedy)


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """Looks at one neighbour."""

    subject: str
    """What it looks at, as it is called in the configuration."""
    look: Callable[[], Findings]


def examine(checks: Sequence[Check], *, seconds: float) -> Iterator[tuple[str, Finding]]:
    """Run all checks at once, and give their subjects and findings in order, as soon as that is possible.

    One that takes longer than ``seconds`` is a problem of its subject, after what it had found until then.
    """
    runs = [_Run(check, seconds) for check in checks]
    for run in runs:
        for finding in run.findings():
            yield run.check.subject, finding


class _Run:
    """A check in a thread and on a loop of its own: a call that blocks, as in a dead mount, holds nothing else up."""

    def __init__(self, check: Check, seconds: float) -> None:
        self.check = check
        self._seconds = seconds
        self._found: list[Finding] = []
        self._done = threading.Event()
        threading.Thread(target=self._work, name=f"doctor-{check.subject}", daemon=True).start()

    def findings(self) -> list[Finding]:
        """All that was found, once the check or its time is over."""
        if self._done.wait(self._seconds + _GRACE_SECONDS):
            return self._found
        return [*self._found, self._late()]

    def _work(self) -> None:
        try:
            asyncio.run(self._look())
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything; the message might hold a secret
            self._found.append(problem(f"looking at it failed: {type(error).__name__}", "report this as a bug"))
        finally:
            self._done.set()

    async def _look(self) -> None:
        late = False
        try:
            async with asyncio.timeout(self._seconds) as limit, contextlib.aclosing(self.check.look()) as findings:
                async for finding in findings:
                    self._found.append(finding)
        except TimeoutError:
            late = limit.expired()
            if not late:
                raise
        if late:
            self._found.append(self._late())

    def _late(self) -> Finding:
        return problem(
            f"did not answer within {self._seconds:g} s", "see that it runs, and that this machine reaches it"
        )

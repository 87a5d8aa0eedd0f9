"""A run of the suite against a server, from the walk to the last check."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator

import aiohttp

from gateway.conformance.asking import Asking
from gateway.conformance.checks import CHECKS
from gateway.conformance.suite import Result, Run, results_of
from gateway.conformance.walking import Subject, Wanted, find


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Whom to test, and within which bounds."""

    root: str
    """URL of the STAC API, without a slash at its end."""
    token: str | None = dataclasses.field(repr=False)
    """Bearer token; None to ask anonymously."""
    seconds: float
    """That a request may take."""
    most_bytes: int
    """Of a body that are read."""


@contextlib.asynccontextmanager
async def conform(settings: Settings, wanted: Wanted) -> AsyncIterator[tuple[Subject, AsyncIterator[Result]]]:
    """What is tested with, and the results as they come.

    Raises:
        NoSubjectError: there is no asset to test with.
        NoAnswerError: the server does not answer at all.
    """
    async with aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()) as session:
        asking = Asking(
            session, settings.root, settings.token, seconds=settings.seconds, most_bytes=settings.most_bytes
        )
        subject = await find(asking, settings.root, wanted)
        async with contextlib.aclosing(results_of(CHECKS, Run(asking, subject))) as results:
            yield subject, results

"""Checks of errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.conformance.asking import Answer
from gateway.conformance.documents import EXTENSION
from gateway.conformance.suite import Check, Run, SkippedError, UnusualError, WrongError

_NOWHERE = "there-is-none-by-this-name-e5c1"
_EXCEPTION = f"{EXTENSION}, openapi.yaml#/components/schemas/exception"
_LEVELS = ("collection", "item", "asset")

Look = Callable[[Run], Awaitable[None]]


def _exception(answer: Answer) -> None:
    """See that an error is an ``exception``.

    Raises:
        WrongError: it is not.
    """
    status = answer.status
    if answer.media_type != "application/json":
        raise WrongError(f"{status} is {answer.media_type or 'without media type'}, not application/json")
    told = answer.json()
    if not isinstance(told, dict):
        kind = "no JSON" if told is None else f"a JSON {'string' if isinstance(told, str) else type(told).__name__}"
        raise WrongError(f"the body of {status} is {kind}, not an object with code and description")
    if not isinstance(told.get("code"), str):
        raise WrongError(f"the body of {status} has no code that is a string")
    if not isinstance(told.get("description", ""), str):
        raise WrongError(f"the description in the body of {status} is no string")


async def _ask_nowhere(run: Run, level: str, method: str = "GET") -> Answer:
    return await run.asking.ask(method, run.subject.at(**{level: _NOWHERE}))


def _unknown(level: str) -> Look:
    async def look(run: Run) -> None:
        answer = await _ask_nowhere(run, level)
        if answer.status == 200:
            raise WrongError(f"an unknown {level} is 200: clients would save the error as the file")
        if answer.status != 404:
            raise WrongError(f"an unknown {level} is {answer.status}, not 404")

    return look


def _told(level: str) -> Look:
    async def look(run: Run) -> None:
        answer = await _ask_nowhere(run, level)
        if answer.status < 400:
            raise SkippedError("it is not told as an error")
        _exception(answer)

    return look


async def _head(run: Run) -> None:
    answer = await _ask_nowhere(run, "asset", "HEAD")
    if answer.status != 404:
        raise UnusualError(f"HEAD of an unknown asset is {answer.status}, not 404")


async def _bad_token(run: Run) -> None:
    answer = await run.asking.ask("GET", run.subject.url, token="no.such.token")  # noqa: S106 - it is none
    if answer.status in (200, 307):
        raise SkippedError("the asset is for everybody")
    if answer.status < 400:
        raise WrongError(f"a token that does not hold is redirected by {answer.status}: programs cannot log in there")
    if answer.status == 401 and "WWW-Authenticate" not in answer.headers:
        raise WrongError("401 has no WWW-Authenticate")
    _exception(answer)


async def _no_token(run: Run) -> None:
    if run.asking.token is None:
        raise SkippedError("no token was given")
    answer = await run.asking.ask("GET", run.subject.url, token="")
    if answer.status in (200, 307):
        raise SkippedError("the asset is for everybody")
    if answer.status not in (401, 403, 404):
        raise WrongError(f"without the token the download is {answer.status}, not 401, 403 or 404")
    if answer.status == 401 and "WWW-Authenticate" not in answer.headers:
        raise WrongError("401 has no WWW-Authenticate")
    _exception(answer)


CHECKS = (
    *(Check(f"an unknown {level} is 404", f"{EXTENSION}, Endpoints", _unknown(level)) for level in _LEVELS),
    *(Check(f"an unknown {level} is told as an exception", _EXCEPTION, _told(level)) for level in _LEVELS),
    Check("HEAD of what is not there is 404", "RFC 9110 §9.3.2", _head),
    Check("a bad token is an exception", f"{_EXCEPTION}; RFC 9110 §15.5.2", _bad_token),
    Check("no token is an exception", f"{_EXCEPTION}; RFC 9110 §15.5.2", _no_token),
)

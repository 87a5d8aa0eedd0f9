"""Asks who shows a token."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from multidict import CIMultiDict, CIMultiDictProxy, MultiDict

from gateway.identity.jwt import BearerTokens
from gateway.identity.principal import Principal
from gateway.identity.shown import Shown

T = TypeVar("T")


def request(*fields: tuple[str, str], address: str = "192.0.2.7") -> Shown:
    """A request with these header fields."""
    return Shown(CIMultiDictProxy(CIMultiDict(fields)), MultiDict(), address)


async def identify(tokens: BearerTokens, token: str) -> Principal:
    """Who shows ``token``."""
    return await tokens.identify(token, request())


def identify_at_once(tokens: BearerTokens, token: str) -> Principal:
    """The same, which must not have to wait for anything."""
    return at_once(identify(tokens, token))


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` gives, which must not have to wait for anything but its turn."""
    try:
        while work.send(None) is None:
            pass
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise AssertionError("it waits")

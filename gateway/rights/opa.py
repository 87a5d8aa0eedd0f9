"""The policy ``opa``: Open Policy Agent decides, asked over HTTP by its Data API.

Each question is ``POST {url}`` with ``{"input": {"action", "caller", "product", "options"}}``; ``{"result": true}`` is
yes. ``{"result": false}`` and no result at all (an undefined decision) are no. Whatever else comes is no decision.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

from gateway.errors import ConfigurationError
from gateway.rights.policy import Caller, PolicyError, Product, Question

MOST_REMEMBERED = 10_000
"""Decisions that are kept."""
MOST_SECONDS = 60
"""That one may be kept."""
_AT_ONCE = 16
"""Connections to the agent."""
_MOST_BYTES = 64 * 1024
"""Of an answer."""


class OpenPolicyAgent:
    """See the module.

    Options: ``url`` of the decision, like ``http://127.0.0.1:8181/v1/data/downloads/allow``; ``cache_seconds``, for how
    long a decision is kept (default 5; 0 asks each time).
    """

    def __init__(self, url: str, cache_seconds: float) -> None:
        """Prepare to ask; an event loop must run."""
        self._url = url
        self._cache_seconds = cache_seconds
        self._clock = asyncio.get_running_loop().time
        self._decisions: dict[bytes, tuple[bool, float]] = {}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_AT_ONCE), cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
        )

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, object]) -> Self:  # noqa: ARG003 - of the protocol
        """See the class.

        Raises:
            ConfigurationError: an option is unknown, missing or wrong.
        """
        unknown = sorted(set(options) - {"url", "cache_seconds"})
        if unknown:
            raise ConfigurationError(f"{', '.join(unknown)}: no such option of plug-in 'opa' (url, cache_seconds)")
        url, cache_seconds = options.get("url"), options.get("cache_seconds", 5)
        if not isinstance(url, str) or not _is_url(url):
            raise ConfigurationError("url: must be that of a decision: 'http://127.0.0.1:8181/v1/data/downloads/allow'")
        seconds = cache_seconds if isinstance(cache_seconds, int | float) else -1
        if isinstance(cache_seconds, bool) or not 0 <= seconds <= MOST_SECONDS:
            raise ConfigurationError(f"cache_seconds: must be a number from 0 to {MOST_SECONDS}")
        return cls(url, seconds)

    async def decide(self, questions: Sequence[Question]) -> list[bool]:
        """What the agent says, each different question asked once."""
        inputs = [_input(question) for question in questions]
        now = self._clock()
        known = {text: decision for text in inputs if (decision := self._remembered(text, now)) is not None}
        unknown = [text for text in dict.fromkeys(inputs) if text not in known]
        # All are waited for, so that nothing runs on when one fails, and what was decided is kept.
        answers = await asyncio.gather(*(self._ask(text) for text in unknown), return_exceptions=True)
        for text, answer in zip(unknown, answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            known[text] = answer
        return [known[text] for text in inputs]

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _ask(self, text: str) -> bool:
        asked_at = self._clock()
        try:
            async with self._session.post(
                self._url, data=text.encode(), headers={"Content-Type": "application/json"}, allow_redirects=False
            ) as response:
                if response.status != HTTPStatus.OK:
                    raise PolicyError(f"the agent answers {response.status}")
                answer = json.loads(await _read(response))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Its text may hold the URL, and that a secret.
            raise PolicyError(f"the agent gives no answer: {type(error).__name__}") from None
        decision = answer.get("result", False) if isinstance(answer, dict) else None
        if not isinstance(decision, bool):
            raise PolicyError("the agent's result is neither true nor false; does the URL name a decision?")
        self._remember(text, decision, asked_at + self._cache_seconds)
        return decision

    def _remembered(self, text: str, now: float) -> bool | None:
        decision, until = self._decisions.get(_key(text), (None, 0.0))
        return decision if now < until else None

    def _remember(self, text: str, decision: bool, until: float) -> None:
        # The oldest stand first: they are made anew at the end.
        key = _key(text)
        self._decisions.pop(key, None)
        self._decisions[key] = decision, until
        if len(self._decisions) > MOST_REMEMBERED:
            del self._decisions[next(iter(self._decisions))]


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = b""
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > _MOST_BYTES:
            raise PolicyError("the agent's answer is too long")
    return body


def _input(question: Question) -> str:
    """The body of the request; equal for equal questions."""
    told = {
        "action": question.action,
        "caller": _members(question.caller) | {"groups": sorted(question.caller.groups)},
        "product": _members(question.product),
        "options": question.options,
    }
    return json.dumps({"input": told}, sort_keys=True, separators=(",", ":"))


def _key(text: str) -> bytes:
    """What a decision is kept by: questions are as long as products have properties."""
    return hashlib.sha256(text.encode()).digest()


def _members(value: Caller | Product) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0

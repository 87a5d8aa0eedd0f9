"""Where to log in is asked for once for everybody, and what is known is not waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from gateway.errors import GatewayError
from gateway.identity.discovery import NotFetchedError
from gateway.identity.endpoints import FRESH_SECONDS, PAUSE_SECONDS, Endpoints, FoundEndpoints, endpoints

TOLD = {"authorization_endpoint": "https://idp.example.org/a", "token_endpoint": "https://idp.example.org/t"}
ENDPOINTS = Endpoints(TOLD["authorization_endpoint"], TOLD["token_endpoint"])


class Provider:
    def __init__(self) -> None:
        self.now = 1000.0
        self.asked = 0
        self.away = False
        self.answers = asyncio.Event()
        self.answers.set()
        self.found = FoundEndpoints(self.fetch, lambda: self.now)

    async def fetch(self) -> Mapping[str, str]:
        self.asked += 1
        await self.answers.wait()
        if self.away:
            raise NotFetchedError("it is away")
        return TOLD


async def test_all_who_wait_wait_for_the_same_answer_and_whoever_goes_away_ends_it_for_nobody() -> None:
    provider = Provider()
    provider.answers.clear()
    asking = [asyncio.create_task(provider.found.find()) for _ in range(10)]
    await asyncio.sleep(0)
    asking.pop().cancel()
    provider.answers.set()
    assert await asyncio.gather(*asking) == [ENDPOINTS] * 9
    assert await provider.found.find() == ENDPOINTS
    assert provider.asked == 1


async def test_what_is_known_is_told_at_once_while_it_is_asked_for_again() -> None:
    provider = Provider()
    await provider.found.find()
    provider.answers.clear()
    provider.now += FRESH_SECONDS
    for _ in range(3):
        async with asyncio.timeout(5):
            assert await provider.found.find() == ENDPOINTS
        await asyncio.sleep(0)
    assert provider.asked == 2
    await provider.found.close()


async def test_a_provider_that_is_away_is_asked_again_after_a_pause() -> None:
    provider = Provider()
    provider.away = True
    for _ in range(5):
        with pytest.raises(GatewayError, match="does not answer"):
            await provider.found.find()
    assert provider.asked == 1
    provider.away = False
    provider.now += PAUSE_SECONDS
    assert await provider.found.find() == ENDPOINTS


async def test_leaving_ends_what_is_under_way() -> None:
    provider = Provider()
    provider.answers.clear()
    async with endpoints(provider.fetch) as found:
        asking = asyncio.create_task(found.find())
        while not provider.asked:
            await asyncio.sleep(0)
    with pytest.raises(GatewayError):
        await asking
    assert len(asyncio.all_tasks()) == 1

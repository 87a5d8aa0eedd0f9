"""Keys come and go at the identity provider; the gateway follows, without letting anybody make it ask too often."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import pytest
from aiohttp import web

from gateway.config import Issuer
from gateway.errors import GatewayError
from gateway.identity.claims import ClaimMapping
from gateway.identity.discovery import KeySet, fetch_keys, key_client, trust
from gateway.identity.jwks import MOST_KEYS
from gateway.identity.jwt import BearerTokens, TokenIssuer
from gateway.identity.keys import StaticKeys, VerificationKey
from gateway.identity.networks import Networks
from gateway.identity.rotation import MOST_TRIED, RotatingKeys, rotating_keys
from tests.identity.asking import identify
from tests.identity.forge import EC_KEYS, OTHER_RSA_KEY, RSA_KEY, jwk
from tests.identity.provider import Provider, provider

NEXT = RSA_KEY
"""The key after the provider's first one."""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Stand:
    """A provider, and a gateway's part that trusts it, by a clock that the test moves."""

    def __init__(self, idp: Provider, keys: RotatingKeys, tokens: BearerTokens, clock: Clock) -> None:
        self.idp = idp
        self.keys = keys
        self.tokens = tokens
        self.clock = clock

    def publish(self, **keys: Any) -> None:
        self.idp.keys = [jwk(key.public_key(), kid=kid) for kid, key in keys.items()]

    def new_token(self, kid: str | None = "second", **changes: Any) -> str:
        return self.idp.token(kid, NEXT, "RS256", **changes)

    async def status(self, shown: str) -> HTTPStatus:
        try:
            await identify(self.tokens, shown)
        except GatewayError as error:
            return error.status
        return HTTPStatus.OK

    async def accepts(self, shown: str) -> bool:
        status = await self.status(shown)
        assert status in (HTTPStatus.OK, HTTPStatus.UNAUTHORIZED)
        return status is HTTPStatus.OK

    async def nobody_can_tell(self, shown: str) -> bool:
        return await self.status(shown) is HTTPStatus.SERVICE_UNAVAILABLE


@contextlib.asynccontextmanager
async def standing(idp: Provider, **settings: Any) -> AsyncIterator[Stand]:
    """Nothing is fetched of itself here."""
    clock = Clock()
    setting = idp.setting(**settings)
    async with key_client(trust(setting)) as session:
        keys = RotatingKeys(setting, functools.partial(fetch_keys, session, setting), clock)
        issuer = TokenIssuer(
            setting.issuer, setting.audience, tuple(setting.algorithms), keys, ClaimMapping.by(setting)
        )
        try:
            yield Stand(idp, keys, BearerTokens([issuer], 10, Networks(32, 64)), clock)
        finally:
            await keys.close()


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    async with provider() as idp, standing(idp, grace=100, max_stale=1000, cool_down=30) as it:
        yield it


async def test_the_first_token_has_the_keys_fetched_and_later_ones_have_not(stand: Stand) -> None:
    assert await stand.accepts(stand.idp.token())
    for number in range(10):
        assert await stand.accepts(stand.idp.token(sub=f"user-{number}"))
    assert await stand.accepts(stand.idp.token(None))
    assert stand.idp.fetches == 1


async def test_a_new_key_is_found_when_a_token_names_it(stand: Stand) -> None:
    assert await stand.accepts(stand.idp.token())
    stand.publish(first=EC_KEYS["ES256"], second=NEXT)
    assert not await stand.accepts(stand.new_token())
    stand.clock.now += 30
    assert await stand.accepts(stand.new_token())
    assert stand.idp.fetches == 2


async def test_a_key_that_vanished_is_accepted_within_its_grace_alone(stand: Stand) -> None:
    old = stand.idp.token()
    assert await stand.accepts(old)
    stand.publish(second=NEXT)
    stand.clock.now += 30
    assert await stand.accepts(stand.new_token())
    for seconds in (0, 99.9):
        stand.clock.now = 1030 + seconds
        assert await stand.accepts(old)
        assert await stand.accepts(stand.idp.token(sub=f"another-{seconds}"))
    stand.clock.now = 1130
    assert not await stand.accepts(stand.idp.token(sub="yet another"))
    assert await stand.accepts(stand.new_token())


async def test_the_grace_of_a_key_is_not_cut_and_not_renewed_by_what_is_fetched_meanwhile(stand: Stand) -> None:
    assert await stand.accepts(stand.idp.token())
    for number, accepted in ((1, True), (2, True), (3, True), (4, True), (5, False)):
        stand.publish(**{f"key-{number}": NEXT})
        stand.clock.now += 30
        assert await stand.accepts(stand.new_token(f"key-{number}"))
        assert stand.idp.fetches == 1 + number
        assert await stand.accepts(stand.idp.token(sub=f"user-{number}")) == accepted


async def test_a_remembered_token_does_not_outlive_the_grace_of_its_key() -> None:
    async with provider() as idp, standing(idp, grace=100, cool_down=30) as stand:
        start = stand.tokens._clock()
        stand.tokens._clock = lambda: start + stand.clock.now - 1000
        old = idp.token()
        assert await stand.accepts(old)
        stand.publish(second=NEXT)
        stand.clock.now += 30
        assert await stand.accepts(stand.new_token())
        assert await stand.accepts(old)
        stand.clock.now += 100
        assert not await stand.accepts(old)


async def test_without_grace_a_key_that_vanished_is_refused_at_once_remembered_tokens_included() -> None:
    async with provider() as idp, standing(idp, grace=0, cool_down=30) as stand:
        old = idp.token()
        assert await stand.accepts(old)
        stand.publish(second=NEXT)
        stand.clock.now += 30
        assert await stand.accepts(stand.new_token())
        assert not await stand.accepts(old)


async def test_a_key_that_comes_back_is_accepted_again_for_good(stand: Stand) -> None:
    assert await stand.accepts(stand.idp.token())
    stand.publish(second=NEXT)
    stand.clock.now += 30
    assert await stand.accepts(stand.new_token())
    stand.publish(first=EC_KEYS["ES256"], second=NEXT, third=OTHER_RSA_KEY)
    stand.clock.now += 30
    assert await stand.accepts(stand.idp.token("third", OTHER_RSA_KEY, "RS256"))
    stand.clock.now += 200
    assert await stand.accepts(stand.idp.token(sub="later"))


async def test_a_withdrawn_key_is_forgotten_after_its_grace(stand: Stand) -> None:
    assert await stand.accepts(stand.idp.token())
    for number in range(5):
        stand.publish(**{f"key-{number}": NEXT})
        stand.clock.now += 101
        assert await stand.accepts(stand.new_token(f"key-{number}"))
    assert len(stand.keys._held) == 2


async def test_a_provider_that_changes_its_keys_all_the_time_takes_no_more_than_so_much_memory() -> None:
    clock = Clock()
    names = itertools.count()

    async def fetch() -> KeySet:
        keys = (VerificationKey(("RS256",), RSA_KEY.public_key(), str(next(names))) for _ in range(MOST_KEYS))
        return KeySet(tuple(keys), 60)

    setting = Issuer(issuer="https://idp.example.org", audience="a", algorithms=["RS256"], cool_down=1)
    keys = RotatingKeys(setting, fetch, clock)
    for _ in range(5):
        clock.now += 60
        assert not await keys.find("unknown", "RS256")
    assert len(keys._held) <= 2 * MOST_KEYS
    assert await keys.find(str(next(names) - 1), "RS256")
    # Of those that were withdrawn the last ones are kept.
    assert await keys.find(str(3 * MOST_KEYS), "RS256")
    assert not await keys.find("0", "RS256")


async def test_another_key_under_the_same_name_takes_over_within_the_grace(stand: Stand) -> None:
    assert await stand.accepts(stand.idp.token())
    stand.publish(first=NEXT, second=OTHER_RSA_KEY)
    stand.clock.now += 30
    assert await stand.accepts(stand.idp.token("second", OTHER_RSA_KEY, "RS256"))
    assert await stand.accepts(stand.new_token("first"))
    assert await stand.accepts(stand.idp.token(sub="old"))


async def test_a_flood_of_unknown_kids_is_one_fetch_for_each_cool_down(stand: Stand) -> None:
    assert await stand.accepts(stand.idp.token())
    for round_number in range(1, 4):
        stand.clock.now += 30
        flood = (stand.accepts(stand.idp.token(f"unknown-{round_number}-{n}", sub=f"{n}")) for n in range(500))
        assert not any(await asyncio.gather(*flood))
        assert stand.idp.fetches == 1 + round_number
    assert await stand.accepts(stand.idp.token(sub="still good"))


async def test_a_flood_with_an_algorithm_that_is_not_accepted_is_no_fetch(stand: Stand) -> None:
    assert await stand.accepts(stand.idp.token())
    stand.clock.now += 30
    assert not await stand.accepts(stand.idp.token("unknown", EC_KEYS["ES384"], "ES384"))
    assert not await stand.accepts(stand.idp.token("unknown", signed_as="HS256"))
    assert stand.idp.fetches == 1


async def test_a_good_token_within_a_flood_waits_for_the_same_fetch(stand: Stand) -> None:
    assert await stand.accepts(stand.idp.token())
    stand.publish(second=NEXT)
    stand.clock.now += 30
    stand.idp.held = asyncio.Event()
    flood = [asyncio.create_task(stand.accepts(stand.idp.token(f"unknown-{n}"))) for n in range(50)]
    good = asyncio.create_task(stand.accepts(stand.new_token()))
    await asyncio.sleep(0)
    stand.idp.held.set()
    assert await good
    assert not any(await asyncio.gather(*flood))
    assert stand.idp.fetches == 2


async def test_who_goes_away_does_not_end_the_fetch_that_others_wait_for(stand: Stand) -> None:
    stand.idp.held = asyncio.Event()
    impatient = asyncio.create_task(stand.accepts(stand.idp.token()))
    patient = asyncio.create_task(stand.accepts(stand.idp.token(sub="patient")))
    while not stand.idp.fetches:
        await asyncio.sleep(0.001)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    stand.idp.held.set()
    assert await patient
    assert stand.idp.fetches == 1


async def test_while_the_provider_is_down_old_keys_are_used_up_to_a_bound_and_its_return_heals(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    assert await stand.accepts(stand.idp.token())
    usable_until = 1000 + 300 + 1000
    stand.idp.answer = _failing
    stand.clock.now = usable_until - 0.1
    assert await stand.accepts(stand.idp.token(sub="within"))
    stand.clock.now = usable_until
    with caplog.at_level(logging.WARNING, "gateway"):
        assert await stand.nobody_can_tell(stand.idp.token(sub="beyond"))
    assert stand.idp.issuer in caplog.text
    assert "answered 500" in caplog.text
    fetches = stand.idp.fetches
    flood = (stand.nobody_can_tell(stand.idp.token(sub=f"beyond-{n}")) for n in range(100))
    assert all(await asyncio.gather(*flood))
    assert stand.idp.fetches == fetches
    stand.idp.answer = None
    stand.clock.now += 30
    assert await stand.accepts(stand.idp.token(sub="healed"))


async def _failing(request: web.Request) -> web.Response:
    return web.Response(status=500)


async def test_a_provider_that_was_never_there_is_503_and_its_start_heals() -> None:
    idp = Provider()
    async with idp.running():
        pass
    async with standing(idp, cool_down=30) as stand:
        assert await stand.nobody_can_tell(idp.token())
        async with idp.running():
            assert await stand.nobody_can_tell(idp.token())
            stand.clock.now += 30
            assert await stand.accepts(idp.token())


async def test_a_provider_may_go_away_and_come_back() -> None:
    idp = Provider()
    async with idp.running():
        pass
    async with standing(idp, max_stale=1000, cool_down=30) as stand:
        async with idp.running():
            assert await stand.accepts(idp.token())
        stand.clock.now += 300
        assert await stand.accepts(idp.token(sub="while it is away"))
        assert not await stand.accepts(idp.token("unknown"))
        stand.clock.now += 1000
        assert await stand.nobody_can_tell(idp.token(sub="too long"))
        stand.clock.now += 30
        async with idp.running():
            assert await stand.accepts(idp.token(sub="it is back"))


async def test_a_remembered_token_is_not_believed_beyond_the_bound(stand: Stand) -> None:
    start = stand.tokens._clock()
    stand.tokens._clock = lambda: start + stand.clock.now - 1000
    shown = stand.idp.token(exp=int(start) + 10**6)
    assert await stand.accepts(shown)
    stand.idp.answer = _failing
    stand.clock.now = 2299
    assert await stand.accepts(shown)
    stand.clock.now = 2300
    assert await stand.nobody_can_tell(shown)


async def test_a_set_without_a_usable_key_takes_none_away(stand: Stand) -> None:
    assert await stand.accepts(stand.idp.token())
    stand.idp.keys = []
    stand.clock.now += 30
    assert not await stand.accepts(stand.new_token())
    assert await stand.accepts(stand.idp.token(sub="another"))


async def test_a_token_without_kid_is_tried_with_a_bounded_number_of_keys(stand: Stand) -> None:
    stand.idp.keys = [jwk(RSA_KEY.public_key(), kid=str(n)) for n in range(MOST_TRIED)]
    stand.idp.keys.append(jwk(OTHER_RSA_KEY.public_key(), kid="last"))
    assert await stand.accepts(stand.new_token(None))
    assert await stand.accepts(stand.idp.token("last", OTHER_RSA_KEY, "RS256"))
    assert not await stand.accepts(stand.idp.token(None, OTHER_RSA_KEY, "RS256"))


async def test_others_have_their_turn_between_the_keys_that_a_token_is_tried_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = [0]
    seen = []

    async def others() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    def verifies(_: VerificationKey, *signed: object) -> bool:
        seen.append(turns[0])
        return False

    monkeypatch.setattr(VerificationKey, "verifies", verifies)
    keys = StaticKeys(tuple(VerificationKey(("ES256",), EC_KEYS["ES256"].public_key(), str(n)) for n in range(4)))
    issuer = TokenIssuer(None, None, ("ES256",), keys)
    tokens = BearerTokens([issuer, issuer], 10, Networks(32, 64))
    task = asyncio.create_task(others())
    with pytest.raises(GatewayError):
        await identify(tokens, Provider().token(None))
    task.cancel()
    assert len(set(seen)) == len(seen) == 8


async def test_keys_without_a_name_fit_any_kid(stand: Stand) -> None:
    stand.idp.keys = [jwk(RSA_KEY.public_key())]
    assert await stand.accepts(stand.new_token("whatever"))
    assert await stand.accepts(stand.new_token(None))


async def test_a_kid_chooses_the_key_alone(stand: Stand) -> None:
    stand.publish(first=RSA_KEY, second=OTHER_RSA_KEY)
    assert await stand.accepts(stand.idp.token("second", OTHER_RSA_KEY, "RS256"))
    assert not await stand.accepts(stand.idp.token("first", OTHER_RSA_KEY, "RS256"))


class Published:
    """What a provider gives; the time until the gateway looks again passes at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
        self.fresh = [300.0, 60.0, 86_400.0]
        self.fetched: list[float] = []
        self.done = asyncio.Event()
        self._clock = clock
        monkeypatch.setattr("gateway.identity.rotation.asyncio.sleep", self.sleep)

    async def fetch(self) -> KeySet:
        self.fetched.append(self._clock.now)
        return KeySet((), self.fresh[len(self.fetched) - 1])

    async def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= 60
        if len(self.fetched) == len(self.fresh):
            self.done.set()
            await asyncio.Event().wait()
        self._clock.now += seconds


async def test_keys_are_fetched_at_the_start_and_whenever_they_are_no_longer_fresh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    published = Published(monkeypatch, clock)
    setting = Issuer(issuer="https://idp.example.org", audience="a", algorithms=["RS256"])
    async with rotating_keys(setting, published.fetch, clock):
        await published.done.wait()
    assert published.fetched == [1000, 1300, 1360]


async def test_leaving_ends_a_fetch_that_is_under_way() -> None:
    ended = asyncio.Event()
    begun = asyncio.Event()

    async def fetch() -> KeySet:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    setting = Issuer(issuer="https://idp.example.org", audience="a", algorithms=["RS256"])
    async with rotating_keys(setting, fetch):
        await begun.wait()
    assert ended.is_set()
    assert len(asyncio.all_tasks()) == 1

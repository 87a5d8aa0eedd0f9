"""Rules that administrators change, and what a caller is told of his own usage."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import itertools
import random
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity.principal import Principal
from gateway.quotas.keys import Keys
from gateway.quotas.limits import Limit, Rule
from gateway.quotas.usage import Held, reserved
from tests.api.support import PROJECT_ADMIN, SCOPE, USER, call
from tests.harness import ADMIN, Entry, RunningGateway, bearer, running_gateway

LARGE = random.Random(1).randbytes(32 * 1024 * 1024)
"""More than sockets on the way hold."""
DAY = 86_400_000_000
PERIODS = ("all", "today", "month")


async def usage(gateway: RunningGateway, who: Principal | None = USER) -> dict[str, Any]:
    status, told = await call(gateway, "GET", "/me/usage" if who else f"/me/usage?{SCOPE}", who)
    assert status == 200
    found: dict[str, Any] = told
    return found


@contextlib.asynccontextmanager
async def downloading(gateway: RunningGateway, entry: Entry, who: Principal) -> AsyncIterator[aiohttp.ClientResponse]:
    """A download that runs until the block ends; then it is cut."""
    async with gateway.session.get(f"{gateway.url}{entry.stac}", headers=bearer(who)) as response:
        yield response
        response.close()


async def settled(gateway: RunningGateway, who: Principal | None = USER) -> dict[str, Any]:
    """Usage when nothing is running any more."""
    async with asyncio.timeout(20):
        while True:
            told = await usage(gateway, who)
            if not told["running"]:
                return told
            await asyncio.sleep(0.01)


async def test_rules_are_written_told_and_deleted(gateway: RunningGateway) -> None:
    await gateway.catalogue.tenant()
    short = {"subject": "group", "name": "science", "shared": True, "metric": "bytes", "period": "3600s", "value": 5}
    whole = {**short, "burst": 1, "slowRate": 1000, "fail": "closed"}
    assert await call(gateway, "PUT", "/quota/rules", PROJECT_ADMIN, short) == (200, whole | {"slowRate": None})
    assert await call(gateway, "PUT", "/quota/rules", PROJECT_ADMIN, whole) == (200, whole)
    rate = {"subject": "anonymous", "name": "", "shared": False, "metric": "rate", "period": "1s", "value": 4}
    rate |= {"burst": 8, "slowRate": None, "fail": "capped"}
    assert await call(gateway, "PUT", "/quota/rules", PROJECT_ADMIN, rate) == (200, rate)
    assert await call(gateway, "GET", "/quota/rules", PROJECT_ADMIN) == (200, {"rules": [rate, whole], "next": None})
    assert await call(gateway, "GET", "/quota/rules?subject=group&name=science", PROJECT_ADMIN) == (
        200,
        {"rules": [whole], "next": None},
    )
    assert await call(gateway, "GET", "/quota/rules?subject=group&name=other", PROJECT_ADMIN) == (
        200,
        {"rules": [], "next": None},
    )
    status, page = await call(gateway, "GET", "/quota/rules?limit=1", PROJECT_ADMIN)
    assert (status, page["rules"]) == (200, [rate])
    following = f"/quota/rules?limit=1&cursor={page['next']}"
    assert await call(gateway, "GET", following, PROJECT_ADMIN) == (200, {"rules": [whole], "next": None})
    for query in ("limit=0", "cursor=WyJ4Il0", "subjects=group", "name=a&name=b", "name=%00"):
        assert (await call(gateway, "GET", f"/quota/rules?{query}", PROJECT_ADMIN))[0] == 400, query
    gone = "/quota/rules?subject=group&name=science&metric=bytes&period=3600s&shared="
    assert (await call(gateway, "DELETE", f"{gone}false", PROJECT_ADMIN))[0] == 404
    assert await call(gateway, "DELETE", f"{gone}true", PROJECT_ADMIN) == (204, None)
    assert (await call(gateway, "DELETE", f"{gone}true", PROJECT_ADMIN))[0] == 404
    assert await call(gateway, "GET", "/quota/rules", PROJECT_ADMIN) == (200, {"rules": [rate], "next": None})


async def test_a_change_takes_effect_at_once_on_every_instance(gateway: RunningGateway) -> None:
    entries = [await gateway.catalogue.file(b"%d" % number, item=f"item-{number}") for number in range(4)]
    async with running_gateway(gateway.config, gateway.catalogue.root) as other:
        both = (gateway, other)
        for here, there in (both, both[::-1]):
            limits = {"email": USER.email, "maxQuota": 0, "rateLimit": -1}
            assert (await call(here, "PUT", f"/quota/{USER.email}", PROJECT_ADMIN, limits))[0] == 200
            assert (await there.get(entries[0].stac, USER))[0].status == 429
            assert (await call(there, "GET", "/quota", USER))[1] == limits
            limits["maxQuota"] = 3
            assert (await call(there, "PUT", f"/quota/{USER.email}", PROJECT_ADMIN, limits))[0] == 200
            assert (await here.get(entries[0].stac, USER))[0].status == 200
        rule = {"subject": "tenant", "shared": True, "metric": "downloads", "period": "day", "value": 1}
        assert (await call(gateway, "PUT", "/quota/rules", PROJECT_ADMIN, rule))[0] == 200
        assert (await other.get(entries[1].stac, USER))[0].status == 429
        query = "subject=tenant&shared=true&metric=downloads&period=day"
        assert (await call(other, "DELETE", f"/quota/rules?{query}", PROJECT_ADMIN))[0] == 204
        statuses = [
            (await one.get(entry.stac, USER))[0].status
            for entry, one in zip(entries[1:], (other, gateway, other), strict=True)
        ]
        assert statuses == [200, 200, 429]
        for told in (await usage(gateway), await usage(other)):
            assert told["totals"]["all"]["downloads"] == 3


async def test_one_is_told_every_limit_that_binds_him(gateway: RunningGateway) -> None:
    rules = [
        Rule("tenant", "", False, "downloads", "total", 9),
        Rule("user", USER.email or "", False, "bytes", "day", 1000),
        Rule("user", USER.email or "", False, "concurrent", "now", -1),
        Rule("role", USER.role, True, "bytes", "month", 5000, slow_rate=100),
        Rule("group", "science", True, "downloads", "3600s", 4),
        Rule("group", "others", True, "downloads", "total", 1),
        Rule("tenant", "", False, "rate", "60s", 60, burst=5),
        Rule("anonymous", "", True, "downloads", "total", 1),
    ]
    for rule in rules:
        await gateway.catalogue.rule(rule)
    entry = await gateway.catalogue.file(b"x" * 300)
    assert (await gateway.get(entry.stac, USER))[0].status == 200
    assert (await gateway.get(entry.stac, ADMIN))[0].status == 200
    told = await usage(gateway)
    assert told["account"] == "user:scientist@example.org"
    assert told["totals"] == {period: {"downloads": 1, "bytes": 300} for period in PERIODS}
    assert (told["running"], told["reserved"]) == (0, {"downloads": 0, "bytes": 0})
    by_name = {limit["name"]: limit for limit in told["limits"]}
    used = {name: (limit["limit"], limit["used"], limit["remaining"]) for name, limit in by_name.items()}
    assert used == {
        "user-downloads-total": (9, 1, 8),
        "user-bytes-day": (1000, 300, 700),
        "user-rate-60s": (60, 1, 4),
        "group-downloads-3600s": (4, 1, 3),
        "role-bytes-month": (5000, 300, 4700),
    }
    assert by_name["role-bytes-month"]["slowRate"] == 100
    assert by_name["group-downloads-3600s"]["account"] == "group:science"
    now = datetime.datetime.now(datetime.UTC)
    for name, limit in by_name.items():
        assert limit["reserved"] == 0
        if name == "user-downloads-total":
            assert (limit["reset"], limit["resetAt"]) == (None, None)
            continue
        at = datetime.datetime.fromisoformat(limit["resetAt"])
        assert limit["resetAt"].endswith("Z")
        assert abs((at - now).total_seconds() - limit["reset"]) < 30
    midnight = datetime.datetime.fromisoformat(by_name["user-bytes-day"]["resetAt"])
    # Rounded up to a second.
    assert (midnight - datetime.timedelta(seconds=1)).date() == now.date() or midnight.hour == 0


async def test_what_running_downloads_hold_is_told_and_given_back(gateway: RunningGateway) -> None:
    for rule in (
        Rule("user", USER.email or "", False, "concurrent", "now", 3),
        Rule("user", USER.email or "", False, "bytes", "total", 3 * len(LARGE)),
        Rule("group", "science", True, "downloads", "day", 5),
        Rule("tenant", "", True, "bytes", "3600s", 4 * len(LARGE)),
    ):
        await gateway.catalogue.rule(rule)
    entry = await gateway.catalogue.file(LARGE)
    small = await gateway.catalogue.file(b"small", item="small")
    assert (await gateway.get(small.stac, USER))[0].status == 200
    async with downloading(gateway, entry, USER), downloading(gateway, entry, ADMIN):
        told = await usage(gateway)
        assert (told["running"], told["reserved"]) == (1, {"downloads": 1, "bytes": len(LARGE)})
        assert told["totals"]["all"] == {"downloads": 2, "bytes": len(LARGE) + 5}
        assert {limit["name"]: (limit["used"], limit["reserved"]) for limit in told["limits"]} == {
            "user-concurrent-now": (1, 1),
            "user-bytes-total": (len(LARGE) + 5, len(LARGE)),
            "group-downloads-day": (2, 1),
            "tenant-bytes-3600s": (2 * len(LARGE) + 5, 2 * len(LARGE)),
        }
        assert (await call(gateway, "GET", "/quota/current", USER))[1]["currentRate"] == 1
    told = await settled(gateway)
    assert told["reserved"] == {"downloads": 0, "bytes": 0}
    assert told["totals"]["all"]["downloads"] == 2
    assert 5 < told["totals"]["all"]["bytes"] < len(LARGE)


async def test_days_and_months_begin_anew_and_totals_do_not(gateway: RunningGateway, redis_url: str) -> None:
    await gateway.catalogue.rule(Rule("tenant", "", False, "downloads", "day", 5))
    entry = await gateway.catalogue.file(b"x" * 10)
    assert (await gateway.get(entry.stac, USER))[0].status == 200
    key = Keys("esa", 1).state
    expected = {0: (1, 1), 1: (0, None), 32: (0, 0)}
    for days, (today, month) in expected.items():
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            await client.hset(key, "shift", days * DAY)
        told = await usage(gateway)
        assert told["totals"]["all"] == {"downloads": 1, "bytes": 10}
        assert told["totals"]["today"]["downloads"] == told["limits"][0]["used"] == today
        if month is not None:
            assert told["totals"]["month"] == {"downloads": month, "bytes": 10 * month}


async def test_anonymous_callers_are_told_of_their_network(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(b"x" * 10, collection="open")
    refused = await usage(gateway, None)
    assert refused["account"] == "network:127.0.0.1/32"
    assert [(limit["account"], limit["limit"]) for limit in refused["limits"]] == [("anonymous", 0)]
    await gateway.catalogue.rule(Rule("anonymous", "", False, "bytes", "day", 100))
    assert (await gateway.get(f"{entry.stac}?{SCOPE}"))[0].status == 200
    told = await usage(gateway, None)
    assert told["totals"]["all"] == {"downloads": 1, "bytes": 10}
    assert [(limit["account"], limit["used"]) for limit in told["limits"]] == [("network:127.0.0.1/32", 10)]


async def test_whoever_is_only_asked_about_is_forgotten_again(gateway: RunningGateway, redis_url: str) -> None:
    await gateway.catalogue.tenant()
    await usage(gateway, None)
    await call(gateway, "GET", "/quota/current/nobody@example.org", PROJECT_ADMIN)
    keys = Keys("esa", 1)
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        for account in ("network:127.0.0.1/32", "user:nobody@example.org"):
            assert 0 < await client.ttl(keys.account(account)) <= 40 * 86400


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_is_downloaded_is_what_one_is_told(gateway: RunningGateway, seed: int) -> None:
    """Random downloads of two users: whole, ranges, again, bodiless, refused, dry; usage is what they came to."""
    chance = random.Random(seed)
    sizes = [0, 1, 10, 1000, 70_000]
    entries = [await gateway.catalogue.file(b"%d" % n * size, item=f"item-{n}") for n, size in enumerate(sizes)]
    free = await gateway.catalogue.file(b"free", item="free", data_type="DOCUMENT")
    callers = (USER, ADMIN)
    most = {who: chance.choice((2, 3, 9)) for who in callers}
    for who in callers:
        await gateway.catalogue.rule(Rule("user", who.email or "", False, "downloads", "total", most[who]))
    await gateway.catalogue.rule(Rule("tenant", "", True, "bytes", "month", 10**9))
    model = {who: Counted() for who in callers}
    for _ in range(40):
        who, entry = chance.choice(callers), chance.choice([*entries, free])
        size = len(entry.content)
        method, query, fields, sent = chance.choice(
            [
                ("GET", "", {}, size),
                ("GET", "", {"Range": "bytes=0-0"}, min(size, 1)),
                ("GET", "", {"Range": "bytes=5-"}, size - 5),
                ("GET", "", {"If_None_Match": "*"}, None),
                ("GET", "?dryRun=true", {}, None),
                ("HEAD", "", {"Prefer": "quota"}, None),
            ]
        )
        response, body = await gateway.request(method, f"{entry.stac}{query}", who, **fields)
        if entry is free or sent is None or response.status == 416:
            assert response.status < 400 or (sent is not None and sent <= 0)
        elif model[who].download(entry.item, size, sent, most[who]):
            assert (response.status in (200, 206), len(body)) == (True, sent)
        else:
            assert response.status == 429
    for who in callers:
        told = await settled(gateway, who)
        counted = model[who]
        amount = {"downloads": counted.downloads, "bytes": counted.octets}
        assert told["totals"] == dict.fromkeys(PERIODS, amount)
        limits = {limit["name"]: limit for limit in told["limits"]}
        assert limits["user-downloads-total"]["used"] == counted.downloads
        assert limits["user-downloads-total"]["remaining"] == most[who] - counted.downloads
        assert limits["tenant-bytes-month"]["used"] == sum(one.octets for one in model.values())


@dataclasses.dataclass
class Counted:
    """What a caller should be charged."""

    downloads: int = 0
    octets: int = 0
    contents: dict[str, int] = dataclasses.field(default_factory=dict)
    """Bytes of each that were charged since it last counted as a download."""

    def download(self, content: str, size: int, sent: int, most: int) -> bool:
        """Whether it is let through: until twice its size is charged, all downloads of a content are one."""
        charged = self.contents.get(content)
        if charged is None or charged + sent > 2 * size:
            if self.downloads == most:
                return False
            self.downloads += 1
            charged = 0
        self.contents[content] = charged + sent
        self.octets += sent
        return True


times = st.integers(0, 10**15)
held = st.builds(Held, st.integers(0, 1), st.integers(0, 10**6), times)


@given(st.lists(held), times)
def test_what_is_held_counts_where_it_began(running: list[Held], now: int) -> None:
    def of(metric: Any, period: str) -> int:
        return reserved(Limit("user:a", metric, period, 1), running, now)

    assert of("concurrent", "now") == len(running)
    assert of("rate", "1s") == 0
    assert of("downloads", "total") == sum(one.downloads for one in running)
    assert of("bytes", "total") == sum(one.octets for one in running)
    assert of("bytes", "day") == sum(one.octets for one in running if one.at // DAY == now // DAY)
    assert of("bytes", "day") <= of("bytes", "month") <= of("bytes", "total")
    windows = [of("bytes", f"{seconds}s") for seconds in (60, 3600, 99_999_999)]
    for narrow, wide in itertools.pairwise(windows):
        assert narrow <= wide

"""RateLimit fields and Retry-After: on every answer that counts, well formed, and true."""

from __future__ import annotations

import base64
import contextlib
import json
import random
from typing import Any

import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st

from gateway.quotas.keys import Keys
from gateway.quotas.limits import MOST, MOST_BURST, Limit, Rule, complaint, limits_of
from gateway.quotas.standing import Standing, State, fields, refusal, retry_after
from tests.api.support import USER
from tests.api.test_previews import OFFER, parsed
from tests.harness import SCIENTIST, RunningGateway, bearer, principal

LARGE = random.Random(3).randbytes(32 * 1024 * 1024)
UNITS = {"requests", "content-bytes", "concurrent-requests"}

values = st.one_of(st.integers(0, 5), st.integers(0, MOST))
names = st.one_of(st.sampled_from(["science", "ops"]), st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
periods = st.sampled_from(["total", "day", "month", "now", "1s", "3600s", "99999999s"])
rules = st.builds(
    Rule,
    st.just("group"),
    names,
    st.booleans(),
    st.sampled_from(["downloads", "bytes", "concurrent", "rate"]),
    periods,
    values,
    st.integers(1, MOST_BURST),
).filter(lambda rule: complaint(rule) is None)
resets = st.one_of(st.none(), st.floats(0, 10**9), st.just(0.0))
states: st.SearchStrategy[State] = st.sampled_from(["within", "refused", "slowed"])


@st.composite
def all_standings(draw: st.DrawFn) -> list[Standing]:
    """Of limits that one caller can have together."""
    chosen = {(rule.name, rule.shared, rule.metric, rule.period): rule for rule in draw(st.lists(rules, max_size=6))}
    limits = limits_of(chosen.values(), USER)
    return [Standing(limit, draw(states), draw(st.integers(0, MOST)), draw(resets)) for limit in limits]


@given(all_standings())
def test_what_is_told_is_what_the_draft_says(standings: list[Standing]) -> None:
    told = fields(standings)
    if not standings:
        assert told == {}
        return
    policies, limits = (parsed(told[name], "list") for name in ("RateLimit-Policy", "RateLimit"))
    assert len(policies) == len(limits) == len(standings)
    which = []
    for (policy, quota), (name, left), standing in zip(policies, limits, standings, strict=True):
        assert isinstance(policy, str)
        assert policy == name
        assert set(quota) <= {"q", "qu", "w", "pk"}
        assert set(left) <= {"r", "t", "pk"}
        assert quota["q"] >= left["r"] >= 0 or standing.used == 0
        assert quota.get("qu", "requests") in UNITS
        assert quota.get("w", 1) > 0
        assert ("t" in left) == (standing.reset is not None)
        assert left.get("t", 0) >= 0
        assert quota.get("pk") == left.get("pk")
        which.append((policy, quota.get("pk")))
    # One that is told twice could not be told apart.
    assert len(set(which)) == len(which)


@given(all_standings())
def test_when_to_come_back_is_when_the_last_of_what_refuses_lets_go(standings: list[Standing]) -> None:
    refusing = [standing.reset for standing in standings if standing.state == "refused"]
    seconds = retry_after(standings)
    if not refusing or None in refusing:
        assert seconds is None
    else:
        assert seconds is not None
        assert seconds >= 1
        assert all(reset is not None and seconds >= reset for reset in refusing)
        assert seconds == 1 or any(reset is not None and seconds < reset + 1 for reset in refusing)
    if refusing:
        error = refusal(standings, "somebody")
        assert error.headers.get("Retry-After") == (None if seconds is None else str(seconds))
        assert fields(standings).items() <= error.headers.items()


def test_numbers_beyond_those_of_structured_fields_are_cut() -> None:
    told = fields([Standing(Limit("user:a", "bytes", "total", MOST), "within", 0, None)])
    assert told == {
        "RateLimit-Policy": '"user-bytes-total";q=999999999999999;qu="content-bytes"',
        "RateLimit": '"user-bytes-total";r=999999999999999',
    }


async def test_every_answer_that_counts_tells_the_limits(every_way: RunningGateway) -> None:
    gateway = every_way
    for rule in (
        Rule("user", SCIENTIST.email or "", False, "downloads", "total", 4),
        Rule("tenant", "", False, "concurrent", "now", 9),
        Rule("group", "science", True, "bytes", "day", 10**6),
    ):
        await gateway.catalogue.rule(rule)
    storages = ("disk", "disk", "far", "proxied", "disk")
    entries = [
        await gateway.catalogue.file(b"%d" % number * 100, item=f"{number}", storage=storage)
        for number, storage in enumerate(storages)
    ]
    asked: list[tuple[int, dict[str, str], int]] = [
        (0, {}, 200), (1, {"Range": "bytes=0-9"}, 206), (2, {}, 307), (3, OFFER, 200), (4, {}, 429)
    ]  # fmt: skip
    group = base64.b64encode(b"science").decode()
    octets = 0
    for number, request, expected in asked:
        paths = [entries[number].stac] if expected != 429 else [entries[number].stac, entries[number].regards]
        for path in paths:
            response, _ = await gateway.get(path, SCIENTIST, **request)
            assert response.status == expected
            octets += {200: 100, 206: 10, 307: 100}.get(expected, 0)
            assert response.headers["RateLimit-Policy"] == (
                f'"user-concurrent-now";q=9;qu="concurrent-requests", "user-downloads-total";q=4, '
                f'"group-bytes-day";q=1000000;w=86400;qu="content-bytes";pk=:{group}:'
            )
            concurrent, downloads, shared = parsed(response.headers["RateLimit"], "list")
            assert concurrent == ("user-concurrent-now", {"r": 8 if expected in (200, 206) and number != 3 else 9})
            assert downloads == ("user-downloads-total", {"r": max(3 - number, 0)})
            assert shared[1]["r"] == 10**6 - octets
            assert 0 < shared[1]["t"] <= 86400
            assert ("X-Accel-Redirect" in response.headers) == (number == 3)
            # A limit of a lifetime: no retry can succeed.
            assert "Retry-After" not in response.headers
    free = await gateway.catalogue.file(b"free", item="free", data_type="DOCUMENT")
    for answer in (await gateway.get(free.stac, SCIENTIST), await gateway.get(entries[0].stac, principal("x"))):
        assert not {"RateLimit", "RateLimit-Policy"} & set(answer[0].headers)


async def test_a_refusal_says_the_same_in_both_families(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(b"x" * 50)
    await gateway.catalogue.rule(Rule("user", USER.email or "", False, "downloads", "day", 0))
    await gateway.catalogue.rule(Rule("tenant", "", True, "bytes", "month", 10))
    bodies = {}
    for path in (entry.stac, entry.regards):
        response, body = await gateway.get(path, USER)
        assert response.status == 429
        assert len(parsed(response.headers["RateLimit"], "list")) == 2
        bodies[path] = json.loads(body)
    stac, regards = bodies[entry.stac], bodies[entry.regards]
    assert list(regards) == ["messages", "limits"]
    assert stac == {"code": "QuotaExceeded", "description": " ".join(regards["messages"]), **regards}
    assert [limit["name"] for limit in regards["limits"]] == ["user-downloads-day", "tenant-bytes-month"]
    assert {limit["state"] for limit in regards["limits"]} == {"refused"}


async def shift(gateway: RunningGateway, seconds: float) -> None:
    """Have that much time pass."""
    async with redis.asyncio.Redis.from_url(gateway.config.redis.url.get_secret_value()) as client:
        await client.hincrby(Keys("esa", 1).state, "shift", int(seconds * 1_000_000))


SUCCEEDS: list[tuple[Any, str, int]] = [
    ("downloads", "day", 1),
    ("downloads", "month", 1),
    ("downloads", "3600s", 1),
    ("bytes", "60s", 150),
    ("bytes", "day", 150),
    ("rate", "60s", 1),
    ("concurrent", "now", 1),
]


@pytest.mark.parametrize(("metric", "period", "value"), SUCCEEDS)
async def test_a_retry_succeeds_when_it_is_said_to_and_not_before(
    gateway: RunningGateway, metric: Any, period: str, value: int
) -> None:
    await gateway.catalogue.rule(Rule("user", USER.email or "", False, metric, period, value))
    first, second = [await gateway.catalogue.file(letter * 100, item=letter.decode()) for letter in (b"a", b"b")]
    async with contextlib.AsyncExitStack() as stack:
        if metric == "concurrent":
            large = await gateway.catalogue.file(LARGE, item="large")
            running = gateway.session.get(f"{gateway.url}{large.stac}", headers=bearer(USER))
            response = await stack.enter_async_context(running)
            stack.callback(response.close)
        else:
            assert (await gateway.get(first.stac, USER))[0].status == 200
        refused, _ = await gateway.get(second.stac, USER)
        assert refused.status == 429
        seconds = int(refused.headers["Retry-After"])
        # It is rounded up, and the test itself takes time.
        if seconds > 20:
            await shift(gateway, seconds - 15)
            refused, _ = await gateway.get(second.stac, USER)
            assert refused.status == 429
            assert abs(int(refused.headers["Retry-After"]) - 15) < 10
            await shift(gateway, 15)
        else:
            await shift(gateway, seconds)
        assert (await gateway.get(second.stac, USER))[0].status == 200


@pytest.mark.parametrize(
    ("metric", "period", "value"),
    [
        ("downloads", "total", 1),
        ("downloads", "day", 0),
        ("bytes", "total", 150),
        ("bytes", "3600s", 99),
        ("bytes", "month", 0),
        ("rate", "1s", 0),
        ("concurrent", "now", 0),
    ],
)
async def test_no_retry_is_spoken_of_where_none_can_succeed(
    gateway: RunningGateway, metric: Any, period: str, value: int
) -> None:
    entries = [await gateway.catalogue.file(letter * 100, item=letter.decode()) for letter in (b"a", b"b")]
    await gateway.catalogue.rule(Rule("user", USER.email or "", False, metric, period, value))
    responses = [(await gateway.get(entry.stac, USER))[0] for entry in entries]
    assert responses[-1].status == 429
    assert "Retry-After" not in responses[-1].headers

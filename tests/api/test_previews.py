"""What a download would be charged, asked for without downloading."""

from __future__ import annotations

import json
import re
from typing import Any

import http_sf
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.prefer import preferences
from gateway.quotas.limits import Rule
from tests.api.support import SCOPE, USER
from tests.harness import OUTSIDER, SCIENTIST, RunningGateway

TEXT = b"0123456789" * 100
OFFER = {"X_Sendfile_Type": "X-Accel-Redirect"}
QUOTA = {"Prefer": "quota"}


async def counted(gateway: RunningGateway) -> list[object]:
    """All that a download changes: counters and leases in Redis, the ledger, licences."""
    url = gateway.config.redis.url.get_secret_value()
    found: dict[str, object] = {}
    async with redis.asyncio.Redis.from_url(url, decode_responses=True) as client:
        async for key in client.scan_iter():
            kind = await client.type(key)
            if kind == "hash":
                fields = await client.hgetall(key)
                # Bringing earlier events to the ledger goes on meanwhile.
                found[key] = {name: value for name, value in fields.items() if name not in ("clock", "confirmed")}
            elif kind == "zset":
                found[key] = await client.zrange(key, 0, -1)
            elif kind == "string":
                found[key] = await client.get(key)
    rows = [
        await gateway.catalogue.connection.fetchval(f"SELECT count(*) FROM {table}")
        for table in ("licence_acceptances", "quota_limits")
    ]
    return [found, rows]


async def dry(gateway: RunningGateway, path: str, **fields: str) -> tuple[int, dict[str, Any]]:
    mark = "&" if "?" in path else "?"
    response, body = await gateway.get(f"{path}{mark}dryRun=true", SCIENTIST, **fields)
    return response.status, json.loads(body)


async def test_a_dry_run_tells_what_the_download_then_costs_and_changes_nothing(every_way: RunningGateway) -> None:
    gateway = every_way
    await gateway.catalogue.rule(Rule("user", SCIENTIST.email or "", False, "downloads", "total", 4))
    await gateway.catalogue.rule(Rule("tenant", "", True, "bytes", "day", 10**6))
    first = await gateway.catalogue.file(b"first", item="first")
    assert (await gateway.get(first.stac, SCIENTIST))[0].status == 200
    ways = {"disk": "stream", "far": "redirect", "proxied": "accel"}
    entries = {name: await gateway.catalogue.file(TEXT + name.encode(), item=name, storage=name) for name in ways}
    for door in ("regards", "stac"):
        for storage, way in ways.items():
            entry = entries[storage]
            path = getattr(entry, door)
            before, used = await counted(gateway), await gateway.usage(SCIENTIST)
            status, told = await dry(gateway, path, **OFFER)
            assert await counted(gateway) == before
            assert status == 200
            assert set(told) == {"admitted", "downloads", "bytes", "delivery", "limits"}
            assert (told["admitted"], told["delivery"]) == (True, way)
            assert [limit["name"] for limit in told["limits"]] == ["user-downloads-total", "tenant-bytes-day"]
            assert told["limits"][0]["used"] == used[0]
            assert {limit["state"] for limit in told["limits"]} == {"within"}
            response, _ = await gateway.get(path, SCIENTIST, **OFFER)
            assert response.status == (307 if storage == "far" else 200)
            charged = await gateway.usage(SCIENTIST)
            assert charged == (used[0] + told["downloads"], used[1] + told["bytes"])


async def test_a_refused_dry_run_says_so_and_when_it_would_not_be(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(TEXT)
    await gateway.catalogue.rule(Rule("user", SCIENTIST.email or "", False, "bytes", "3600s", 1500))
    assert (await gateway.get(entry.stac, SCIENTIST))[0].status == 200
    status, told = await dry(gateway, entry.stac)
    assert (status, told["admitted"], told["bytes"]) == (200, False, len(TEXT))
    # It is the same download as the one before.
    assert told["downloads"] == 0
    assert told["limits"][0]["state"] == "refused"
    assert 3500 < told["retryAfter"] <= 3661
    refused, _ = await gateway.get(entry.stac, SCIENTIST)
    assert refused.status == 429
    assert abs(int(refused.headers["Retry-After"]) - told["retryAfter"]) <= 2
    assert (await dry(gateway, entry.stac, Range="bytes=0-99"))[1]["admitted"] is True
    await gateway.catalogue.rule(Rule("user", SCIENTIST.email or "", False, "downloads", "total", 0))
    status, told = await dry(gateway, entry.stac)
    assert (status, told["admitted"], "retryAfter" in told) == (200, False, False)


async def test_a_dry_run_is_refused_by_everything_else_as_a_download_is(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(TEXT, collection="open")
    secret = await gateway.catalogue.file(TEXT + b"1", item="secret")
    offline = await gateway.catalogue.file(TEXT + b"2", item="offline", state="OFFLINE", collection="restricted")
    await gateway.catalogue.licence("open")
    asked: list[tuple[str, dict[str, str], int]] = [
        (entry.stac.replace("data", "other"), {}, 404),
        (entry.stac, {}, 423),
        (offline.stac, {}, 409),
        (secret.stac, {"Range": "bytes=100000-"}, 416),
        (secret.stac, {"If_Match": '"other"'}, 412),
    ]
    for path, fields, expected in asked:
        assert (await dry(gateway, path, **fields))[0] == expected
        assert (await gateway.get(path, SCIENTIST, **fields))[0].status == expected
    assert (await gateway.get(f"{secret.stac}?dryRun=true", OUTSIDER))[0].status == 403
    assert (await gateway.get(f"{secret.stac}?dryRun=true"))[0].status == 401
    assert (await gateway.get(f"{secret.stac}?dryRun=true&{SCOPE}"))[0].status == 403
    assert await gateway.usage(SCIENTIST) == (0, 0)


async def test_a_dry_run_accepts_no_licence_and_says_how_to(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(TEXT)
    await gateway.catalogue.licence("restricted")
    for _ in range(2):
        status, told = await dry(gateway, f"{entry.stac}?acceptLicense=true")
        assert status == 423
    assert "dryRun" not in told["accept"]
    response, body = await gateway.get(told["accept"].removeprefix(gateway.url), SCIENTIST)
    assert (response.status, body) == (200, TEXT)
    assert (await dry(gateway, entry.stac))[0] == 200


async def test_what_does_not_count_costs_nothing(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(TEXT, data_type="DOCUMENT")
    raw = await gateway.catalogue.file(TEXT + b"1", item="raw")
    await gateway.catalogue.limit("user", SCIENTIST.email or "", downloads=0)
    nothing = {"admitted": True, "downloads": 0, "bytes": 0, "delivery": "stream", "limits": []}
    assert await dry(gateway, entry.stac) == (200, nothing)
    assert await dry(gateway, raw.stac, If_None_Match="*") == (200, nothing)
    head, _ = await gateway.request("HEAD", entry.stac, SCIENTIST, **QUOTA)
    assert (head.headers["Quota-Cost"], head.headers["Quota-Admitted"]) == ("downloads=0, bytes=0", "?1")
    assert "RateLimit" not in head.headers


async def test_head_tells_what_a_get_would_cost_to_whoever_prefers_it(every_way: RunningGateway) -> None:
    gateway = every_way
    await gateway.catalogue.rule(Rule("user", USER.email or "", False, "downloads", "total", 2))
    # Counters are loaded when they are looked at first.
    await gateway.quotas.usage("esa", [f"user:{USER.email}", "tenant"])
    for number in range(3):
        entry = await gateway.catalogue.file(TEXT + b"%d" % number, item=f"{number}")
        plain, _ = await gateway.request("HEAD", entry.stac, USER)
        before = await counted(gateway)
        told, body = await gateway.request("HEAD", entry.stac, USER, Prefer='respond-async, QUOTA; x="a,b", wait=5')
        assert await counted(gateway) == before
        assert (told.status, body) == (plain.status, b"") == (200, b"")
        added = set(told.headers) - set(plain.headers)
        assert added - {"Retry-After"} == {
            "Preference-Applied",
            "Quota-Cost",
            "Quota-Admitted",
            "RateLimit",
            "RateLimit-Policy",
        }
        same = set(plain.headers) - {"Date", "X-Request-ID", "Vary"}
        assert {name: plain.headers[name] for name in same} == {name: told.headers[name] for name in same}
        assert told.headers["Preference-Applied"] == "quota"
        assert "Prefer" in told.headers["Vary"]
        assert parsed(told.headers["Quota-Cost"], "dictionary") == {
            "downloads": (1, {}),
            "bytes": (len(entry.content), {}),
        }
        assert parsed(told.headers["Quota-Admitted"], "item") == (number < 2, {})
        assert "Retry-After" not in told.headers
        assert (await gateway.get(entry.stac, USER))[0].status == (200 if number < 2 else 429)


async def test_head_tells_of_the_range_and_the_way_that_the_get_would_take(every_way: RunningGateway) -> None:
    gateway = every_way
    await gateway.catalogue.rule(Rule("user", USER.email or "", False, "bytes", "3600s", 5))
    entry = await gateway.catalogue.file(TEXT, storage="proxied")
    for fields, octets in ((QUOTA, len(TEXT)), (QUOTA | {"Range": "bytes=0-3"}, 4), (QUOTA | OFFER, len(TEXT))):
        told, _ = await gateway.request("HEAD", entry.stac, USER, **fields)
        assert told.status == 200
        assert told.headers["Quota-Cost"] == f"downloads=1, bytes={octets}"
        assert told.headers["Quota-Admitted"] == ("?1" if octets == 4 else "?0")
    # More than the limit will ever allow: no retry can succeed.
    assert "Retry-After" not in told.headers
    assert (await gateway.get(entry.stac, USER, Range="bytes=0-3"))[0].status == 206
    told, _ = await gateway.request("HEAD", entry.stac, USER, Range="bytes=0-3", **QUOTA)
    assert int(told.headers["Retry-After"]) > 3000


async def test_head_is_refused_as_ever_and_other_preferences_are_ignored(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(TEXT)
    assert (await gateway.request("HEAD", entry.stac, OUTSIDER, **QUOTA))[0].status == 403
    assert (await gateway.request("HEAD", f"{entry.stac}x", SCIENTIST, **QUOTA))[0].status == 404
    for other in ("respond-async", "quota=yes", 'x="quota"', 'x="a, quota', "", ",;=", "x; quota"):
        told, _ = await gateway.request("HEAD", entry.stac, SCIENTIST, Prefer=other)
        assert told.status == 200
        assert not {"Preference-Applied", "Quota-Cost", "RateLimit"} & set(told.headers), other
    get, _ = await gateway.get(entry.stac, SCIENTIST, **QUOTA)
    assert "Preference-Applied" not in get.headers


async def test_head_answers_without_redis_and_a_dry_run_does_not(gateway: RunningGateway, monkeypatch: Any) -> None:
    entry = await gateway.catalogue.file(TEXT)

    async def run(*_: object) -> None:
        raise TimeoutError("no answer")

    monkeypatch.setattr(gateway.quotas._calls, "run", run)
    told, _ = await gateway.request("HEAD", entry.stac, SCIENTIST, **QUOTA)
    assert (told.status, "Preference-Applied" in told.headers) == (200, False)
    response, _ = await gateway.get(f"{entry.stac}?dryRun=true", SCIENTIST)
    assert response.status == 503
    assert response.headers["Retry-After"]


def parsed(value: str, kind: str) -> Any:
    """A structured field, by RFC 9651."""
    return http_sf.parse(value.encode("ascii"), tltype=kind)


tokens = st.from_regex(r"[0-9A-Za-z!#$%&'*+.^_`|~-]{1,8}", fullmatch=True)
words = st.one_of(tokens, st.text("abc ,;=\t").map(lambda text: f'"{text}"'), st.just(r'"a\"b, quota\\"'), st.just(""))
spaces = st.sampled_from(["", " ", "\t "])


def test_preferences_are_those_of_rfc_7240() -> None:
    assert preferences(["respond-async, wait=10", 'handling="lenient"; a=b;c, Quota ; x']) == {
        "respond-async": "",
        "wait": "10",
        "handling": "lenient",
        "quota": "",
    }
    assert preferences(['quota=""', "quota=1"]) == {"quota": ""}
    assert preferences([r'a="x\"y, z"']) == {"a": 'x"y, z'}
    assert preferences(["a b, c=, =d, e;;, ,f"]) == {"c": "", "e": "", "f": ""}


@given(st.lists(st.tuples(tokens, words, spaces, st.lists(tokens, max_size=2)), max_size=5))
def test_preferences_that_are_written_are_read(written: list[tuple[str, str, str, list[str]]]) -> None:
    line = ",".join(
        f"{space}{name}{space}={space}{word}{''.join(f'{space};{parameter}' for parameter in parameters)}{space}"
        for name, word, space, parameters in written
    )
    expected: dict[str, str] = {}
    for name, word, _, _ in written:
        plain = re.sub(r"\\(.)", r"\1", word[1:-1]) if word.startswith('"') else word
        expected.setdefault(name.lower(), plain)
    assert preferences([line]) == expected


@given(st.text('a"\\,;= \t'))
def test_any_text_is_read_or_passed_over(text: str) -> None:
    assert all(name.strip() for name in preferences([text]))


def test_a_field_that_is_no_preference_costs_no_time() -> None:
    for piece in (";  ", '"\\', "=  ", '"a', " ", ";a=", '\\"', "a  "):
        preferences(["a" + piece * 20_000 + "\x01"])

"""A 307 that works in every client, leads nowhere else, and gives nothing away."""

from __future__ import annotations

import logging
import random
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
import yarl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.harness import ADMIN, SCIENTIST
from tests.upstream.conftest import Stand, StandFactory

BYTES = random.Random(19).randbytes(200_000)
CURL = "curl/8.5.0"


async def follow(
    stand: Stand, response: aiohttp.ClientResponse, **headers: str
) -> tuple[aiohttp.ClientResponse, bytes]:
    """GET where the redirect leads to, byte for byte and without a token."""
    target = yarl.URL(response.headers["Location"], encoded=True)
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    async with stand.gateway.session.get(target, headers=fields, allow_redirects=False) as found:
        return found, await found.read()


async def test_it_leads_to_the_bytes_with_name_and_type_and_says_how_long(stand_for: StandFactory) -> None:
    async with stand_for(delivery="redirect") as stand:
        entry = await stand.object(BYTES, name='scène "1".tif', mime_type="image/tiff; application=geotiff")
        response, body = await stand.gateway.get(entry.stac, SCIENTIST)
        assert (response.status, body) == (307, b"")
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Digest"].startswith("SHA-256=")
        assert response.headers["Repr-Digest"].startswith("sha-256=:")
        assert response.headers["Content-Length"] == "0"
        for name in ("ETag", "Last-Modified", "Content-Disposition", "Content-Range", "Accept-Ranges"):
            assert name not in response.headers
        found, content = await follow(stand, response)
        assert (found.status, content) == (200, BYTES)
        assert found.headers["Content-Type"] == "image/tiff; application=geotiff"
        head, _ = await stand.gateway.request("HEAD", entry.stac, SCIENTIST)
        assert found.headers["Content-Disposition"] == head.headers["Content-Disposition"]
        query = parse_qs(urlsplit(response.headers["Location"]).query)
        assert query["X-Amz-Expires"] == ["60"]
        assert await stand.gateway.usage(SCIENTIST) == (1, len(BYTES))


async def test_a_kept_redirect_ends_before_its_signature(stand_for: StandFactory) -> None:
    async with stand_for(delivery="redirect", redirect_ttl=20, redirect_max_age=10) as stand:
        entry = await stand.object(BYTES)
        response, _ = await stand.gateway.get(entry.stac, SCIENTIST)
        assert response.headers["Cache-Control"] == "private, max-age=10"
        assert parse_qs(urlsplit(response.headers["Location"]).query)["X-Amz-Expires"] == ["20"]


async def test_ranges_are_judged_by_the_store_and_charged_as_a_whole(stand_for: StandFactory) -> None:
    async with stand_for(delivery="redirect") as stand:
        entry = await stand.object(BYTES)
        response, _ = await stand.gateway.get(entry.stac, SCIENTIST, Range="bytes=10-19")
        assert response.status == 307
        found, content = await follow(stand, response, Range="bytes=10-19")
        assert (found.status, content) == (206, BYTES[10:20])
        assert await stand.gateway.usage(SCIENTIST) == (1, len(BYTES))


async def test_what_a_store_would_judge_otherwise_is_answered_here(stand_for: StandFactory) -> None:
    """HEAD, several ranges, and preconditions by our validators."""
    async with stand_for(delivery="redirect") as stand:
        entry = await stand.object(BYTES)
        head, _ = await stand.gateway.request("HEAD", entry.stac, SCIENTIST)
        etag, date = head.headers["ETag"], head.headers["Last-Modified"]
        assert (head.status, head.headers["Content-Length"]) == (200, str(len(BYTES)))
        cases: list[tuple[dict[str, str], int]] = [
            ({"Range": "bytes=0-0,5-6"}, 206),
            ({"If_Match": etag}, 200),
            ({"If_Unmodified_Since": date}, 200),
            ({"Range": "bytes=5-", "If_Range": etag}, 206),
            ({"If_None_Match": etag}, 304),
            ({"If_Match": '"other"'}, 412),
            ({"Range": f"bytes={len(BYTES)}-"}, 416),
            # Perhaps the store's own, of an earlier redirect: only the store can tell.
            ({"Range": "bytes=5-", "If_Range": '"other"'}, 307),
            ({"If_None_Match": '"other"'}, 307),
        ]
        for fields, status in cases:
            assert (await stand.gateway.get(entry.stac, SCIENTIST, **fields))[0].status == status, fields


async def test_a_download_that_was_redirected_resumes_by_the_stores_own_validator(stand_for: StandFactory) -> None:
    async with stand_for(delivery="redirect") as stand:
        entry = await stand.object(BYTES)
        first, _ = await follow(stand, (await stand.gateway.get(entry.stac, SCIENTIST))[0])
        fields = {"Range": "bytes=1000-", "If_Range": first.headers["ETag"]}
        again = (await stand.gateway.get(entry.stac, SCIENTIST, **fields))[0]
        found, content = await follow(stand, again, **fields)
        assert (found.status, content) == (206, BYTES[1000:])


@pytest.mark.parametrize(
    ("agent", "token", "size", "status", "reason"),
    [
        (CURL, True, 200_000, 307, "this client keeps its token from other hosts"),
        ("Wget/1.21.3", True, 200_000, 200, "this client may send its token on"),
        ("aria2/1.36.0", True, 200_000, 200, "this client may send its token on"),
        ("Python-urllib/3.11", True, 200_000, 200, "this client may send its token on"),
        ("Wget/1.21.3", False, 200_000, 307, "there is no token that could be sent on"),
        (CURL, True, 1000, 200, "too small for a second request"),
    ],
)
async def test_auto_tells_how_it_decided(
    stand_for: StandFactory, agent: str, token: bool, size: int, status: int, reason: str
) -> None:
    async with stand_for(delivery="auto") as stand:
        entry = await stand.object(BYTES[:size], collection="open", data_type="THUMBNAIL")
        catalogue = stand.gateway.catalogue
        await catalogue.grant("open", await catalogue.group("everyone", public=True))
        path = entry.stac if token else f"{entry.stac}?scope=esa"
        response, _ = await stand.gateway.get(path, SCIENTIST if token else None, User_Agent=agent)
        assert response.status == status
        way = "redirect" if status == 307 else "stream"
        assert response.headers["Server-Timing"] == f'delivery;desc="{way}: {reason}"'


async def test_the_callers_query_and_token_lead_nowhere(stand_for: StandFactory) -> None:
    async with stand_for(delivery="redirect") as stand:
        entry = await stand.object(BYTES)
        query = "?x=1&X-Amz-Expires=604800&response-content-type=text/html&versionId=1#f"
        response, _ = await stand.gateway.get(f"{entry.stac}{query}", SCIENTIST)
        location = response.headers["Location"]
        assert "x=1" not in location
        assert "604800" not in location
        assert "text/html" not in location
        assert "Bearer" not in location
        assert (await follow(stand, response))[0].status == 200


async def test_signatures_stay_out_of_the_log(stand_for: StandFactory, caplog: pytest.LogCaptureFixture) -> None:
    """Of redirects, and of what the gateway itself asks the store when that fails."""
    caplog.set_level(logging.DEBUG)
    async with stand_for(delivery="redirect") as stand:
        entry = await stand.object(BYTES)
        response, _ = await stand.gateway.get(entry.stac, SCIENTIST)
        signature = parse_qs(urlsplit(response.headers["Location"]).query)["X-Amz-Signature"][0]
        for fault in (stand.strict.faults.internal_error, stand.strict.faults.reset_before_head):
            fault(times=4)
            await stand.gateway.request("HEAD", entry.stac, SCIENTIST)
            await stand.gateway.get(entry.stac, SCIENTIST, Range="bytes=0-1,5-6")
        assert stand.strict.requests
        told = "\n".join(f"{record.getMessage()} {record.exc_text} {record.__dict__}" for record in caplog.records)
        assert signature not in told
        assert "X-Amz-Signature" not in told
        assert stand.strict.account.secret_access_key not in told


async def test_a_public_endpoint_is_what_clients_are_sent_to(stand_for: StandFactory) -> None:
    async with stand_for(delivery="redirect", public_endpoint="https://s3.example.org") as stand:
        entry = await stand.object(BYTES, key="a/b c.tif")
        response, _ = await stand.gateway.get(entry.stac, SCIENTIST)
        assert response.headers["Location"].startswith("https://s3.example.org/archive/a/b%20c.tif?")


async def test_a_refused_caller_gets_no_url_and_no_request_reaches_the_store(stand_for: StandFactory) -> None:
    async with stand_for(delivery="redirect") as stand:
        entry = await stand.object(BYTES)
        await stand.gateway.catalogue.limit("user", ADMIN.email or "", downloads=0)
        for who, status in ((None, 401), (ADMIN, 429)):
            response, _ = await stand.gateway.get(entry.stac, who)
            assert response.status == status
            assert "Location" not in response.headers
        assert not stand.strict.requests


async def test_whatever_the_key_the_signed_url_fetches_the_object(stand_for: StandFactory) -> None:
    """And so does the gateway itself."""
    odd = st.text(st.sampled_from("ab/+% ~=&?#;:@!$'()*,[]{}|\\^`\"<>é日🛰\u0301\x7f"), min_size=1, max_size=40)
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)
    keys = st.one_of(odd, text).filter(lambda key: not {".", ".."} & set(key.split("/")))

    async with stand_for(delivery="auto", redirect_min_size=1) as stand:
        numbers = iter(range(1_000_000))
        loop_runs: list[str] = []

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(keys)
        def collect(key: str) -> None:
            loop_runs.append(key)

        collect()
        for key in loop_runs:
            content = key.encode()
            entry = await stand.object(content, key=key, item=f"item-{next(numbers)}")
            response, _ = await stand.gateway.get(entry.stac, SCIENTIST, User_Agent=CURL)
            assert response.status == 307, key
            found, body = await follow(stand, response)
            assert (found.status, body) == (200, content), key
            streamed, body = await stand.gateway.get(entry.stac, SCIENTIST, User_Agent="Wget/1.21.3")
            assert (streamed.status, body) == (200, content), key

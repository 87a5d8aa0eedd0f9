"""What the strict server has besides: contents without memory, cold objects, CORS, a clock, TLS, a process."""

from __future__ import annotations

import datetime
import hashlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from urllib.parse import quote, urlencode

import pytest
from botocore.exceptions import ClientError

from tests.s3.account import Answer
from tests.s3.strict import CorsRule, Pattern, StrictS3, strict_s3
from tests.s3.strict.process import strict_process

GIB = 1 << 30
NOON = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.UTC)


async def get(strict: StrictS3, key: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
    url = strict.account.presign(method, strict.url("bucket", key), at=strict.clock())
    return await strict.account.send(method, url, headers=headers)


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime.datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += datetime.timedelta(**by)


async def test_a_url_expires_by_the_clock_that_it_was_given() -> None:
    clock = Clock()
    async with strict_s3(clock=clock) as strict:
        strict.store.put("bucket", "key", b"content")
        url = strict.account.presign("GET", strict.url("bucket", "key"), at=NOON, expires=60)
        for seconds, status in ((0, 200), (60, 200), (1, 403)):
            clock.advance(seconds=seconds)
            answer = await strict.account.send("GET", url)
            assert answer.status == status
        assert b"Request has expired" in answer.body
        assert answer.headers["Date"] == "Mon, 01 Jun 2026 12:01:01 GMT"


async def test_a_content_of_any_size_takes_no_memory(strict: StrictS3) -> None:
    content = Pattern(5 * 1024 * GIB, seed=7)
    strict.store.put("bucket", "large", content)
    head = await get(strict, "large", method="HEAD")
    assert head.headers["Content-Length"] == str(content.size)
    start = 3 * 1024 * GIB - 5
    got = await get(strict, "large", {"Range": f"bytes={start}-{start + 99_999}", "If-Match": head.headers["ETag"]})
    assert got.body == content.read(start, 100_000)
    assert got.body[5:13] == (start + 5 >> 20).to_bytes(8)
    last = await get(strict, "large", {"Range": "bytes=-3"})
    assert last.body == content.read(content.size - 3, 100)


def test_a_pattern_is_the_same_however_it_is_read() -> None:
    content = Pattern((3 << 20) + 17)
    whole = content.read(0, content.size)
    assert len(whole) == content.size
    assert content.read(content.size, 10) == b""
    for offset, count in ((0, 1), (7, 3), ((1 << 20) - 1, 2), ((1 << 20) - 1, (1 << 20) + 2), ((3 << 20) + 10, 100)):
        assert content.read(offset, count) == whole[offset : offset + count]
    assert whole != Pattern(content.size, seed=1).read(0, content.size)


async def test_a_cold_object_is_restored_for_some_days() -> None:
    clock = Clock()
    # botocore signs with the true time, which the server then has to have, too.
    clock.now = datetime.datetime.now(datetime.UTC)
    async with strict_s3(clock=clock) as strict, strict.account.client() as client:
        strict.store.put("bucket", "cold", b"content", storage_class="DEEP_ARCHIVE")

        async def restore() -> int:
            request = {"Days": 2, "GlacierJobParameters": {"Tier": "Bulk"}}
            answer = await client.restore_object(Bucket="bucket", Key="cold", RestoreRequest=request)
            status: int = answer["ResponseMetadata"]["HTTPStatusCode"]
            return status

        async def head() -> tuple[str | None, str | None]:
            answer = await get(strict, "cold", method="HEAD")
            assert answer.status == 200
            return answer.headers.get("x-amz-storage-class"), answer.headers.get("x-amz-restore")

        refused = await get(strict, "cold")
        assert (refused.status, refused.code) == (403, "InvalidObjectState")
        assert await head() == ("DEEP_ARCHIVE", None)
        assert await restore() == 202
        with pytest.raises(ClientError, match="RestoreAlreadyInProgress"):
            await restore()
        assert await head() == ("DEEP_ARCHIVE", 'ongoing-request="true"')
        assert (await get(strict, "cold")).code == "InvalidObjectState"
        strict.store.finish_restoration("bucket", "cold")
        assert (await get(strict, "cold")).body == b"content"
        _, restored = await head()
        assert restored is not None
        assert restored.startswith('ongoing-request="false", expiry-date="')
        assert await restore() == 200
        clock.advance(days=3)
        assert (await get(strict, "cold")).code == "InvalidObjectState"


async def test_only_a_cold_object_is_restored(strict: StrictS3) -> None:
    strict.store.put("bucket", "warm", b"content", storage_class="STANDARD_IA")
    assert (await get(strict, "warm")).headers["x-amz-storage-class"] == "STANDARD_IA"
    url = f"{strict.url('bucket', 'warm')}?restore"
    body = b"<RestoreRequest><Days>1</Days></RestoreRequest>"
    assert (await strict.account.send_signed("POST", url, body=body)).code == "InvalidObjectState"
    assert (await strict.account.send_signed("POST", url, body=b"<a/>")).code == "MalformedXML"
    assert (await strict.account.send("POST", url, body=body)).code == "AccessDenied"
    tampered = strict.account.sign("POST", url, body=body)
    answer = await strict.account.send("POST", url, headers=tampered, body=body.replace(b"1", b"9"))
    assert answer.code == "XAmzContentSHA256Mismatch"


RULE = CorsRule(["https://*.example.org"], headers=["range", "x-*"], exposed=["ETag", "Content-Range"], max_age=600)


async def test_a_preflight_is_answered_by_the_rules(strict: StrictS3) -> None:
    strict.store.put("bucket", "key", b"content")
    url = strict.url("bucket", "key")

    async def preflight(origin: str, method: str = "GET", headers: str = "Range, X-Test") -> Answer:
        fields = {
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": headers,
        }
        return await strict.account.send("OPTIONS", url, headers=fields)

    assert (await preflight("https://a.example.org")).code == "AccessForbidden"
    strict.store.set_cors("bucket", CorsRule(["https://other"]), RULE)
    allowed = await preflight("https://a.example.org")
    assert allowed.status == 200
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://a.example.org"
    assert allowed.headers["Access-Control-Allow-Methods"] == "GET, HEAD"
    assert allowed.headers["Access-Control-Allow-Headers"] == "range, x-test"
    assert allowed.headers["Access-Control-Max-Age"] == "600"
    assert (await preflight("https://example.com")).code == "AccessForbidden"
    assert (await preflight("https://a.example.org", "PUT")).code == "AccessForbidden"
    assert (await preflight("https://a.example.org", headers="authorization")).code == "AccessForbidden"
    assert (await strict.account.send("OPTIONS", url)).code == "BadRequest"


async def test_answers_to_a_page_follow_the_rules(strict: StrictS3) -> None:
    strict.store.put("bucket", "key", b"content")
    strict.store.set_cors("bucket", RULE)
    ours = await get(strict, "key", {"Origin": "https://a.example.org"})
    assert ours.headers["Access-Control-Allow-Origin"] == "https://a.example.org"
    assert ours.headers["Access-Control-Expose-Headers"] == "ETag, Content-Range"
    refused = await strict.account.send("GET", strict.url("bucket", "key"), headers={"Origin": "https://a.example.org"})
    assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (403, "https://a.example.org")
    for fields in ({"Origin": "https://example.com"}, {}):
        assert "Access-Control-Allow-Origin" not in (await get(strict, "key", fields)).headers
    strict.store.set_cors("bucket", CorsRule(["*"]))
    anyone = await get(strict, "key", {"Origin": "https://example.com"})
    assert anyone.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in anyone.headers


async def test_the_rules_can_be_read(strict: StrictS3) -> None:
    strict.store.put("bucket", "key", b"content")
    async with strict.account.client() as client:
        with pytest.raises(ClientError, match="NoSuchCORSConfiguration"):
            await client.get_bucket_cors(Bucket="bucket")
        strict.store.set_cors("bucket", RULE)
        (rule,) = (await client.get_bucket_cors(Bucket="bucket"))["CORSRules"]
    assert rule == {
        "AllowedOrigins": RULE.origins,
        "AllowedMethods": ["GET", "HEAD"],
        "AllowedHeaders": RULE.headers,
        "ExposeHeaders": RULE.exposed,
        "MaxAgeSeconds": 600,
    }


async def test_a_bucket_lists_its_objects_page_by_page(strict: StrictS3) -> None:
    for key in ("b/ü", "a", "b/<1>", "c"):
        strict.store.put("bucket", key, key.encode(), storage_class="GLACIER" if key == "c" else "STANDARD")
    async with strict.account.client() as client:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket="bucket", PaginationConfig={"PageSize": 3})
        listed = [entry async for page in pages for entry in page["Contents"]]
        below = await client.list_objects_v2(Bucket="bucket", Prefix="b/")
    assert [(entry["Key"], entry["StorageClass"]) for entry in listed] == [
        ("a", "STANDARD"), ("b/<1>", "STANDARD"), ("b/ü", "STANDARD"), ("c", "GLACIER"),
    ]  # fmt: skip
    assert listed[0]["ETag"] == f'"{hashlib.md5(b"a").hexdigest()}"'
    assert [entry["Key"] for entry in below["Contents"]] == ["b/<1>", "b/ü"]


async def test_what_the_server_cannot_do_is_not_taken_for_something_else(strict: StrictS3) -> None:
    strict.store.put("bucket", "key", b"content")
    for method, url in (
        ("GET", f"{strict.url('bucket', 'key')}?versionId=1"),
        ("PUT", strict.url("bucket", "key")),
        ("GET", strict.url("bucket")),
        ("GET", strict.account.endpoint + "/"),
    ):
        assert (await strict.account.send_signed(method, url)).code == "NotImplemented"
    bad = await strict.account.send("GET", f"{strict.account.endpoint}/bucket/%FF")
    assert (bad.status, bad.code) == (400, "InvalidURI")


@pytest.mark.parametrize("value", ["attachment; filename=Łódź", "a\r\nSet-Cookie: b"])
async def test_a_signed_url_sets_no_field_that_http_cannot_have(strict: StrictS3, value: str) -> None:
    strict.store.put("bucket", "key", b"content")
    query = urlencode({"response-content-disposition": value}, quote_via=quote)
    answer = await strict.account.send("GET", strict.account.presign("GET", f"{strict.url('bucket', 'key')}?{query}"))
    assert (answer.status, answer.code) == (400, "InvalidArgument")


async def test_an_error_is_a_document(strict: StrictS3) -> None:
    answer = await strict.account.send("GET", strict.url("bucket", "<&>"))
    assert ElementTree.fromstring(answer.body).findtext("Code") == "AccessDenied"
    assert answer.headers["Content-Type"] == "application/xml"


async def test_https_with_a_client_of_botocore() -> None:
    async with strict_s3(tls=True) as strict, strict.account.client() as client:
        strict.store.put("bucket", "key", b"content", headers={"x-amz-meta-a": "b", "Cache-Control": "no-store"})
        got = await client.get_object(Bucket="bucket", Key="key")
        assert await got["Body"].read() == b"content"
        assert (got["Metadata"], got["CacheControl"]) == ({"a": "b"}, "no-store")
        url = strict.account.presign("GET", strict.account.host_url("bucket", "key"))
        assert url.startswith("https://bucket.s3.localhost:")
        assert (await strict.account.send("GET", url)).body == b"content"


async def test_a_process_of_its_own() -> None:
    with strict_process({"bucket/a/b": 3 << 20}) as account:
        answer = await account.send("GET", account.presign("GET", account.url("bucket", "a/b")))
        assert answer.body == Pattern(3 << 20).read(0, 3 << 20)

"""The strict server answers as Amazon does, and Swift the same, but for what is known."""

from __future__ import annotations

import dataclasses
import datetime
from urllib.parse import quote, urlencode

import pytest

from tests.s3.account import Account
from tests.s3.cases import CASES, CONTENT, KEY, Case, summary
from tests.s3.strict import StrictS3, sigv4, strict_s3
from tests.s3.strict.messages import Request
from tests.s3.swift import Swift

OVERRIDES = {
    "response-content-disposition": 'attachment; filename="a b.tif"',
    "response-content-type": "image/tiff",
    "response-content-language": "pl",
    "response-cache-control": "no-store",
    "response-content-encoding": "identity",
    "response-expires": "Thu, 01 Dec 2033 16:00:00 GMT",
}


async def ask(case: Case, account: Account, bucket: str) -> str:
    sent = case.make(account, account.url(bucket, KEY))
    return summary(await account.send(sent.method, sent.url, headers=sent.headers), sent.method)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_the_strict_server_answers_as_amazon_does(case: Case, strict: StrictS3) -> None:
    strict.store.put("bucket", KEY, CONTENT)
    assert await ask(case, strict.account, "bucket") == case.expected


async def test_swift_answers_the_same_but_for_what_is_known(swift: Swift, bucket: str) -> None:
    await swift.put(bucket, KEY, CONTENT)
    answers = {case.name: await ask(case, swift, bucket) for case in CASES}
    assert answers == {case.name: case.swift or case.expected for case in CASES}
    assert len(answers) == len(CASES)


async def test_a_token_must_be_shown_where_the_account_has_one() -> None:
    async with strict_s3(session_token="token+/=") as strict:
        strict.store.put("bucket", KEY, CONTENT)
        url = strict.url("bucket", KEY)
        assert (await strict.account.send("GET", strict.account.presign("GET", url))).status == 200
        assert (await strict.account.send_signed("GET", url)).status == 200
        without = dataclasses.replace(strict.account, session_token=None)
        assert (await without.send("GET", without.presign("GET", url))).code == "InvalidToken"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_both_let_a_signed_url_set_fields(method: str, swift: Swift, bucket: str, strict: StrictS3) -> None:
    await swift.put(bucket, KEY, CONTENT)
    strict.store.put(bucket, KEY, CONTENT)
    for account in (swift, strict.account):
        url = f"{account.url(bucket, KEY)}?{urlencode(OVERRIDES, quote_via=quote)}"
        answer = await account.send(method, account.presign(method, url))
        assert answer.status == 200
        assert {name: answer.headers[name.removeprefix("response-")] for name in OVERRIDES} == OVERRIDES


async def test_both_have_buckets_in_the_path_and_in_the_host(swift: Swift, bucket: str, strict: StrictS3) -> None:
    await swift.put(bucket, KEY, CONTENT)
    strict.store.put(bucket, KEY, CONTENT)
    for account in (swift, strict.account):
        for url in (account.url(bucket, KEY), account.host_url(bucket, KEY)):
            answer = await account.send("GET", account.presign("GET", url))
            assert (answer.status, answer.body) == (200, CONTENT)


async def test_both_say_what_is_not_there(swift: Swift, bucket: str, strict: StrictS3) -> None:
    strict.store.put(bucket, KEY, CONTENT)
    for account in (swift, strict.account):
        for url, code in (
            (account.url(bucket, "nothing"), "NoSuchKey"),
            (account.url("nothing-at-all", KEY), "NoSuchBucket"),
        ):
            got = await account.send("GET", account.presign("GET", url))
            assert (got.status, got.code) == (404, code)
            assert (await account.send("HEAD", account.presign("HEAD", url))).status == 404
        assert (await account.send_signed("HEAD", account.url(bucket))).status == 200
        assert (await account.send_signed("HEAD", account.url("nothing-at-all"))).status == 404


EXAMPLE = Account("", "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1")
EXAMPLE_TIME = datetime.datetime(2013, 5, 24, tzinfo=datetime.UTC)
NO_BODY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
SIGNED = (
    "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
    "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
)
DOCUMENTED = {
    "in the query": Request(
        "GET",
        "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3"
        "%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
        (("Host", "examplebucket.s3.amazonaws.com"),),
        b"",
    ),
    "in the header": Request(
        "GET",
        "/test.txt",
        (
            ("Host", "examplebucket.s3.amazonaws.com"),
            ("Range", "bytes=0-9"),
            ("x-amz-content-sha256", NO_BODY),
            ("x-amz-date", "20130524T000000Z"),
            (
                "Authorization",
                f"AWS4-HMAC-SHA256 Credential={EXAMPLE.access_key_id}/20130524/us-east-1/s3/aws4_request,{SIGNED}",
            ),
        ),
        b"",
    ),
}


@pytest.mark.parametrize("place", DOCUMENTED)
def test_amazons_own_examples_are_signed_right(place: str) -> None:
    sigv4.verify(DOCUMENTED[place], EXAMPLE, EXAMPLE_TIME)

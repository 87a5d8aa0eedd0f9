"""Requests for one object, as clients of S3 send them, and what Amazon answers."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from tests.s3.account import Account, Answer

KEY = "a dir/Łódź+~&=%.tif"
CONTENT = bytes(range(256)) * 16
ETAG = f'"{hashlib.md5(CONTENT).hexdigest()}"'
LONG_AGO, IN_FUTURE = "Mon, 01 Jan 2024 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"


@dataclasses.dataclass(frozen=True)
class Sent:
    """A request."""

    method: str
    url: str
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Case:
    """A request and the `summary` of what is answered."""

    name: str
    expected: str
    make: Callable[[Account, str], Sent]
    """For the URL of the object."""
    swift: str | None = None
    """What Swift answers, where that is something else."""


def summary(answer: Answer, method: str) -> str:
    """Status, and S3's name of the error or the bytes that came; that they are the right ones is checked."""
    if answer.status == 200:
        assert answer.headers["Content-Length"] == str(len(CONTENT))
        assert answer.headers["ETag"] == ETAG
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert method == "HEAD" or answer.body == CONTENT
    if answer.status == 206:
        found = re.fullmatch(rf"bytes (\d+)-(\d+)/{len(CONTENT)}", answer.headers.get("Content-Range", ""))
        if not found:
            return "206 " + answer.headers["Content-Type"].partition(";")[0]
        part = CONTENT[int(found[1]) : int(found[2]) + 1]
        assert answer.headers["Content-Length"] == str(len(part))
        assert method == "HEAD" or answer.body == part
        return f"206 {found[1]}-{found[2]}"
    return f"{answer.status} {answer.code}".rstrip()


def presigned(
    name: str,
    expected: str,
    *,
    method: str = "GET",
    signed_for: str | None = None,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    signed_headers: Mapping[str, str] | None = None,
    age: float = 0,
    expires: int = 60,
    altered: Callable[[str], str] = lambda url: url,
    account: Mapping[str, Any] | None = None,
    swift: str | None = None,
) -> Case:
    """A case with a URL that was signed ``age`` seconds ago, and then altered."""

    def make(owner: Account, url: str) -> Sent:
        signed = dataclasses.replace(owner, **account or {}).presign(
            signed_for or method,
            url + (f"?{urlencode(query, quote_via=quote)}" if query else ""),
            expires=expires,
            at=datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=age),
            headers=signed_headers,
        )
        return Sent(method, altered(signed), dict(headers or {}))

    return Case(name, expected, make, swift)


def signed(
    name: str,
    expected: str,
    *,
    headers: Mapping[str, str] | None = None,
    altered: Mapping[str, str] | None = None,
    age: float = 0,
) -> Case:
    """A case with a signature in the header, parts of which are then altered."""

    def make(owner: Account, url: str) -> Sent:
        at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=age)
        return Sent("GET", url, {**owner.sign("GET", url, headers=headers, at=at), **(altered or {})})

    return Case(name, expected, make)


def unsigned(name: str, expected: str, *, swift: str | None = None, **headers: str) -> Case:
    """A case without a signature."""
    return Case(name, expected, lambda _, url: Sent("GET", url, headers), swift)


def get_and_head(
    name: str, expected: str, *, swift: str | None = None, swift_head: str | None = None, **headers: str
) -> tuple[Case, Case]:
    """The same fields with GET and with HEAD, which has no name of an error."""
    fields = {field.replace("_", "-"): value for field, value in headers.items()}
    for_head = expected if expected.startswith("206") else expected[:3]
    return (
        presigned(name, expected, headers=fields, swift=swift),
        presigned(f"{name} of HEAD", for_head, method="HEAD", headers=fields, swift=swift_head),
    )


def _last_digit_changed(url: str) -> str:
    return url[:-1] + ("1" if url[-1] == "0" else "0")


def _reordered(url: str) -> str:
    path, _, query = url.partition("?")
    return f"{path}?{'&'.join(reversed(query.split('&')))}"


SIGNATURES = (
    presigned("a good URL", "200"),
    presigned("a good URL for HEAD", "200", method="HEAD"),
    presigned("a URL that is older, but not too old", "200", age=120, expires=600),
    presigned("a URL of the longest life", "200", expires=7 * 86400),
    presigned("an expired URL", "403 AccessDenied", age=120),
    presigned("an expired URL of HEAD", "403", method="HEAD", age=120),
    presigned("a URL of the future", "403 AccessDenied", age=-3600, swift="200"),
    presigned("a URL of more than a week", "400 AuthorizationQueryParametersError", expires=7 * 86400 + 1),
    presigned("a negative life", "400 AuthorizationQueryParametersError", expires=-1),
    presigned("a longer life", "403 SignatureDoesNotMatch", altered=lambda url: url.replace("res=60", "res=90")),
    presigned("another signature", "403 SignatureDoesNotMatch", altered=_last_digit_changed),
    presigned(
        "no signature", "400 AuthorizationQueryParametersError",
        altered=lambda url: url.rpartition("&")[0], swift="403 AccessDenied",
    ),
    presigned("another key", "403 SignatureDoesNotMatch", altered=lambda url: url.replace("a%20dir", "b%20dir")),
    presigned("an extra parameter", "403 SignatureDoesNotMatch", altered=lambda url: f"{url}&user=1"),
    presigned("an extra parameter without a value", "403 SignatureDoesNotMatch", altered=lambda url: f"{url}&user"),
    presigned(
        "an extra override", "403 SignatureDoesNotMatch", altered=lambda url: f"{url}&response-content-type=text/html"
    ),
    presigned("a signed parameter of the client's own", "200", query={"x-user": "Łódź +&"}),
    presigned(
        "such a parameter altered", "403 SignatureDoesNotMatch",
        query={"x-user": "alice"}, altered=lambda url: url.replace("alice", "bob"),
    ),
    presigned("parameters in another order", "200", altered=_reordered),
    presigned("a URL for GET used for HEAD", "403", method="HEAD", signed_for="GET"),
    presigned("a URL for HEAD used for GET", "403 SignatureDoesNotMatch", signed_for="HEAD"),
    presigned("another secret", "403 SignatureDoesNotMatch", account={"secret_access_key": "s" * 40}),
    presigned(
        "an unknown key", "403 InvalidAccessKeyId",
        account={"access_key_id": "nobody"}, swift="403 SignatureDoesNotMatch",
    ),
    presigned("another region", "400 AuthorizationQueryParametersError", account={"region": "eu-west-1"}),
    presigned("a token that is not ours", "400 InvalidToken", account={"session_token": "t"}, swift="200"),
    presigned("a field of Amazon's that is not signed", "403 AccessDenied", headers={"x-amz-meta-a": "1"}),
    presigned("a signed field", "200", signed_headers={"If-Match": ETAG}, headers={"If-Match": ETAG}),
    presigned("a signed field left out", "403 SignatureDoesNotMatch", signed_headers={"If-Match": ETAG}),
    presigned(
        "a signed field altered", "403 SignatureDoesNotMatch",
        signed_headers={"Range": "bytes=0-1"}, headers={"Range": "bytes=0-9"},
    ),
    # Amazon takes it as Swift does; the strict server wants the canonical form on the wire.
    presigned(
        "an escape in small letters", "403 SignatureDoesNotMatch",
        altered=lambda url: url.replace("%C5%81", "%c5%81"), swift="200",
    ),
    presigned(
        "an escape that is not needed", "403 SignatureDoesNotMatch",
        altered=lambda url: url.replace("~", "%7E"), swift="200",
    ),
    presigned("a bearer token besides", "400 InvalidArgument", headers={"Authorization": "Bearer t"}, swift="200"),
    presigned("a password besides", "400 InvalidArgument", headers={"Authorization": "Basic YTpi"}, swift="200"),
    unsigned("no signature at all", "403 AccessDenied", swift="400"),
    unsigned("a bearer token alone", "400 InvalidArgument", Authorization="Bearer t", swift="403 AccessDenied"),
    signed("a signature in the header", "200"),
    signed("a signature in the header, with a range", "206 0-9", headers={"Range": "bytes=0-9"}),
    signed(
        "such a range altered", "403 SignatureDoesNotMatch",
        headers={"Range": "bytes=0-9"}, altered={"Range": "bytes=0-99"},
    ),
    signed("a clock that is wrong", "403 RequestTimeTooSkewed", age=1200),
)  # fmt: skip

RANGES = (
    *get_and_head("the first bytes", "206 0-9", Range="bytes=0-9"),
    *get_and_head("the last bytes", "206 4086-4095", Range="bytes=-10"),
    *get_and_head("the rest", "206 4000-4095", Range="bytes=4000-"),
    *get_and_head("a range beyond the end", "206 4000-4095", Range="bytes=4000-9999"),
    *get_and_head("a longer end than there is", "206 0-4095", Range="bytes=-9999"),
    *get_and_head("a range after the end", "416 InvalidRange", Range="bytes=4096-"),
    *get_and_head("no bytes of the end", "416 InvalidRange", Range="bytes=-0"),
    *get_and_head("a range that goes backwards", "200", Range="bytes=9-0"),
    *get_and_head("two ranges", "200", Range="bytes=0-1,4-5", swift="206 multipart/byteranges"),
    *get_and_head("another unit", "200", Range="items=0-1"),
    *get_and_head("nothing of a range", "200", Range="bytes=-"),
    *get_and_head("words for numbers", "200", Range="bytes=a-b"),
)

PRECONDITIONS = (
    *get_and_head("If-Match that holds", "200", If_Match=ETAG),
    *get_and_head("If-Match of anything", "200", If_Match="*"),
    *get_and_head("If-Match of several", "200", If_Match=f'"other", {ETAG}'),
    *get_and_head("If-Match that fails", "412 PreconditionFailed", If_Match='"other"'),
    *get_and_head("If-Match of a weak tag", "412 PreconditionFailed", If_Match=f"W/{ETAG}"),
    *get_and_head("If-Match that fails, with a range", "412 PreconditionFailed", If_Match='"other"', Range="bytes=0-9"),
    *get_and_head("If-Match that holds, with a range", "206 0-9", If_Match=ETAG, Range="bytes=0-9"),
    *get_and_head("If-None-Match of ours", "304", If_None_Match=ETAG),
    *get_and_head("If-None-Match of anything", "304", If_None_Match="*"),
    *get_and_head("If-None-Match of another", "200", If_None_Match='"other"'),
    *get_and_head(
        "If-None-Match of ours, with a range after the end", "304",
        If_None_Match=ETAG, Range="bytes=9999-", swift_head="416",
    ),
    *get_and_head("If-Modified-Since long ago", "200", If_Modified_Since=LONG_AGO),
    *get_and_head("If-Modified-Since in future", "304", If_Modified_Since=IN_FUTURE),
    *get_and_head("If-Modified-Since of no date", "200", If_Modified_Since="yesterday"),
    *get_and_head("If-Unmodified-Since long ago", "412 PreconditionFailed", If_Unmodified_Since=LONG_AGO),
    *get_and_head("If-Unmodified-Since in future", "200", If_Unmodified_Since=IN_FUTURE),
    *get_and_head(
        "If-Match before If-Unmodified-Since", "200",
        If_Match=ETAG, If_Unmodified_Since=LONG_AGO, swift="412 PreconditionFailed", swift_head="412",
    ),
    *get_and_head(
        "If-None-Match before If-Modified-Since", "200",
        If_None_Match='"other"', If_Modified_Since=IN_FUTURE, swift="304", swift_head="304",
    ),
    *get_and_head("If-Range that holds", "206 0-9", If_Range=ETAG, Range="bytes=0-9"),
    *get_and_head(
        "If-Range that fails", "200",
        If_Range='"other"', Range="bytes=0-9", swift="206 0-9", swift_head="206 0-9",
    ),
    *get_and_head(
        "If-Range of another date", "200",
        If_Range=LONG_AGO, Range="bytes=0-9", swift="206 0-9", swift_head="206 0-9",
    ),
)  # fmt: skip

CASES = SIGNATURES + RANGES + PRECONDITIONS

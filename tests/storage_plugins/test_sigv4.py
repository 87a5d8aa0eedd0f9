"""Signed URLs, byte for byte as botocore makes them, for whatever names and times there are."""

from __future__ import annotations

import datetime
import functools
from typing import Any
from unittest import mock

import botocore.auth
import botocore.credentials
import botocore.session
import pytest
from botocore.config import Config
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storage_plugins.s3.endpoint import Endpoint
from storage_plugins.s3.sigv4 import MOST_SECONDS, Credentials, Origin, Signer, encoded_path

DOCUMENTED = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
"""Of the examples in Amazon's documentation."""
MAY_24_2013 = datetime.datetime(2013, 5, 24, tzinfo=datetime.UTC).timestamp()

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
KEYS = TEXT | st.text(st.sampled_from("abz09+% ~/&=?#;:@!$'()*,[]\\\"<>^`{|}é北\N{GRINNING FACE}\0\x7f"), min_size=1)
HOST_LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{1,20}[a-z0-9])", fullmatch=True)
BUCKETS = HOST_LABELS | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{1,60}[A-Za-z0-9]", fullmatch=True)
REGIONS = ["us-east-1", "RegionOne"]
ENDPOINTS = ["https://s3.eu-central-2.amazonaws.com", "http://store.example:8080", "https://[2001:db8::1]:9000"]
CREDENTIALS = st.builds(
    Credentials,
    st.from_regex(r"[!-~]{1,30}", fullmatch=True),
    st.from_regex(r"[!-~]{1,50}", fullmatch=True),
    st.none() | st.from_regex(r"[!-~]{1,300}", fullmatch=True),
)


def without_dot_segments(key: str) -> bool:
    return {".", ".."}.isdisjoint(key.split("/"))


@functools.cache
def reference_session() -> Any:
    session = botocore.session.Session()
    session._credentials = botocore.credentials.Credentials("", "")
    return session


@functools.cache
def reference_client(region: str, endpoint: str, *, virtual: bool) -> Any:
    config = Config(signature_version="s3v4", s3={"addressing_style": "virtual" if virtual else "path"})
    return reference_session().create_client("s3", region_name=region, endpoint_url=endpoint, config=config)


class TestSigner:
    def test_it_makes_the_url_of_amazons_documentation(self) -> None:
        signer, origin = Signer("us-east-1"), Origin("https", "examplebucket.s3.amazonaws.com")
        url = signer.presign("GET", origin, "/test.txt", credentials=DOCUMENTED, now=MAY_24_2013, seconds=86400)
        assert url == (
            "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
            "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
            "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
            "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        )

    @given(
        region=st.sampled_from(REGIONS),
        endpoint=st.sampled_from(ENDPOINTS),
        virtual=st.booleans(),
        method=st.sampled_from(["GET", "HEAD"]),
        bucket=BUCKETS,
        key=KEYS.filter(without_dot_segments),
        credentials=CREDENTIALS,
        milliseconds=st.integers(0, 4_102_444_800_000),
        seconds=st.integers(1, MOST_SECONDS),
        content_type=st.none() | TEXT,
        disposition=st.none() | TEXT,
    )
    @example(
        region="us-east-1",
        endpoint=ENDPOINTS[0],
        virtual=True,
        method="GET",
        bucket="my-bucket",
        key="//a b+c%2F%/~é/?x=1&y;z:#//",
        credentials=Credentials("AKID/+=", "a/+ =", "to/ken+=="),
        milliseconds=1_772_323_199_999,
        seconds=1,
        content_type="image/tiff; application=geotiff",
        disposition="attachment; filename=\"a b\"; filename*=UTF-8''%C3%A9",
    )
    @settings(deadline=None)
    def test_it_makes_the_urls_of_botocore(
        self,
        region: str,
        endpoint: str,
        virtual: bool,
        method: str,
        bucket: str,
        key: str,
        credentials: Credentials,
        milliseconds: int,
        seconds: int,
        content_type: str | None,
        disposition: str | None,
    ) -> None:
        virtual = virtual and not endpoint.startswith("https://[")
        client, signs = reference_client(region, endpoint, virtual=virtual), reference_session().get_credentials()
        signs.access_key, signs.secret_key = credentials.access_key_id, credentials.secret_access_key
        signs.token = credentials.session_token
        wishes = {"ResponseContentDisposition": disposition, "ResponseContentType": content_type}
        now = milliseconds / 1000
        clock = datetime.datetime.fromtimestamp(now, datetime.UTC)
        with mock.patch.object(botocore.auth, "get_current_datetime", return_value=clock):
            expected = client.generate_presigned_url(
                f"{method.lower()}_object",
                Params={"Bucket": bucket, "Key": key}
                | {name: wish for name, wish in wishes.items() if wish is not None},
                ExpiresIn=seconds,
            )
        origin, root = Endpoint.parse(endpoint, virtual=virtual).root(bucket)
        assert expected == Signer(region).presign(
            method,
            origin,
            root + encoded_path(key),
            credentials=credentials,
            now=now,
            seconds=seconds,
            content_type=content_type,
            disposition=disposition,
        )

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([MAY_24_2013 + step for step in (0, 0.5, 1, 86399.9, 86400, -0.1)]),
                st.sampled_from([DOCUMENTED, Credentials("B", "b"), Credentials("B", "c"), Credentials("B", "c", "t")]),
                st.sampled_from([60, 61]),
            ),
            max_size=20,
        )
    )
    @settings(deadline=None)
    def test_what_it_remembers_never_shows(self, turns: list[tuple[float, Credentials, int]]) -> None:
        remembers, origin = Signer("us-east-1"), Origin("https", "s3.example")
        for now, credentials, seconds in turns:
            url = remembers.presign("GET", origin, "/b/k", credentials=credentials, now=now, seconds=seconds)
            fresh = Signer("us-east-1")
            assert url == fresh.presign("GET", origin, "/b/k", credentials=credentials, now=now, seconds=seconds)

    def test_the_key_of_a_day_is_derived_once(self) -> None:
        signer, origin = Signer("us-east-1"), Origin("https", "s3.example")
        with mock.patch("storage_plugins.s3.sigv4.hmac.digest", wraps=botocore.auth.hmac.digest) as digest:
            for second in range(10):
                signer.presign("GET", origin, "/b/k", credentials=DOCUMENTED, now=MAY_24_2013 + second, seconds=60)
        assert digest.call_count == 4 + 10

    def test_secrets_are_not_shown(self) -> None:
        credentials = Credentials("key-id", "secret", "token", 5)
        signer = Signer("us-east-1")
        signer.presign("GET", Origin("https", "s3.example"), "/b/k", credentials=credentials, now=5, seconds=60)
        assert repr(credentials) == "Credentials(expires=5)"
        assert repr(signer) == "Signer('us-east-1', 's3')"


class TestEncodedPath:
    @pytest.mark.parametrize(
        ("key", "path"),
        [
            ("a/b", "a/b"),
            ("/a//b/", "/a//b/"),
            ("a-b_c.d~e", "a-b_c.d~e"),
            ("a b", "a%20b"),
            ("a+b%2Fc", "a%2Bb%252Fc"),
            ("é", "%C3%A9"),
            ("?#;:&=", "%3F%23%3B%3A%26%3D"),
            ("\0", "%00"),
        ],
    )
    def test_only_unreserved_characters_and_slashes_stay(self, key: str, path: str) -> None:
        assert encoded_path(key) == path

    def test_half_a_surrogate_pair_has_no_encoding(self) -> None:
        with pytest.raises(UnicodeEncodeError):
            encoded_path("\ud800")

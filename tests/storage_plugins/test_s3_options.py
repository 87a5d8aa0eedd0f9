"""What a table of the plug-in ``s3`` may say, and which objects it then serves."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConfigurationError
from gateway.locations import load_plugin
from gateway.storage import CanSign, CanStage, CanStat, CanStream, OnDisk
from storage_plugins.s3.buckets import BucketMap, Place
from storage_plugins.s3.endpoint import Endpoint
from storage_plugins.s3.options import Options
from storage_plugins.s3.plugin import S3Storage

ROOT = Path(__file__).parents[2]
LEAST: dict[str, object] = {"region": "eu-central-2", "buckets": ["bucket"]}
KEYS = {"access_key_id": "key-id", "secret_access_key": "the-secret", "session_token": "the-token"}

PATHS = st.lists(st.sampled_from(["a", "b", "aa", "b.c"]), min_size=1, max_size=5).map("/".join)


class TestPlugin:
    async def test_it_is_announced_and_has_its_capabilities(self) -> None:
        storage = load_plugin("s3").from_options("cloud", LEAST | KEYS)
        assert isinstance(storage, S3Storage)
        assert storage.name == "cloud"
        for capability in (CanStat, CanStream, CanSign, CanStage):
            assert isinstance(storage, capability)
        assert not isinstance(storage, OnDisk)
        await storage.close()

    @pytest.mark.parametrize(
        ("options", "loaded"),
        [
            ("**{'access_key_id': 'a', 'secret_access_key': 'b'}", False),
            ("profile='some'", True),
        ],
    )
    def test_aiobotocore_is_loaded_only_if_it_has_to_find_credentials(self, options: str, loaded: bool) -> None:
        program = (
            "import sys\n"
            "from storage_plugins.s3.plugin import S3Storage\n"
            "assert not {'aiobotocore', 'botocore'} & set(sys.modules)\n"
            f"S3Storage.from_options('s', dict(region='x', buckets=['b'], {options}))\n"
            "print({'aiobotocore', 'botocore'} <= set(sys.modules), 'botocore' in sys.modules)"
        )
        shown = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
        assert shown.stdout.split() == [str(loaded), str(loaded)]

    async def test_secrets_are_not_shown(self) -> None:
        options = Options.parse(LEAST | KEYS)
        storage = S3Storage.from_options("cloud", LEAST | KEYS)
        for shown in (repr(options), repr(storage), repr(vars(storage))):
            assert not [secret for secret in KEYS.values() if secret in shown]
        await storage.close()


class TestOptions:
    def test_the_least(self) -> None:
        options = Options.parse(LEAST)
        assert str(options.endpoint.origin) == "https://s3.eu-central-2.amazonaws.com"
        assert options.endpoint.virtual
        assert options.public_endpoint == options.endpoint
        assert (options.region, options.restore_tier) == ("eu-central-2", "Standard")
        assert (options.credentials, options.profile, options.ca_file) == (None, None, None)

    def test_a_region_of_china_has_a_domain_of_its_own(self) -> None:
        options = Options.parse(LEAST | {"region": "cn-north-1"})
        assert str(options.endpoint.origin) == "https://s3.cn-north-1.amazonaws.com.cn"
        assert options.endpoint.virtual

    def test_all(self) -> None:
        options = Options.parse(
            {
                "endpoint": "http://10.0.0.1:8080/",
                "public_endpoint": "https://data.example.org",
                "region": "RegionOne",
                "addressing": "path",
                **KEYS,
                "buckets": {"old/": "new/prefix/", "other": "other"},
                "ca_file": "/etc/ssl/ca.pem",
                "restore_tier": "Bulk",
                "restore_hours": 3,
            }
        )
        assert str(options.endpoint.origin) == "http://10.0.0.1:8080"
        assert str(options.public_endpoint.origin) == "https://data.example.org"
        assert not options.endpoint.virtual
        assert options.credentials is not None
        assert options.credentials.session_token == "the-token"
        assert options.buckets.find("old/key") == ("new", "prefix/key")
        assert (options.ca_file, options.restore_tier) == (Path("/etc/ssl/ca.pem"), "Bulk")
        assert options.restore_hours == 3

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"regoin": "x", "Endpoint": "x"}, "Endpoint, regoin: no such option of plug-in 's3' (endpoint, "),
            ({"region": None}, "region: must be the name of the region"),
            ({"region": ""}, "region: must be text, and not empty"),
            ({"region": 1}, "region: must be text"),
            ({"region": "eu west"}, "region: must be the name of the region"),
            ({"region": "a/b"}, "region: must be the name of the region"),
            ({"endpoint": "s3.example.org"}, "endpoint: must be like 'https://host'"),
            ({"endpoint": "ftp://example.org"}, "endpoint: must be like 'https://host'"),
            ({"endpoint": "https://example.org/s3"}, "endpoint: must be like 'https://host'"),
            ({"endpoint": "https://example.org?x=the-secret"}, "endpoint: must be like 'https://host'"),
            ({"endpoint": "https://example.org#x"}, "endpoint: must be like 'https://host'"),
            ({"endpoint": "https://user:the-secret@example.org"}, "endpoint: must be like 'https://host'"),
            ({"endpoint": "https://user:the-secret@exa[mple.org"}, "endpoint: must be like 'https://host'"),
            ({"endpoint": "https://example.org:0"}, "endpoint: must be like 'https://host'"),
            ({"endpoint": "https://example.org:99999"}, "endpoint: must be like 'https://host'"),
            ({"endpoint": "https://exämple.org"}, "endpoint: must be like 'https://host'"),
            ({"endpoint": "https://exa mple.org"}, "endpoint: must be like 'https://host'"),
            ({"endpoint": "https://"}, "endpoint: must be like 'https://host'"),
            ({"endpoint": 5}, "endpoint: must be text"),
            ({"public_endpoint": "x"}, "public_endpoint: must be like 'https://host'"),
            ({"endpoint": "http://[::1]:8", "addressing": "virtual"}, "endpoint: must have a name as its host"),
            ({"addressing": "auto"}, "addressing: must be one of 'path', 'virtual'"),
            ({"access_key_id": "x"}, "access_key_id, secret_access_key: go together"),
            ({"secret_access_key": "the-secret"}, "access_key_id, secret_access_key: go together"),
            ({"session_token": "the-token"}, "access_key_id, secret_access_key: go together"),
            ({"access_key_id": "x", "secret_access_key": ""}, "secret_access_key: must be text, and not empty"),
            ({"access_key_id": "x", "secret_access_key": "the-secret\n"}, "secret_access_key: must be of visible"),
            ({"access_key_id": "é", "secret_access_key": "the-secret"}, "access_key_id: must be of visible"),
            ({**KEYS, "session_token": "the token"}, "session_token: must be of visible"),
            ({**KEYS, "profile": "x"}, "profile: is of no use with access_key_id"),
            ({"profile": ""}, "profile: must be text"),
            ({"buckets": None}, "buckets: must be a list like"),
            ({"buckets": []}, "buckets: must be a list like"),
            ({"buckets": {}}, "buckets: must be a list like"),
            ({"buckets": "bucket"}, "buckets: must be a list like"),
            ({"buckets": [5]}, "buckets: must be a list like"),
            ({"buckets": {"a": 5}}, "buckets: must be a list like"),
            ({"buckets": [""]}, "buckets: '' must be a bucket"),
            ({"buckets": ["s3://bucket"]}, "buckets: 's3://bucket' must be a bucket"),
            ({"buckets": ["/bucket"]}, "buckets: '/bucket' must be a bucket"),
            ({"buckets": [".."]}, "buckets: '..' must be a bucket"),
            ({"buckets": ["bucket//"]}, "buckets: 'bucket//' must have no segment that is empty"),
            ({"buckets": ["bucket/../x"]}, "buckets: 'bucket/../x' must have no segment that is empty"),
            ({"buckets": {"a": "b/./"}}, "buckets: 'b/./' must have no segment that is empty"),
            ({"buckets": ["bucket", "bucket/"]}, "buckets: 'bucket/' is there twice"),
            ({"restore_tier": "Fast"}, "restore_tier: must be one of 'Standard', 'Bulk', 'Expedited'"),
            ({"restore_hours": 0}, "restore_hours: must be a number of hours above 0"),
            ({"restore_hours": "5"}, "restore_hours: must be a number of hours above 0"),
            ({"ca_file": True}, "ca_file: must be text"),
            ({**KEYS, "ca_file": "/absent"}, "ca_file: /absent cannot be read"),
            ({**KEYS, "ca_file": __file__}, f"ca_file: {__file__} cannot be read"),
        ],
    )
    def test_what_is_wrong_is_named_and_no_secret_shown(self, options: dict[str, object], complaint: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            S3Storage.from_options("cloud", LEAST | options)
        assert str(caught.value).startswith(complaint)
        assert "the-" not in str(caught.value)


class TestEndpoint:
    @pytest.mark.parametrize(
        ("url", "origin"),
        [
            ("https://S3.Example.ORG", "https://s3.example.org"),
            ("https://s3.example.org:443/", "https://s3.example.org"),
            ("http://s3.example.org:443", "http://s3.example.org:443"),
            ("http://127.0.0.1:80", "http://127.0.0.1"),
            ("http://[2001:DB8::1]:9000", "http://[2001:db8::1]:9000"),
            ("HTTP://rook_ceph", "http://rook_ceph"),
        ],
    )
    def test_it_is_written_as_clients_write_the_host_field(self, url: str, origin: str) -> None:
        assert str(Endpoint.parse(url, virtual=False).origin) == origin

    @pytest.mark.parametrize(
        ("url", "virtual"),
        [
            ("https://s3.eu-west-1.amazonaws.com", True),
            ("https://s3.amazonaws.com", True),
            ("https://s3.amazonaws.com.example.org", False),
            ("https://amazonaws.com", False),
            ("https://minio.example.org", False),
        ],
    )
    def test_amazons_buckets_are_named_in_the_host(self, url: str, virtual: bool) -> None:
        assert Endpoint.parse(url, virtual=None).virtual is virtual

    @pytest.mark.parametrize(
        ("bucket", "root"),
        [
            ("bucket", "https://bucket.s3.example/"),
            ("my.bucket", "https://s3.example/my.bucket/"),
            ("My_Bucket", "https://s3.example/My_Bucket/"),
            ("ab", "https://s3.example/ab/"),
            ("-bucket", "https://s3.example/-bucket/"),
            ("b" * 64, f"https://s3.example/{'b' * 64}/"),
        ],
    )
    def test_a_bucket_that_cannot_be_in_a_host_is_named_in_the_path(self, bucket: str, root: str) -> None:
        origin, path = Endpoint.parse("https://s3.example", virtual=True).root(bucket)
        assert f"{origin}{path}" == root


class TestBuckets:
    @pytest.mark.parametrize(
        ("location", "found"),
        [
            ("bucket/key", ("bucket", "key")),
            ("bucket/a/b", ("elsewhere", "x/b")),
            ("bucket/a/b/c", ("deep", "c")),
            ("bucket/a/b/c/", ("deep", "c/")),
            ("bucket/a/bc", ("elsewhere", "x/bc")),
            ("bucket/ab/c", ("bucket", "ab/c")),
            ("bucket/a", ("bucket", "a")),
            ("bucket/a/", ("elsewhere", "x/")),
            ("bucket//a/b", ("bucket", "/a/b")),
            ("bucket/", None),
            ("bucket", None),
            ("bucket/a/b/", None),
            ("bucket2/key", None),
            ("bucke/t", None),
            ("elsewhere/x/b", None),
            ("", None),
            ("/", None),
        ],
    )
    def test_the_longest_place_wins_segment_by_segment(self, location: str, found: tuple[str, str] | None) -> None:
        places = {"bucket": "bucket", "bucket/a/": "elsewhere/x", "bucket/a/b": "deep/"}
        buckets = BucketMap({Place.parse(name): Place.parse(held) for name, held in places.items()})
        assert buckets.find(location) == found
        assert buckets.buckets == {"bucket", "elsewhere", "deep"}

    @given(st.dictionaries(PATHS, PATHS, min_size=1), PATHS)
    def test_it_finds_what_a_search_through_all_places_finds(self, places: dict[str, str], location: str) -> None:
        buckets = BucketMap({Place.parse(name): Place.parse(held) for name, held in places.items()})
        above = max((name for name in places if location.startswith(f"{name}/")), key=len, default=None)
        expected = None if above is None else places[above] + location.removeprefix(above)
        found = buckets.find(location)
        assert (found and "/".join(found)) == expected


@pytest.fixture(scope="module")
def mapped() -> Iterator[S3Storage]:
    storage = S3Storage.from_options("s", LEAST | KEYS | {"buckets": {"bucket": "bucket", "moved/a": "target"}})
    yield storage
    asyncio.run(storage.close())


class TestLocate:
    @pytest.mark.parametrize(
        ("href", "location"),
        [
            ("s3://bucket/key", "bucket/key"),
            ("S3://bucket/key", "bucket/key"),
            ("s3://bucket/a//b/", "bucket/a//b/"),
            ("s3://bucket//key", "bucket//key"),
            ("s3://bucket/a%20b+c?d=e#f", "bucket/a%20b+c?d=e#f"),
            ("s3://bucket/Île 北京/...", "bucket/Île 北京/..."),
            ("s3://bucket/%2e%2e/key", "bucket/%2e%2e/key"),
            ("s3://moved/a/key", "moved/a/key"),
            ("s3://moved/b/key", None),
            ("s3://target/key", None),
            ("s3://Bucket/key", None),
            ("s3://bucket2/key", None),
            ("s3://bucket", None),
            ("s3://bucket/", None),
            ("s3:///key", None),
            ("s3://", None),
            ("s3://user@bucket/key", None),
            ("s3:bucket/key", None),
            ("s3a://bucket/key", None),
            ("https://bucket/key", None),
            ("/bucket/key", None),
            ("bucket/key", None),
            ("", None),
        ],
    )
    def test_hrefs_are_taken_letter_for_letter(self, mapped: S3Storage, href: str, location: str | None) -> None:
        assert mapped.locate(href) == location

    @pytest.mark.parametrize("key", [".", "..", "a/../b", "./a", "a/.", "/.."])
    def test_dot_segments_are_refused(self, mapped: S3Storage, key: str) -> None:
        with pytest.raises(ValueError, match=r"segment '\.' or '\.\.'"):
            mapped.locate(f"s3://bucket/{key}")

"""Assets of files: where they are downloaded, and what is told of their bytes."""

from __future__ import annotations

import datetime
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog.ingest.checksums import DIGEST_BYTES, from_multihash, to_multihash
from gateway.catalog.ingest.model import Checksum
from gateway.stac.assets import (
    ALTERNATE,
    AUTHENTICATION,
    FILE,
    ORDER,
    SCHEMES,
    TIMESTAMPS,
    Showing,
    asset,
)
from gateway.stac.model import LastRestore
from gateway.staging.model import RestoreState
from tests.stac.rows import Json, file_row

HERE = "https://data.example.org/stac/collections/c/items/i/download/data"
THERE = "s3://bucket/scene.tif"
END = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
ORIGIN = Showing("origin")


def shown(body: Json, showing: Showing = Showing(), **row: Any) -> Json:  # noqa: B008 - it is frozen
    found = asset(file_row(body, **row), HERE, showing)
    return found.document


def test_the_link_is_the_gateways_and_the_original_an_alternate() -> None:
    came = {"href": THERE, "type": "image/tiff", "roles": ["data"], "storage:refs": ["aws"], "eo:bands": [1], "x": {}}
    found = asset(file_row(came), HERE, Showing())
    assert found.document == {**came, "href": HERE, "alternate": {"s3": {"href": THERE}}}
    assert found.extensions == {ALTERNATE}


def test_by_setting_it_is_the_other_way_round() -> None:
    found = shown({"href": THERE}, ORIGIN, needs_login=True)
    assert found == {"href": THERE, "alternate": {"https": {"href": HERE, "auth:refs": list(SCHEMES)}}}


@pytest.mark.parametrize(
    ("href", "key"),
    [
        (THERE, "s3"),
        ("S3://bucket/a", "s3"),
        ("https://h.org/a", "https"),
        ("http://h.org/a?b=c", "https"),
        ("gs://bucket/a", "origin"),
        ("ftp://h.org/a", "origin"),
    ],
)
def test_an_original_has_a_name_that_says_what_it_is(href: str, key: str) -> None:
    assert shown({"href": href})["alternate"] == {key: {"href": href}}


@pytest.mark.parametrize(
    "href",
    [
        "./scene.tif",
        "scene.tif",
        "../scene.tif",
        "/data/archive/scene.tif",
        "file:///data/archive/scene.tif",
        "FILE:/data/archive/scene.tif",
        "C:\\archive\\scene.tif",
        "C:/archive/scene.tif",
        "//host/scene.tif",
        "/vsis3/bucket/scene.tif",
        "https://user:password@h.org/scene.tif",
        "https://user@h.org/scene.tif",
        "https://h.org/scene.tif?X-Amz-Credential=a&X-Amz-Signature=b",
        "https://h.org/scene.tif?se=2027&sig=b",
        "https://h.org/scene.tif?se=2027&%73ig=b",
        "https://h.org/scene.tif?access_token=b",
        "https://h.org/scene.tif?a=b;x-oss-signature=c",
        "https://h.org/scene.tif?q-sign-algorithm=sha1&q-signature=c",
        "https://h.org/scene.tif?subscription-key=b",
        "https://h.org/scene.tif?X-Api-Key=b",
        "https://h.org/scene.tif?apikey=b",
        "https://h.org/scene.tif?Policy=a&Signature=b&Key-Pair-Id=c",
        "https://h.org/scene.tif?OSSAccessKeyId=b",
        "https://h.org/collections/c/items/i/download/a?link=b",
        "https://h.org/scene.tif#token=b",
        "https://[h.org/scene.tif",
        "",
    ],
)
@pytest.mark.parametrize("showing", [Showing(), ORIGIN])
def test_nobody_learns_a_path_of_this_machine_or_a_credential(href: str, showing: Showing) -> None:
    """Neither of the file, nor of its alternates."""
    assert shown({"href": href}, showing) == {"href": HERE}
    assert shown({"uri": href}, showing) == {"href": HERE, "title": "scene.tif", "roles": ["data"]}
    came = {"href": THERE, "alternate": {"local": {"href": href}, "odd": 1, "none": {}}}
    assert href not in [one["href"] for one in shown(came, showing)["alternate"].values()]
    assert set(shown(came, showing)["alternate"]) == ({"s3"} if showing.href == "gateway" else {"https"})


def test_what_clients_are_never_led_to_is_not_told() -> None:
    assert shown({"href": "https://inner.org/a"}, Showing(tells=lambda href: "inner" not in href)) == {"href": HERE}


def test_alternates_that_were_there_stay_and_keep_their_names() -> None:
    other = {"href": "https://mirror.org/a", "alternate:name": "Mirror"}
    came = {"href": "https://h.org/a", "alternate": {"https": other}}
    assert shown(came)["alternate"] == {"https": other, "origin": {"href": "https://h.org/a"}}
    assert shown(came, ORIGIN)["alternate"] == {"origin": other, "https": {"href": HERE}}
    twice = {"href": THERE, "alternate": {"mirror": {"href": THERE}}}
    assert shown(twice)["alternate"] == {"mirror": {"href": THERE}}
    full = {"href": THERE, "alternate": {"s3": {"href": "s3://b/1"}, "origin": {"href": "s3://b/2"}}}
    assert [one["href"] for one in shown(full)["alternate"].values()] == ["s3://b/1", "s3://b/2", THERE]


def test_who_must_log_in_is_told_how_and_nobody_else_is() -> None:
    came = {"href": THERE, "auth:refs": ["aws"]}
    private = asset(file_row(came, needs_login=True), HERE, Showing())
    assert private.document["auth:refs"] == ["gateway_token", "gateway_key"]
    alternate: Any = private.document["alternate"]
    assert alternate["s3"] == {"href": THERE, "auth:refs": ["aws"]}
    assert AUTHENTICATION in private.extensions
    public = asset(file_row(came), HERE, Showing())
    assert "auth:refs" not in public.document
    assert public.document["alternate"] == {"s3": {"href": THERE, "auth:refs": ["aws"]}}
    assert AUTHENTICATION not in public.extensions


def test_size_and_checksum_are_what_the_gateway_serves() -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    came = {"href": THERE, "file:size": "many", "file:checksum": "Zm9v"}
    row = file_row(came, size=0, checksum=digest.upper(), checksum_algorithm="SHA-256")
    found = asset(row, HERE, Showing())
    assert (found.document["file:size"], found.document["file:checksum"]) == (0, f"1220{digest}")
    assert FILE in found.extensions
    assert FILE not in asset(file_row(came), HERE, Showing()).extensions


@given(st.sampled_from(sorted(DIGEST_BYTES)), st.data())
def test_a_multihash_is_read_as_what_it_was_made_of(algorithm: str, data: st.DataObject) -> None:
    size = DIGEST_BYTES[algorithm]
    digits = data.draw(st.binary(min_size=size, max_size=size)).hex()
    made = to_multihash(Checksum(algorithm, data.draw(st.sampled_from([digits, digits.upper()]))))
    assert made == made.lower()
    assert from_multihash(made) == Checksum(algorithm, digits)


@pytest.mark.parametrize(
    ("states", "orderable"),
    [
        (("NEARLINE",), True),
        (("NEARLINE", "OFFLINE", "LOST"), True),
        (("NEARLINE", "ONLINE"), False),
        (("ONLINE",), False),
        (("OFFLINE",), False),
        ((), False),
    ],
)
def test_what_lies_on_a_slow_storage_can_be_ordered(states: tuple[str, ...], orderable: bool) -> None:
    found = asset(file_row({"href": THERE, "expires": "2027-01-01T00:00:00Z"}, states=states), HERE, Showing())
    assert (found.order_status == "orderable") == orderable == (ORDER in found.extensions)
    assert found.document.get("order:status") == ("orderable" if orderable else None)
    assert found.document["expires"] == "2027-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("QUEUED", "pending"),
        ("STAGING", "ordered"),
        ("EXPIRED", "orderable"),
        ("CANCELED", "orderable"),
        ("FAILED", "failed"),
    ],
)
def test_what_is_being_restored_says_so_and_cannot_be_read_yet(state: RestoreState, status: str) -> None:
    restore = LastRestore(state, END if state == "EXPIRED" else None)
    found = asset(file_row({"href": THERE}, states=("NEARLINE",), restore=restore), HERE, Showing())
    assert found.document["order:status"] == status
    assert found.extensions == {ALTERNATE, ORDER}
    assert "expires" not in found.document


def test_what_is_restored_says_until_when() -> None:
    came = {"href": THERE, "expires": "2030-01-01T00:00:00Z"}
    row = file_row(came, states=("NEARLINE",), restore=LastRestore("RESTORED", END))
    found = asset(row, HERE, Showing())
    assert found.document["order:status"] == "succeeded"
    assert found.document["expires"] == "2026-03-01T12:00:00Z"
    assert found.extensions == {ALTERNATE, ORDER, TIMESTAMPS}


@pytest.mark.parametrize(
    ("path", "kept"),
    [("a/b.tif", True), ("b.tif", True), ("/data/b.tif", False), ("a\\b", False), ("file:b", False), (7, False)],
)
def test_a_local_path_is_kept_if_it_is_one_within_the_download(path: object, kept: bool) -> None:
    assert ("file:local_path" in shown({"href": THERE, "file:local_path": path})) == kept


@pytest.mark.parametrize(
    ("data_type", "roles"),
    [("RAWDATA", ["data"]), ("QUICKLOOK_MD", ["overview"]), ("THUMBNAIL", ["thumbnail"]), ("OTHER", [])],
)
def test_a_file_of_regards_becomes_an_asset(data_type: str, roles: list[str]) -> None:
    came = {"dataType": data_type, "uri": "https://regards.org/x", "storages": ["Local"], "filesize": 6}
    row = file_row(came, data_type=data_type, size=6, mime_type="image/png")
    assert asset(row, HERE, Showing()).document == {
        "href": HERE,
        "title": "scene.tif",
        "roles": roles,
        "type": "image/png",
        "file:size": 6,
        "alternate": {"https": {"href": "https://regards.org/x"}},
    }


def test_the_media_type_is_as_it_came_else_what_is_known() -> None:
    assert shown({"href": THERE, "type": "image/tiff"}, mime_type="x/y")["type"] == "image/tiff"
    assert shown({"href": THERE}, mime_type="x/y")["type"] == "x/y"
    assert "type" not in shown({"href": THERE})

"""Which storage location an href belongs to, and which hrefs belong nowhere."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog.ingest.assets import Context
from gateway.catalog.ingest.events import RefusedError
from gateway.catalog.ingest.hrefs import locate
from gateway.catalog.ingest.model import Copy
from gateway.locations import Location
from storage_plugins.local import LocalStorage
from tests.catalog.ingest.conftest import Ingesting, everyones
from tests.catalog.ingest.memory import MemoryStorage

Item = dict[str, Any]


class Bucket:
    """Holds ``s3://{name}/…``."""

    def __init__(self, name: str, prefix: str = "") -> None:
        self.name = name
        self.prefix = prefix or f"s3://{name}/"

    def locate(self, href: str) -> str | None:
        return href.removeprefix(self.prefix) if href.startswith(self.prefix) else None


def location(storage: object, *tenants: str, prefixes: tuple[str, ...] = ("",)) -> Location:
    return Location(storage, tenants=frozenset(tenants or ("*",)), prefixes=prefixes)  # type: ignore[arg-type]


DISK = LocalStorage("disk", Path("/archive"))


def found(
    href: str, *locations: Location, alternates: tuple[str, ...] = (), remote: bool = False
) -> tuple[list[tuple[str, str]], bool, list[str]]:
    remarks: list[str] = []
    context = Context("earth", locations, remote, "/archive/items", None, remarks.append)
    copies, reference = locate(href, alternates, "asset 'a'", context)
    return [(copy.storage, copy.location) for copy in copies], reference, remarks


def refusal(href: str, *locations: Location, remote: bool = False) -> str:
    with pytest.raises(RefusedError) as refused:
        found(href, *locations, remote=remote)
    return str(refused.value)


@pytest.mark.parametrize(
    ("href", "where", "reason"),
    [
        (
            "s3://archive/x/a.tif",
            location(Bucket("archive"), "moon"),
            "storage 'archive' does not serve tenant 'earth', to whom 'x/a.tif' would belong",
        ),
        (
            "s3://archive/x/a.tif",
            location(Bucket("archive"), prefixes=("y/", "{tenant}/")),
            "storage 'archive' serves no location like 'x/a.tif' for tenant 'earth'",
        ),
        (
            "s3://archive/earth/../moon/a.tif",
            location(Bucket("archive"), prefixes=("{tenant}/",)),
            "storage 'archive' serves no location like 'earth/../moon/a.tif' for tenant 'earth'",
        ),
        (
            "../a.tif",
            location(DISK, "earth", prefixes=("items/",)),
            "storage 'disk' serves no location like 'a.tif' for tenant 'earth'",
        ),
        (
            "https://host/a.tif",
            location(MemoryStorage("partner"), "moon"),
            "storage 'partner' does not serve tenant 'earth', to whom 'https://host/a.tif' would belong",
        ),
    ],
)
def test_what_a_location_does_not_serve_belongs_nowhere(href: str, where: Location, reason: str) -> None:
    assert refusal(href, where) == f"asset 'a': {reason}"


@pytest.mark.parametrize(
    "where",
    [location(MemoryStorage("partner"), "moon"), location(MemoryStorage("partner"), prefixes=("x/",)),
     location(Bucket("web", "s3://mine/"))],
)  # fmt: skip
def test_no_message_tells_by_what_a_url_lets_in(where: Location) -> None:
    reason = refusal("https://host/a?sig=secret", where)
    assert "'https://host/a?...'" in reason
    assert "secret" not in reason


def test_another_location_may_take_what_one_refuses() -> None:
    moons, shared = location(Bucket("moons", "s3://b/"), "moon"), location(Bucket("shared", "s3://b/"))
    assert found("s3://b/a", moons, shared) == ([("shared", "a")], False, [])
    assert found("s3://b/a", shared, moons) == ([("shared", "a")], False, [])


def test_all_who_refuse_are_named() -> None:
    reason = refusal("s3://b/a", location(Bucket("x", "s3://b/"), "moon"), location(Bucket("y", "s3://b/"), "sun"))
    assert "storage 'x' does not serve" in reason
    assert "storage 'y' does not serve" in reason


@pytest.mark.parametrize(("name", "href"), [("s3", "s3://theirs/a"), ("web", "https://theirs/a")])
def test_a_storage_named_like_that_of_others_is_given_nothing_that_it_does_not_hold(name: str, href: str) -> None:
    mine = location(Bucket(name, "s3://mine/"))
    assert refusal(href, mine) == f"asset 'a': storage '{name}' does not hold '{href}', and no other location does"
    assert "does not serve tenant" in refusal(href, location(Bucket(name, href[:-1]), "moon"))
    assert found(href, mine, location(Bucket("other", href[:-1]))) == ([("other", "a")], False, [])
    other_name = location(Bucket("bucket", "s3://mine/"))
    assert found(href, other_name) == ([(name, href)], name == "web", [])


def test_what_others_hold_stays_a_reference_once_a_location_reaches_it() -> None:
    assert found("https://host/a", location(MemoryStorage("web"))) == ([("web", "https://host/a")], True, [])
    assert found("https://host/a", location(MemoryStorage("ours"))) == ([("ours", "https://host/a")], False, [])
    locations = location(MemoryStorage("web")), location(Bucket("bucket"))
    alternates = ("s3://bucket/a",)
    assert found("https://host/a", *locations, alternates=alternates)[1:] == (False, [])


@pytest.mark.parametrize(
    "href",
    [
        "a.tif",
        "./a.tif",
        "../a.tif",
        "/archive/a.tif",
        "//host/a.tif",
        "file:///archive/a.tif",
        "FILE:///archive/a.tif",
        "file:a.tif",
        "file://localhost/archive/a.tif",
        " /archive/a.tif",
        "\tfile:///archive/a.tif",
        "fi\nle:///archive/a.tif",
        "%66ile:///archive/a.tif",
        "%2Farchive/a.tif",
        "?file:///archive/a.tif",
        "1s3://mine/a.tif",
    ],
)
def test_an_entry_from_elsewhere_may_not_name_a_local_path(href: str) -> None:
    assert "names a local path, which an entry from elsewhere may not" in refusal(href, location(DISK), remote=True)


def test_an_entry_from_elsewhere_may_not_name_what_a_disk_locates() -> None:
    class Mirror(LocalStorage):
        """Has on its disk what others know by URL."""

        def locate(self, href: str) -> str | None:
            return super().locate(href.removeprefix("https://mirror"))

    mirror = location(Mirror("mirror", Path("/archive")))
    href = "https://mirror/archive/a.tif"
    assert found(href, mirror) == ([("mirror", "a.tif")], False, [])
    reason = "storage 'mirror' is a disk of this machine, whose files ('a.tif') an entry from elsewhere may not name"
    assert refusal(href, mirror, remote=True) == f"asset 'a': {reason}"
    assert found(href, mirror, location(MemoryStorage("site")), remote=True)[0] == [("site", href)]


@pytest.mark.parametrize(
    ("href", "copy"),
    [
        ("s3://bucket/a", ("bucket", "a")),
        ("s3://theirs/a", ("s3", "s3://theirs/a")),
        ("https://host/a", ("web", "https://host/a")),
    ],
)
def test_an_entry_from_elsewhere_may_name_what_lies_elsewhere(href: str, copy: tuple[str, str]) -> None:
    assert found(href, location(DISK), location(Bucket("bucket")), remote=True)[0] == [copy]


@pytest.mark.parametrize(
    ("alternate", "remote", "remark"),
    [
        ("s3://moons/a", False, "storage 'moons' does not serve tenant 'earth', to whom 'a' would belong"),
        ("//host/a", False, "href '//host/a' has a host but no scheme"),
        ("/archive/a", True, "href '/archive/a' names a local path, which an entry from elsewhere may not"),
        ("a.tif", True, "href 'a.tif' names a local path, which an entry from elsewhere may not"),
    ],
)
def test_a_refused_alternate_is_left_out_with_a_remark(alternate: str, remote: bool, remark: str) -> None:
    locations = location(DISK), location(Bucket("bucket")), location(Bucket("moons"), "moon")
    copies, _, remarks = found("s3://bucket/a", *locations, alternates=(alternate, "s3://bucket/b"), remote=remote)
    assert copies == [("bucket", "a"), ("bucket", "b")]
    assert remarks == [f"asset 'a': an alternate is left out: {remark}"]


def test_an_alternate_does_not_stand_in_for_an_href_that_is_refused() -> None:
    locations = location(Bucket("bucket")), location(Bucket("moons"), "moon")
    with pytest.raises(RefusedError, match="'moons' does not serve"):
        found("s3://moons/a", *locations, alternates=("s3://bucket/a",))


HREFS = st.one_of(
    st.from_regex(r"\A(s3://(b|c|d)|https://h|file:|/archive|\.|\.\.|)(/(earth|moon|\.\.|\.|a))*\Z"),
    st.text(max_size=20),
)
LOCATIONS = st.lists(
    st.builds(
        location,
        st.sampled_from([DISK, Bucket("b"), Bucket("c"), MemoryStorage("web"), Bucket("s3", "s3://b/")]),
        st.sampled_from(["earth", "moon", "*"]),
        prefixes=st.sampled_from([("",), ("earth/", "a/"), ("{tenant}/",), ("s3://",)]),
    ),
    unique_by=lambda where: where.storage.name,
)


@given(HREFS, st.lists(HREFS, max_size=2).map(tuple), LOCATIONS, st.booleans())
def test_every_copy_is_served_by_its_location_or_lies_where_no_location_reaches(
    href: str, alternates: tuple[str, ...], locations: list[Location], remote: bool
) -> None:
    by_name = {where.storage.name: where for where in locations}
    try:
        copies, _, _ = found(href, *locations, alternates=alternates, remote=remote)
    except RefusedError:
        return
    assert copies
    for storage, place in copies:
        if storage in by_name:
            assert by_name[storage].serves("earth", place)
            assert not (remote and storage == "disk")
        else:
            assert (storage, place) == (("s3" if place.lower().startswith("s3") else "web"), href)
            assert all(where.storage.locate(href) is None for where in locations)


async def test_a_refused_copy_rejects_its_item_and_no_other(
    ingesting: Ingesting, disk: LocalStorage, item: Item
) -> None:
    (ingesting.directory / "a.tif").write_bytes(b"a")
    (ingesting.directory / "mine").mkdir()
    (ingesting.directory / "mine" / "a.tif").write_bytes(b"a")
    [everyone] = ingesting.locations
    ingesting.locations = [dataclasses.replace(everyone, tenants=frozenset({"earth"}), prefixes=("mine/",))]
    entries = [{**item, "id": href, "assets": {"a": {"href": href}}} for href in ("a.tif", "mine/a.tif")]
    result = await ingesting.of(*entries)
    assert result.reasons == ["asset 'a': storage 'disk' serves no location like 'a.tif' for tenant 'earth'"]
    rows = await ingesting.rows(
        "SELECT provider_id, storage, location FROM products JOIN files USING (product_id) JOIN copies USING (file_id)"
    )
    assert rows == [{"provider_id": "mine/a.tif", "storage": "disk", "location": "mine/a.tif"}]


async def test_an_ingest_from_elsewhere_takes_nothing_from_the_disk(
    ingesting: Ingesting, disk: LocalStorage, item: Item
) -> None:
    secret = ingesting.directory / "secret.tif"
    secret.write_bytes(b"secret")
    ingesting.locations = [*ingesting.locations, everyones(MemoryStorage("site", "s3://"))]
    hrefs = ("secret.tif", str(secret), secret.as_uri(), "s3://bucket/a")
    entries = [{**item, "id": f"{number}", "assets": {"a": {"href": href}}} for number, href in enumerate(hrefs)]
    entries.append(
        {**item, "id": "alternate", "assets": {"a": {"href": "s3://b/a", "alternate": {"x": {"href": str(secret)}}}}}
    )
    result = await ingesting.of(*entries, remote=True)
    assert [rejection.place.id for rejection in result.rejections] == ["0", "1", "2"]
    assert await ingesting.rows("SELECT DISTINCT storage FROM copies") == [{"storage": "site"}]
    assert sum("an alternate is left out" in remark for remark in result.remarks) == 1


def test_the_state_is_that_of_every_copy() -> None:
    context = Context("earth", [location(Bucket("bucket"))], False, "/", None, lambda _: None)
    copies, _ = locate("s3://bucket/a", ("s3://bucket/b",), "a", context, state="NEARLINE")
    assert copies == (Copy("bucket", "a", "NEARLINE"), Copy("bucket", "b", "NEARLINE"))


@pytest.mark.parametrize(
    ("kind", "said", "state"),
    [
        ("ONLINE", "ONLINE", "ONLINE"),
        ("ONLINE", "NEARLINE", "NEARLINE"),
        ("NEARLINE", "ONLINE", "NEARLINE"),
        ("OFFLINE", "NEARLINE", "OFFLINE"),
    ],
)
def test_a_copy_is_as_near_as_its_storage_whatever_the_catalogue_says(
    kind: Literal["ONLINE", "NEARLINE", "OFFLINE"], said: str, state: str
) -> None:
    tape = dataclasses.replace(location(Bucket("tape")), type=kind)
    context = Context("earth", (tape,), False, "/archive/items", None, lambda _: None)
    copies, _ = locate("s3://tape/x", (), "asset 'a'", context, state=said)
    assert copies == (Copy("tape", "x", state),)

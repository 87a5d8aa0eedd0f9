"""Metalink documents: well-formed, whatever a catalogue holds, and no name leads out of the client's directory."""

from __future__ import annotations

import datetime
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from gateway.stac.metalink import Entry, metalink

NOW = datetime.datetime(2026, 5, 1, 12, 0, 0, 5, datetime.UTC)
NAMESPACE = "{urn:ietf:params:xml:ns:metalink}"


def names(entries: list[Entry]) -> list[str]:
    return [str(file.get("name")) for file in ET.fromstring(metalink(entries, NOW)).iter(f"{NAMESPACE}file")]


def entry(directory: str = "item", name: str = "data.tif", url: str = "https://h/x?a=1&b=2") -> Entry:
    return Entry(directory, name, url, 5, {"sha-256": "ab"})


@given(st.lists(st.builds(entry, st.text(max_size=20), st.text(max_size=20)), max_size=8))
def test_names_are_safe_and_differ(entries: list[Entry]) -> None:
    found = names(entries)
    assert len({name.casefold() for name in found}) == len(entries)
    for name in found:
        directory, file = name.split("/")
        assert {directory, file} & {"", ".", ".."} == set()
        assert set(name) & set('\\:*?"<>|\0\n') == set()


def test_the_same_name_twice_is_numbered_before_its_extension() -> None:
    assert names([entry(), entry(), entry(name="DATA.TIF"), entry(name="plain"), entry(name="plain")]) == [
        "item/data.tif", "item/data (2).tif", "item/DATA (3).TIF", "item/plain", "item/plain (2)",
    ]  # fmt: skip


def test_the_document_is_as_in_rfc_5854() -> None:
    root = ET.fromstring(metalink([entry(), Entry("i", "n", "https://h/", None, {})], NOW))
    assert root.findtext(f"{NAMESPACE}published") == "2026-05-01T12:00:00Z"
    one, other = root.findall(f"{NAMESPACE}file")
    assert [(child.tag.removeprefix(NAMESPACE), child.attrib, child.text) for child in one] == [
        ("size", {}, "5"),
        ("hash", {"type": "sha-256"}, "ab"),
        ("url", {}, "https://h/x?a=1&b=2"),
    ]
    assert [child.tag.removeprefix(NAMESPACE) for child in other] == ["url"]

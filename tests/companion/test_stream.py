"""Documents pass through in bounded memory, changed as they would be if they had come whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog.ingest.jsonstream import MAX_ENTRY
from gateway.companion.rewriting import DOWNLOAD_CLASS, Rewriting
from gateway.companion.stream import STREAMED, MalformedError, Rewriter

UPSTREAM, ROOT = "https://stac.example.org/api", "https://data.example.org"


def rewriting(document: str = f"{UPSTREAM}/search") -> Rewriting:
    return Rewriting(UPSTREAM, ROOT, document, lambda href: href.startswith("s3://ours/"))


def passed(pieces: Sequence[bytes]) -> Any:
    rewriter = Rewriter(rewriting())
    given_back = b"".join([rewriter.feed(piece) for piece in pieces]) + rewriter.end()
    return json.loads(given_back)


def item(number: int = 1, **more: object) -> dict[str, Any]:
    return {
        "type": "Feature",
        "id": f"i {number}",
        "collection": "c/1",
        "properties": {"título": "ü"},
        "links": [{"rel": "self", "href": f"{UPSTREAM}/collections/c%2F1/items/i%20{number}"}],
        "assets": {
            "a.tif": {"href": "s3://ours/a.tif", "type": "image/tiff"},
            "other": {"href": "https://elsewhere.example.org/b"},
        },
        **more,
    }


def test_an_items_links_lead_here_and_what_can_be_delivered_is_downloaded_here() -> None:
    found = passed([json.dumps(item()).encode()])
    download = f"{ROOT}/collections/c%2F1/items/i%201/download/a.tif"
    assert found["links"] == [{"rel": "self", "href": f"{ROOT}/collections/c%2F1/items/i%201"}]
    assert found["assets"]["a.tif"] == {
        "href": download,
        "type": "image/tiff",
        "alternate": {"origin": {"href": "s3://ours/a.tif"}},
    }
    assert found["assets"]["other"] == {"href": "https://elsewhere.example.org/b"}
    assert any("alternate-assets" in one for one in found["stac_extensions"])


def test_an_item_is_changed_wherever_its_id_stands_among_its_members() -> None:
    first = item()
    last = dict(sorted(first.items(), key=lambda pair: pair[0] in ("id", "collection", "type")))
    assert passed([json.dumps(last).encode()]) == passed([json.dumps(first).encode()])


def test_a_landing_page_names_the_download_class_and_what_describes_this_api() -> None:
    landing = {
        "type": "Catalog",
        "conformsTo": ["https://api.stacspec.org/v1.0.0/core"],
        "links": [
            {"rel": "root", "href": UPSTREAM},
            {"rel": "search", "href": "search", "method": "POST"},
            {"rel": "service-desc", "href": f"{UPSTREAM}/openapi.json", "type": "application/json"},
            {"rel": "about", "href": f"{UPSTREAM}-notes"},
        ],
    }
    rewriter = Rewriter(rewriting(f"{UPSTREAM}/"))
    found = json.loads(rewriter.feed(json.dumps(landing).encode()) + rewriter.end())
    assert found["conformsTo"] == ["https://api.stacspec.org/v1.0.0/core", DOWNLOAD_CLASS]
    assert [link["href"] for link in found["links"]] == [
        ROOT,
        f"{ROOT}/search",
        f"{ROOT}/api",
        f"{UPSTREAM}-notes",
    ]


@pytest.mark.parametrize("name", ["features", "collections", "catalogs", "children"])
def test_whatever_is_listed_leads_here(name: str) -> None:
    listed = [{"type": "Catalog", "id": "a", "links": [{"rel": "self", "href": f"{UPSTREAM}/catalogs/a"}]}]
    found = passed([json.dumps({name: listed, "links": []}).encode()])
    assert found[name][0]["links"] == [{"rel": "self", "href": f"{ROOT}/catalogs/a"}]


def test_of_what_is_downloaded_here_no_url_that_lets_in_whoever_has_it_is_told() -> None:
    """Else downloads would go past rights and quotas."""
    signed = "https://store.example.org/a.tif?X-Amz-Signature=secret"
    others = {"signed": {"href": signed}, "local": {"href": "file:///secret/a.tif"}, "odd": 1,
              "other": {"href": "../b.tif", "title": "B"}}  # fmt: skip
    assets = {
        "a": {"href": signed, "title": "A"},
        "b": {"href": "s3://ours/b.tif", "alternate": others},
    }
    every = Rewriting(UPSTREAM, ROOT, f"{UPSTREAM}/search", lambda _: True)
    found: Any = every.whole(item(assets=assets))
    assert "secret" not in json.dumps(found)
    download = f"{ROOT}/collections/c%2F1/items/i%201/download"
    assert found["assets"]["a"] == {"href": f"{download}/a", "title": "A"}
    assert found["assets"]["b"]["alternate"] == {
        "other": {"href": "https://stac.example.org/b.tif", "title": "B"},
        "origin": {"href": "s3://ours/b.tif"},
    }
    without: Any = every.whole(item(assets={"a": assets["a"]}))
    assert "stac_extensions" not in without, "there are no alternates"


def test_what_is_no_url_passes_as_it_is() -> None:
    bad = "https://[odd/x"
    document = item(links=[{"rel": "about", "href": bad}], assets={"a": {"href": bad}})
    found = passed([json.dumps(document).encode()])
    assert (found["links"][0]["href"], found["assets"]["a"]["href"]) == (bad, bad)


def test_a_page_passes_item_by_item() -> None:
    rewriter = Rewriter(rewriting())
    document = json.dumps({"type": "FeatureCollection", "features": [item(n) for n in range(300)], "links": []})
    most = given_back = 0
    for start in range(0, len(document), 4096):
        given_back += len(rewriter.feed(document[start : start + 4096].encode()))
        most = max(most, len(rewriter._text))
    given_back += len(rewriter.end())
    assert most < 16_384 < len(document) < given_back


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_DOCUMENTS = st.one_of(
    _JSON,
    st.builds(
        lambda items, before, after: {**before, "features": items, **after},
        st.lists(st.builds(item, st.integers(0, 99)) | _JSON, max_size=4),
        st.dictionaries(st.text(max_size=8), _JSON, max_size=3),
        st.dictionaries(st.sampled_from(["links", "context", "collections", "conformsTo", "x"]), _JSON, max_size=3),
    ),
)


@given(_DOCUMENTS, st.integers(1, 40), st.sampled_from([None, 1]))
def test_however_it_is_cut_a_document_is_changed_as_a_whole_one(document: Any, size: int, indent: int | None) -> None:
    text = json.dumps(document, indent=indent).encode()
    found = passed([text[at : at + size] for at in range(0, len(text), size)])
    if isinstance(document, dict):
        expected: Any = {
            name: [rewriting().whole(one) for one in value] if name in STREAMED and isinstance(value, list) else value
            for name, value in document.items()
        }
        rest = {name: value for name, value in expected.items() if not _streamed(name, value)}
        assert {name: found[name] for name in expected if _streamed(name, expected[name])} == {
            name: value for name, value in expected.items() if _streamed(name, value)
        }
        if len(rest) == len(expected):
            assert found == rewriting().whole(document)
    else:
        assert found == document


def _streamed(name: str, value: object) -> bool:
    return name in STREAMED and isinstance(value, list)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b'{"a":1',
        b'{"features":[{}',
        b'{"features":[{}}',
        b'{"features":[1 2]}',
        b'{"a" 1}',
        b'{"a":1}}',
        b'{"a":1} x',
        b'{"a":NaN}',
        b"\xff",
        b'{1:"a"}',
        b"[" * 100_000,
        b'{"a":1,}',
        b'{"features":[1,]}',
    ],
)
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedError):
        passed([text])


def test_a_value_without_end_is_refused_before_memory_is() -> None:
    rewriter, piece = Rewriter(rewriting()), b"a" * (MAX_ENTRY // 2)
    rewriter.feed(b'{"a":"' + piece)
    with pytest.raises(MalformedError):
        rewriter.feed(piece + piece)

"""Files that hold what they should not, and more than memory would."""

from __future__ import annotations

import json
import os
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.catalog.ingest import Count
from tests.catalog.ingest.conftest import Ingesting
from tests.catalog.ingest.test_regards import FEATURE, URN

Item = dict[str, Any]
EXAMPLES = 60 if os.environ.get("GATEWAY_TEST_FULL") else 25
MANY = 8_000 if os.environ.get("GATEWAY_TEST_FULL") else 4_000
"""Items that fill several batches."""
ONE, AGAIN = Count(accepted=1), Count(updated=1)


async def test_a_bad_line_is_named_and_the_others_go_in(ingesting: Ingesting, item: Item) -> None:
    file = ingesting.directory / "items.ndjson"
    lines = [json.dumps({**item, "id": f"scene-{number}"}) for number in range(4)]
    lines[1] = lines[1][:-1]
    lines[2] = lines[2].replace("scenes", "")
    file.write_text("\n".join(lines))
    result = await ingesting(file)
    assert result.summary.items == Count(accepted=2)
    assert [(rejection.place.line, rejection.place.id) for rejection in result.rejections] == [
        (2, None),
        (3, "scene-2"),
    ]
    assert str(result.rejections[1].place) == f"{file}, line 3, id 'scene-2'"
    assert result.reasons[0].startswith("is not JSON: Expecting ',' delimiter (column ")
    assert result.reasons[1] == "collection is empty"


async def test_what_is_no_item_is_refused_with_its_place(ingesting: Ingesting, item: Item) -> None:
    result = await ingesting.of(
        {"type": "Catalog", "id": "root"},
        {"type": "FeatureCollection", "features": [item, 7, None, {"type": "Feature"}, {"type": "Mystery"}]},
        {"type": "FeatureCollection", "features": {}},
        [{}, "text"],
        {"type": "Collection"},
        {"type": "Collection", "id": ["x"]},
        7,
    )
    assert [
        (rejection.place.line, rejection.place.index, rejection.reason[:28]) for rejection in result.rejections
    ] == [
        (1, None, "is a STAC Catalog, which hol"),
        (2, 1, "is no JSON object"),
        (2, 2, "is no JSON object"),
        (2, 3, "has no id"),
        (2, 4, "type is 'Mystery': it is nei"),
        (3, None, "is a FeatureCollection witho"),
        (4, 0, "has no type: it is neither a"),
        (4, 1, "is no JSON object"),
        (5, None, "has no id"),
        (6, None, "id is an array of 1, no stri"),
        (7, None, "is no JSON object"),
    ]
    assert result.summary.items == ONE
    assert result.summary.rejected == 11


async def test_paths_that_cannot_be_read(ingesting: Ingesting) -> None:
    (ingesting.directory / "empty").mkdir()
    (ingesting.directory / "links").mkdir()
    (ingesting.directory / "links" / "broken.json").symlink_to("nowhere")
    (ingesting.directory / "links" / "page.html").write_text("<html>")
    os.mkfifo(ingesting.directory / "pipe")
    (ingesting.directory / "deep.json").write_text("[" * 90 + "[" * 100 + "]" * 190)
    paths = [ingesting.directory / name for name in ("none.json", "pipe", "deep.json", "empty", "links")]
    result = await ingesting(*paths)
    assert result.reasons == [
        "cannot be read: No such file or directory",
        "is no regular file",
        "nests deeper than 100 arrays and objects",
        "cannot be read: No such file or directory",
    ]
    assert result.remarks[0].startswith("holds no file with one of the suffixes")
    assert result.summary.rejected == 4


hostile = st.recursive(
    st.sampled_from(
        [
            None,
            True,
            0,
            -1,
            1.5,
            10**30,
            2**53 + 1,
            "",
            "\0",
            "x",
            "ü" * 600,
            "s3://x/a",
            "https://[",
            "file:///a",
            "%00",
        ]
    )
    | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "id", "coordinates", "href", "datetime", "content", "features", "a"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


MEMBERS = (
    "type",
    "id",
    "collection",
    "properties",
    "geometry",
    "bbox",
    "assets",
    "links",
    "entityType",
    "files",
    "tags",
    "title",
    "content",
)


@settings(
    max_examples=60 if "GATEWAY_TEST_FULL" in os.environ else 25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
)
@given(st.lists(st.tuples(st.sampled_from(MEMBERS), hostile, st.booleans()), min_size=20, max_size=20))
async def test_whatever_a_catalogue_says_it_is_taken_or_refused(
    ingesting: Ingesting, changes: list[tuple[str, Any, bool]]
) -> None:
    asset = {"href": "s3://x/a", "roles": ["data"], "file:size": 1}
    good = {
        "type": "Feature",
        "id": "x",
        "collection": "c",
        "geometry": None,
        "properties": {"datetime": "2020-01-01T00:00:00Z"},
        "assets": {"a": asset},
    }
    feature = {**FEATURE, "id": URN.replace(":tenant:", ":earth:"), "collection": "c"}
    collection = {"type": "Collection", "id": "c"}
    entries = [
        {**((good, feature, collection)[number % 3]), member: value}
        if replace
        else {**good, "assets": {"a": {**asset, member: value, "href": value}}}
        for number, (member, value, replace) in enumerate(changes)
    ]
    file = ingesting.directory / "hostile.ndjson"
    file.write_text("\n".join(json.dumps(entry) for entry in entries))
    result = await ingesting(file)
    summary = result.summary
    taken = sum(count.accepted + count.updated for count in (summary.items, summary.collections))
    # An entry may unfold into several or none where a change makes a collection of it.
    assert taken + summary.rejected > 0
    assert all(reason for reason in result.reasons)


async def test_texts_that_jsonb_cannot_hold_are_refused_one_by_one(ingesting: Ingesting, item: Item) -> None:
    good = json.dumps(item)
    bad = [
        good.replace('"links": []', f'"links": {value}')
        for value in (
            '"\\u0000"',
            '"\\ud800"',
            '{"\\udc00": 1}',
            "1e999",
            "NaN",
            "[" * 5000 + "]" * 5000,
            "[" * 200 + "]" * 200,
            "9" * 5000,
        )
    ]
    file = ingesting.directory / "items.ndjson"
    file.write_text("\n".join([*bad, good]))
    result = await ingesting(file)
    assert [rejection.place.line for rejection in result.rejections] == list(range(1, len(bad) + 1))
    assert result.summary.items == ONE
    array = ingesting.directory / "items.json"
    array.write_text(f"[{', '.join([bad[0], bad[1], bad[3], good])}]")
    result = await ingesting(array)
    assert [rejection.place.index for rejection in result.rejections] == [0, 1, 2]
    assert result.summary.items == AGAIN


async def test_a_large_collection_is_taken_in_bounded_memory(ingesting: Ingesting, item: Item) -> None:
    """As much memory for `MANY` items as for 2,000: one batch is held, and the next."""
    import tracemalloc

    peaks = {}
    for count in (2_000, MANY):
        file = ingesting.directory / f"{count}.json"
        item["properties"]["filler"] = "x" * 2000
        with file.open("w") as stream:
            stream.write('{"features": [')
            for number in range(count):
                stream.write(
                    ("," if number else "")
                    + json.dumps({**item, "id": f"scene-{number}", "assets": {"a": {"href": "s3://x/a"}}})
                )
            stream.write('], "type": "FeatureCollection"}')
        tracemalloc.start()
        result = await ingesting(file)
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert result.summary.items.accepted + result.summary.items.updated == count
    assert peaks[MANY] < 1.3 * peaks[2_000]
    assert peaks[MANY] < 30_000_000

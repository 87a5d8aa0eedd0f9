from __future__ import annotations

import datetime
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.http.evaluate import Representation, Span
from tests.http import oracle
from tests.http.support import (
    CONTENT_TYPE,
    DATA,
    ETAG,
    LENGTH,
    MODIFIED,
    MODIFIED_TEXT,
    NOW,
    get,
    representation,
    spans,
    written,
)
from tests.http.test_ranges import range_fields

VALIDATORS = {"ETag": ETAG, "Last-Modified": MODIFIED_TEXT}
CONDITIONS = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range", "Range")


def test_whole() -> None:
    verdict = get()
    assert verdict.status == 200
    assert verdict.headers == {
        **VALIDATORS,
        "Accept-Ranges": "bytes",
        "Content-Type": CONTENT_TYPE,
        "Content-Length": str(LENGTH),
    }
    assert verdict.parts == (Span(0, LENGTH),)
    assert (verdict.length, verdict.representation_bytes) == (LENGTH, LENGTH)


def test_part() -> None:
    verdict = get(("Range", "bytes=10-19"))
    assert verdict.status == 206
    assert verdict.headers == {
        **VALIDATORS,
        "Accept-Ranges": "bytes",
        "Content-Type": CONTENT_TYPE,
        "Content-Length": "10",
        "Content-Range": f"bytes 10-19/{LENGTH}",
    }
    assert verdict.parts == (Span(10, 20),)
    assert (verdict.length, verdict.representation_bytes) == (10, 10)


def test_head_is_a_get_without_its_body() -> None:
    verdict = get(("Range", "bytes=0-9"), method="HEAD")
    assert (verdict.status, verdict.headers) == (200, get().headers)  # RFC 9110 §9.3.2, §14.2
    assert (verdict.parts, verdict.length, verdict.representation_bytes) == ((), 0, 0)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_not_modified_repeats_the_validators_alone(method: str) -> None:
    verdict = get(("If-None-Match", ETAG), method=method)
    assert (verdict.status, verdict.headers, verdict.parts) == (304, VALIDATORS, ())  # RFC 9110 §15.4.5, §8.6


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_precondition_failed_says_nothing_of_the_representation(method: str) -> None:
    verdict = get(("If-Match", '"x"'), method=method)
    assert (verdict.status, verdict.headers, verdict.parts) == (412, {}, ())


def test_unsatisfiable_tells_the_length() -> None:
    verdict = get(("Range", f"bytes={LENGTH}-"))
    assert (verdict.status, verdict.headers, verdict.parts) == (416, {"Content-Range": "bytes */100"}, ())
    assert verdict.length == 0


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_empty_representation(method: str) -> None:
    verdict = get(method=method, of=representation(length=0))
    assert (verdict.status, verdict.headers["Content-Length"], verdict.parts) == (200, "0", ())


def test_an_unknown_change_gives_no_last_modified() -> None:
    unknown = representation(last_modified=None)
    for verdict in (
        get(of=unknown),
        get(("Range", "bytes=0-9"), of=unknown),
        get(("If-None-Match", ETAG), of=unknown),
    ):
        assert "Last-Modified" not in verdict.headers


def test_last_modified_is_never_after_the_answer() -> None:
    ahead = representation(last_modified=NOW + datetime.timedelta(days=1))
    assert get(of=ahead).headers["Last-Modified"] == "Fri, 20 Nov 2026 08:30:00 GMT"  # RFC 9110 §8.8.2.1


def test_lengths_beyond_64_bits() -> None:
    huge = representation(length=10**25)
    assert get(of=huge).headers["Content-Length"] == "1" + "0" * 25
    assert get(("Range", "bytes=-1"), of=huge).headers["Content-Range"] == f"bytes {'9' * 25}-{'9' * 25}/1{'0' * 25}"


@pytest.mark.parametrize(
    "content_type",
    ["image/tiff", "image/tiff; application=geotiff; profile=cloud-optimized", 'text/plain;charset="utf-8"', "a/b ;c"],
)
def test_media_types_are_sent_as_they_are(content_type: str) -> None:
    assert get(of=representation(content_type=content_type)).headers["Content-Type"] == content_type


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "tiff",
        "/",
        "image/",
        "image/tiff\r\nSet-Cookie: a=b",
        "image/tiff\n",
        "image/ti ff",
        "te\u00e9t/x",
        "a/b;\x00",
    ],
)
def test_what_is_no_media_type_is_not_sent(content_type: str) -> None:
    bad = representation(content_type=content_type)
    assert get(of=bad).headers["Content-Type"] == "application/octet-stream"
    assert b"Content-Type: application/octet-stream\r\n" in written(get(("Range", "bytes=0-0,5-5"), of=bad), DATA)


@pytest.mark.parametrize("etag", ["", "a", '"a', 'w/"a"', '"a" ', '"\u00e9"', '"a\r\nb"', "*", '"a", "b"', '"a b"'])
def test_a_representation_has_an_entity_tag(etag: str) -> None:
    with pytest.raises(ValueError, match="entity-tag"):
        representation(etag=etag)


def test_a_representation_has_a_length_and_a_timezone() -> None:
    with pytest.raises(ValueError, match="length"):
        representation(length=-1)
    with pytest.raises(ValueError, match="timezone"):
        representation(last_modified=MODIFIED.replace(tzinfo=None))


@given(range_fields(), st.integers(0, 40))
def test_the_bytes_written_are_those_asked_for(field: str, length: int) -> None:
    data = DATA[:length]
    verdict = get(("Range", field), of=representation(length=length))
    expected = oracle.answer(field, length)
    assert verdict.length == len(written(verdict, data))
    if expected == "ignore":
        assert (verdict.status, written(verdict, data)) == (200, data)
    elif expected == "unsatisfiable":
        assert (verdict.status, verdict.parts) == (416, ())
    else:
        assert verdict.status == 206
        assert [list(range(start, stop)) for start, stop in spans(verdict)] == expected
        assert verdict.representation_bytes == sum(map(len, expected)) <= length
        assert verdict.headers["Content-Length"] == str(len(written(verdict, data)))
        assert verdict.headers["Content-Type"].startswith("multipart/") == (len(expected) > 1)
        assert ("Content-Range" in verdict.headers) == (len(expected) == 1)


near_values = st.one_of(
    st.text(),
    st.text('W/"*rev-7, \t=bytes0123456789;\udc80\r\n\x00'),
    range_fields(),
    st.sampled_from(
        [ETAG, f"W/{ETAG}", "*", MODIFIED_TEXT, "Sun Mar  1 12:00:00 2026", "Sunday, 01-Mar-26 12:00:00 GMT"]
    ),
)
line_lists = st.lists(st.tuples(st.sampled_from([*CONDITIONS, "if-range", "RANGE", "Accept"]), near_values), max_size=6)


@given(line_lists, st.sampled_from(["GET", "HEAD"]), st.sampled_from([0, 1, LENGTH]), st.booleans())
@example([("Range", "bytes=0-0"), ("If-Range", f"W/{ETAG}")], "GET", LENGTH, True)
def test_any_headers_get_a_true_answer(lines: list[tuple[str, str]], method: str, length: int, dated: bool) -> None:
    """Nothing raises; every answer is well formed; a 206 is only ever the range asked for, of what If-Range names."""
    data = DATA[:length]
    there = representation(length=length, last_modified=MODIFIED if dated else None)
    verdict = get(*lines, method=method, of=there)
    values = {name.lower(): [value for other, value in lines if other.lower() == name.lower()] for name, _ in lines}

    assert verdict.status in (200, 206, 304, 412, 416)
    assert all(text.isascii() and text.isprintable() for field in verdict.headers.items() for text in field)
    body = written(verdict, data)
    assert len(body) == verdict.length
    if verdict.status == 200:
        assert verdict.headers["Content-Length"] == str(length)
        assert body == (data if method == "GET" else b"")
    elif verdict.status == 206:
        assert method == "GET"
        (field,) = values["range"]
        assert [list(range(start, stop)) for start, stop in spans(verdict)] == oracle.answer(field, length)
        assert verdict.headers["Content-Length"] == str(len(body))
        if "if-range" in values:
            (validator,) = values["if-range"]
            assert validator.strip(" \t") == ETAG or (dated and "12:00:00" in validator and '"' not in validator)
    else:
        assert body == b""
        assert "Content-Length" not in verdict.headers
        cause = {304: ("if-none-match", "if-modified-since"), 412: ("if-match", "if-unmodified-since"), 416: ("range",)}
        assert any(name in values for name in cause[verdict.status])


BOMBS = {
    "commas": "," * 100_000,
    "spaces and a letter": " " * 100_000 + "x",
    "a tag, spaces and a letter": ETAG + " " * 100_000 + "x",
    "quotes": '"' * 100_001,
    "a quote never closed": '"' + "a" * 100_000,
    "weak marks": "W/" * 50_000,
    "tags": '"a",' * 25_000,
    "tags, then garbage": '"a",' * 25_000 + "x",
    "empty tags": '"",' * 33_333,
    "blank elements": " ," * 50_000,
    "digits": "bytes=" + "9" * 100_000 + "-",
    "ranges": "bytes=" + "0-0," * 25_000,
    "empty ranges": "bytes=" + "," * 100_000,
    "hyphens": "bytes=" + "-" * 100_000,
    "a date that never ends": "Sun, 01 Mar 2026 12:00:00 " + "G" * 100_000,
    "spaces around a date": " " * 50_000 + MODIFIED_TEXT + " " * 50_000,
    "equals signs": "=" * 100_000,
}


@pytest.mark.parametrize("name", CONDITIONS)
@pytest.mark.parametrize("bomb", [pytest.param(value, id=label) for label, value in BOMBS.items()])
def test_long_values_take_linear_time(name: str, bomb: str) -> None:
    """100 kB; anything quadratic would do 10**10 steps and miss the bound of a second by far."""
    lines = [(name, bomb)] if name != "If-Range" else [(name, bomb), ("Range", "bytes=0-9")]
    before = time.process_time()
    get(*lines)
    assert time.process_time() - before < 1


def test_many_lines_take_linear_time() -> None:
    before = time.process_time()
    for name in CONDITIONS:
        get(*[(name, '"a"')] * 25_000)
    assert time.process_time() - before < 3


def test_a_long_media_type_takes_linear_time() -> None:
    before = time.process_time()
    for content_type in ("a" * 100_000, "a/" + "b" * 100_000 + " " * 100_000 + "x", "a/b" + ";" * 100_000 + "\n"):
        get(of=Representation(LENGTH, ETAG, None, content_type))
    assert time.process_time() - before < 1

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.conditional import EntityTag, TagList, parse_entity_tag, parse_entity_tags
from tests.http.support import ETAG, MODIFIED, MODIFIED_TEXT, NOW, WHOLE, get, representation, spans

BEFORE = "Sun, 01 Mar 2026 11:59:59 GMT"
AFTER = "Sun, 01 Mar 2026 12:00:01 GMT"
SAME_850 = "Sunday, 01-Mar-26 12:00:00 GMT"
SAME_ASCTIME = "Sun Mar  1 12:00:00 2026"
WEAK = f"W/{ETAG}"

Lines = list[tuple[str, str]]

# name (RFC 9110 section: what), header lines, status of a GET; the representation is "rev-7", changed at MODIFIED
ROWS: list[tuple[str, Lines, int]] = [
    ("13: no precondition", [], 200),
    # If-Match
    ("13.1.1: the current tag", [("If-Match", ETAG)], 200),
    ("13.1.1: another tag", [("If-Match", '"rev-6"')], 412),
    ("13.1.1: any", [("If-Match", "*")], 200),
    ("13.1.1: any, with space", [("If-Match", " * ")], 200),
    ("13.1.1: one of several", [("If-Match", '"rev-5", "rev-6",' + ETAG)], 200),
    ("13.1.1: none of several", [("If-Match", '"rev-5", "rev-6"')], 412),
    ("13.1.1: strong comparison refuses the weak form", [("If-Match", WEAK)], 412),
    ("13.1.1: strong among weak", [("If-Match", f"{WEAK}, {ETAG}")], 200),
    ("5.3: on the second line", [("If-Match", '"rev-6"'), ("If-Match", ETAG)], 200),
    ("5.3: on no line", [("If-Match", '"rev-6"'), ("if-match", '"rev-5"')], 412),
    ("5.6.1.2: empty elements", [("If-Match", f",, {ETAG} ,")], 200),
    ("5.6.1: an empty list holds no tag", [("If-Match", "")], 412),
    ("8.8.3: tags have case", [("If-Match", '"REV-7"')], 412),
    ("8.8.3: a comma is part of a tag", [("If-Match", '"a,rev-7"')], 412),
    ("8.8.3: a tag is not found inside another", [("If-Match", '"rev-7,x"')], 412),
    ("8.8.3: an asterisk in quotes is a tag", [("If-Match", '"*"')], 412),
    ("13.1.1: malformed, no quotes", [("If-Match", "rev-7")], 412),
    ("13.1.1: malformed, quote not closed", [("If-Match", '"rev-7')], 412),
    ("13.1.1: malformed, quote not opened", [("If-Match", 'rev-7"')], 412),
    ("13.1.1: malformed after the right tag", [("If-Match", f"{ETAG}, rev-6")], 412),
    ("13.1.1: malformed, no comma", [("If-Match", f'{ETAG} "rev-6"')], 412),
    ("13.1.1: malformed, small w", [("If-Match", f"w/{ETAG}")], 412),
    ("13.1.1: malformed, space in a tag", [("If-Match", f'{ETAG}, "a b"')], 412),
    ("13.1.1: malformed, any beside a tag", [("If-Match", f"*, {ETAG}")], 412),
    ("13.1.1: malformed, any twice", [("If-Match", "*"), ("If-Match", "*")], 412),
    ("13.1.1: malformed, line feed at the end", [("If-Match", f"{ETAG}\n")], 412),
    ("8.8.3: tags of any bytes", [("If-Match", f'"\u00e9", "\udcff", {ETAG}')], 200),
    ("8.8.3: the empty tag", [("If-Match", f'"", {ETAG}')], 200),
    # If-Unmodified-Since
    ("13.1.4: the same second", [("If-Unmodified-Since", MODIFIED_TEXT)], 200),
    ("13.1.4: later", [("If-Unmodified-Since", AFTER)], 200),
    ("13.1.4: earlier", [("If-Unmodified-Since", BEFORE)], 412),
    ("13.1.4: RFC 850", [("If-Unmodified-Since", SAME_850)], 200),
    ("13.1.4: RFC 850, earlier", [("If-Unmodified-Since", "Sunday, 01-Mar-26 11:59:59 GMT")], 412),
    ("13.1.4: asctime", [("If-Unmodified-Since", SAME_ASCTIME)], 200),
    ("13.1.4: asctime, earlier", [("If-Unmodified-Since", "Sun Mar  1 11:59:59 2026")], 412),
    ("13.1.4: no date is ignored", [("If-Unmodified-Since", "yesterday")], 200),
    ("13.1.4: empty is ignored", [("If-Unmodified-Since", "")], 200),
    ("13.1.4: a list of dates is ignored", [("If-Unmodified-Since", BEFORE), ("If-Unmodified-Since", BEFORE)], 200),
    ("13.1.4: not read beside If-Match", [("If-Match", ETAG), ("If-Unmodified-Since", BEFORE)], 200),
    ("13.1.4: does not save If-Match", [("If-Match", '"x"'), ("If-Unmodified-Since", AFTER)], 412),
    ("13.1.4: not read beside a malformed If-Match", [("If-Match", "x"), ("If-Unmodified-Since", AFTER)], 412),
    # If-None-Match
    ("13.1.2: the current tag", [("If-None-Match", ETAG)], 304),
    ("13.1.2: another tag", [("If-None-Match", '"rev-6"')], 200),
    ("13.1.2: any", [("If-None-Match", "*")], 304),
    ("13.1.2: weak comparison takes the weak form", [("If-None-Match", WEAK)], 304),
    ("13.1.2: one of several", [("If-None-Match", f'W/"x", "y" ,{WEAK}')], 304),
    ("13.1.2: none of several", [("If-None-Match", '"x", "y"')], 200),
    ("5.3: on the second line, None-Match", [("If-None-Match", '"x"'), ("If-None-Match", ETAG)], 304),
    ("5.6.1.2: empty elements, None-Match", [("If-None-Match", f", ,{ETAG},,")], 304),
    ("5.6.1: an empty list, None-Match", [("If-None-Match", "")], 200),
    ("8.8.3: a comma is part of a tag, None-Match", [("If-None-Match", '"x,rev-7"')], 200),
    ("8.8.3: tags have case, None-Match", [("If-None-Match", '"Rev-7"')], 200),
    ("13.1.2: malformed matches nothing", [("If-None-Match", "rev-7")], 200),
    ("13.1.2: malformed after the right tag", [("If-None-Match", f"{ETAG}, rev-6")], 200),
    ("13.1.2: malformed, any beside a tag", [("If-None-Match", f"{ETAG}, *")], 200),
    ("13.1.2: malformed, a tag cut in two lines", [("If-None-Match", '"rev'), ("If-None-Match", '-7"')], 200),
    # If-Modified-Since
    ("13.1.3: the same second", [("If-Modified-Since", MODIFIED_TEXT)], 304),
    ("13.1.3: later", [("If-Modified-Since", AFTER)], 304),
    ("13.1.3: earlier", [("If-Modified-Since", BEFORE)], 200),
    ("13.1.3: RFC 850", [("If-Modified-Since", SAME_850)], 304),
    ("13.1.3: asctime", [("If-Modified-Since", SAME_ASCTIME)], 304),
    ("13.1.3: no date is ignored", [("If-Modified-Since", "2026-03-01")], 200),
    ("13.1.3: several are ignored", [("If-Modified-Since", AFTER), ("If-Modified-Since", AFTER)], 200),
    ("13.1.3: not read beside If-None-Match", [("If-None-Match", '"x"'), ("If-Modified-Since", AFTER)], 200),
    ("13.1.3: not read beside a malformed one", [("If-None-Match", "x"), ("If-Modified-Since", AFTER)], 200),
    ("13.1.3: does not undo If-None-Match", [("If-None-Match", ETAG), ("If-Modified-Since", BEFORE)], 304),
    # order
    ("13.2.2: If-Match fails first", [("If-None-Match", ETAG), ("If-Match", '"x"')], 412),
    ("13.2.2: If-Match holds, If-None-Match hits", [("If-Match", ETAG), ("If-None-Match", ETAG)], 304),
    ("13.2.2: If-Match holds, date hits", [("If-Match", ETAG), ("If-Modified-Since", AFTER)], 304),
    ("13.2.2: unmodified fails first", [("If-Unmodified-Since", BEFORE), ("If-None-Match", ETAG)], 412),
    ("13.2.2: unmodified holds, date hits", [("If-Unmodified-Since", AFTER), ("If-Modified-Since", AFTER)], 304),
    ("13.2.2: all hold", [("If-Match", "*"), ("If-None-Match", '"x"'), ("If-Modified-Since", AFTER)], 200),
    # with Range
    ("13.2.2: If-Match before Range", [("Range", "bytes=0-9"), ("If-Match", '"x"')], 412),
    ("13.2.2: If-Match holds, Range", [("Range", "bytes=0-9"), ("If-Match", ETAG)], 206),
    ("13.2.2: If-None-Match before Range", [("Range", "bytes=0-9"), ("If-None-Match", ETAG)], 304),
    ("13.2.2: 304 before 416", [("Range", "bytes=500-"), ("If-None-Match", ETAG)], 304),
    ("13.2.2: 412 before 416", [("Range", "bytes=500-"), ("If-Match", '"x"')], 412),
    ("13.2.2: If-Match and If-Range hold", [("Range", "bytes=0-9"), ("If-Match", "*"), ("If-Range", ETAG)], 206),
    # names of fields
    ("5.1: names have no case", [("IF-NONE-MATCH", ETAG)], 304),
]

# name (RFC 9110 section: what), If-Range lines, whether Range: bytes=0-9 is then honoured
IF_RANGE_ROWS: list[tuple[str, list[str], bool]] = [
    ("13.1.5: absent", [], True),
    ("13.1.5: the current tag", [ETAG], True),
    ("13.1.5: the current tag, with space", [f" {ETAG}\t"], True),
    ("13.1.5: a stale tag", ['"rev-6"'], False),
    ("13.1.5: weak never matches", [WEAK], False),
    ("13.1.5: tags have case", ['"REV-7"'], False),
    ("13.1.5: a list is no value", [f"{ETAG}, {ETAG}"], False),
    ("13.1.5: any is no value", ["*"], False),
    ("13.1.5: no quotes", ["rev-7"], False),
    ("13.1.5: quote not closed", ['"rev-7'], False),
    ("13.1.5: empty", [""], False),
    ("13.1.5: twice", [ETAG, ETAG], False),
    ("13.1.5: the very date", [MODIFIED_TEXT], True),
    ("13.1.5: the very date in RFC 850", [SAME_850], True),
    ("13.1.5: the very date in asctime", [SAME_ASCTIME], True),
    ("13.1.5: an earlier date", [BEFORE], False),
    ("13.1.5: a later date is no match", [AFTER], False),
    ("13.1.5: the time of the request is no match", ["Fri, 20 Nov 2026 08:30:00 GMT"], False),
    ("13.1.5: no date", ["2026-03-01T12:00:00Z"], False),
    ("13.1.5: a date in quotes is a tag", [f'"{MODIFIED_TEXT}"'], False),
    ("13.1.5: the date twice", [MODIFIED_TEXT, MODIFIED_TEXT], False),
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("lines", "status"), [pytest.param(*row, id=name) for name, *row in ROWS])
def test_preconditions(lines: Lines, status: int, method: str) -> None:
    expected = 200 if method == "HEAD" and status == 206 else status
    assert get(*lines, method=method).status == expected


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("line", [("If-Match", '"x"'), ("If-None-Match", "*"), ("If-Modified-Since", AFTER)], ids=str)
def test_preconditions_are_for_get_and_head(line: tuple[str, str], method: str) -> None:
    assert get(line, method=method).status == 200


@pytest.mark.parametrize(("lines", "honoured"), [pytest.param(*row, id=name) for name, *row in IF_RANGE_ROWS])
def test_if_range(lines: list[str], honoured: bool) -> None:
    verdict = get(("Range", "bytes=0-9"), *(("If-Range", line) for line in lines))
    assert verdict.status == (206 if honoured else 200)
    assert spans(verdict) == ([(0, 10)] if honoured else WHOLE)


@pytest.mark.parametrize(("lines", "honoured"), [pytest.param(*row, id=name) for name, *row in IF_RANGE_ROWS])
def test_if_range_before_an_unsatisfiable_range(lines: list[str], honoured: bool) -> None:
    # RFC 9110 §14.2: an If-Range that does not hold makes Range unread, so that no 416 can follow.
    verdict = get(("Range", "bytes=500-"), *(("If-Range", line) for line in lines))
    assert verdict.status == (416 if honoured else 200)


def test_if_range_without_range_is_ignored() -> None:
    assert get(("If-Range", '"x"')).status == 200  # RFC 9110 §13.1.5


def test_tables_do_not_name_two_rows_alike() -> None:
    names = [f"{table}{name}" for table, rows in (("", ROWS), ("range", IF_RANGE_ROWS)) for name, *_ in rows]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        pytest.param(("If-Match", WEAK), 412, id="13.1.1: weak with weak does not match strongly"),
        pytest.param(("If-Match", ETAG), 412, id="13.1.1: strong with weak does not match strongly"),
        pytest.param(("If-Match", "*"), 200, id="13.1.1: any"),
        pytest.param(("If-None-Match", WEAK), 304, id="13.1.2: weak with weak"),
        pytest.param(("If-None-Match", ETAG), 304, id="13.1.2: strong with weak"),
        pytest.param(("If-Range", WEAK), 200, id="13.1.5: weak with weak does not match strongly"),
        pytest.param(("If-Range", ETAG), 200, id="13.1.5: strong with weak does not match strongly"),
        pytest.param(("If-Range", MODIFIED_TEXT), 206, id="13.1.5: the date stands for itself"),
    ],
)
def test_representation_with_a_weak_tag(line: tuple[str, str], status: int) -> None:
    lines = [line, ("Range", "bytes=0-9")] if line[0] == "If-Range" else [line]
    assert get(*lines, of=representation(etag=WEAK)).status == status


@pytest.mark.parametrize("name", ["If-Modified-Since", "If-Unmodified-Since"])
@pytest.mark.parametrize("date", [BEFORE, MODIFIED_TEXT, AFTER])
def test_dates_are_ignored_where_the_change_is_unknown(name: str, date: str) -> None:
    assert get((name, date), of=representation(last_modified=None)).status == 200  # RFC 9110 §13.1.3, §13.1.4


def test_an_if_range_date_does_not_hold_where_the_change_is_unknown() -> None:
    verdict = get(("Range", "bytes=0-9"), ("If-Range", MODIFIED_TEXT), of=representation(last_modified=None))
    assert verdict.status == 200


@pytest.mark.parametrize(
    ("age", "status"), [(0.0, 200), (0.4, 200), (0.999, 200), (1.0, 206), (1.5, 206), (86400.0, 206)]
)
def test_a_last_modified_of_this_second_is_weak(age: float, status: int) -> None:
    # RFC 9110 §8.8.2.2: the file may change again within the second, unseen by the date.
    now = MODIFIED + datetime.timedelta(seconds=age)
    assert get(("Range", "bytes=0-9"), ("If-Range", MODIFIED_TEXT), now=now).status == status


def test_a_change_in_the_future_gives_a_date_that_no_if_range_meets() -> None:
    future = representation(last_modified=NOW + datetime.timedelta(days=1))
    sent = get(of=future).headers["Last-Modified"]
    assert get(("Range", "bytes=0-9"), ("If-Range", sent), of=future).status == 200


@pytest.mark.parametrize("microsecond", [1, 500_000, 999_999])
def test_dates_are_compared_in_whole_seconds(microsecond: int) -> None:
    # What we said ourselves must be recognised, though the disk knows it finer (RFC 9110 §8.8.2.1).
    fine = representation(last_modified=MODIFIED.replace(microsecond=microsecond))
    assert get(("If-Modified-Since", MODIFIED_TEXT), of=fine).status == 304
    assert get(("If-Unmodified-Since", MODIFIED_TEXT), of=fine).status == 200
    assert get(("Range", "bytes=0-9"), ("If-Range", MODIFIED_TEXT), of=fine).status == 206


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ('"a"', EntityTag("a")),
        ('W/"a"', EntityTag("a", weak=True)),
        ('""', EntityTag("")),
        ('"!#~"', EntityTag("!#~")),
        ('"\\"', EntityTag("\\")),
        ('"W/"', EntityTag("W/")),
        ("a", None),
        ('"a', None),
        ('"a"b', None),
        ('"a""b"', None),
        ('W "a"', None),
        ('W/ "a"', None),
        ('"a b"', None),
        ('"\x7f"', None),
        ('"\x00"', None),
        ("'a'", None),
        ("", None),
        ("W/", None),
    ],
)
def test_entity_tag(text: str, tag: EntityTag | None) -> None:
    assert parse_entity_tag(text) == tag
    assert parse_entity_tags([text]) == (TagList() if text == "" else tag and TagList((tag,)))


opaque = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x2FF, exclude_characters='"\x7f'), max_size=4)
tags = st.builds(EntityTag, opaque, st.booleans())
comma = st.sampled_from([",", ", ", " ,\t", ",,", " , , "])


def as_text(tag: EntityTag) -> str:
    return ("W/" if tag.weak else "") + f'"{tag.opaque}"'


@given(st.data(), st.lists(tags, max_size=6), tags)
def test_lists_are_read_as_they_were_made(data: st.DataObject, members: list[EntityTag], current: EntityTag) -> None:
    """Tags with any commas in them, any spacing, empty elements and any division into lines read back as they were."""
    lines = [data.draw(st.sampled_from(["", ",", " "]))]
    for number, tag in enumerate(members):
        if number and data.draw(st.booleans()):
            lines.append("")
        elif number:
            lines[-1] += data.draw(comma)
        lines[-1] += as_text(tag)
    assert parse_entity_tags(lines) == TagList(tuple(members))

    if not current.opaque.isascii():
        return
    now_there = representation(etag=as_text(current))
    strongly = not current.weak and any(tag == current for tag in members)
    weakly = any(tag.opaque == current.opaque for tag in members)
    assert get(*(("If-Match", line) for line in lines), of=now_there).status == (200 if strongly else 412)
    assert get(*(("If-None-Match", line) for line in lines), of=now_there).status == (304 if weakly else 200)

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.http.ranges import MAX_FIELD, MAX_RANGES, IntRange, SuffixRange, parse_range, resolve
from tests.http import oracle
from tests.http.support import LENGTH, WHOLE, get, representation, spans

NINES = "9" * 4000

# name (RFC 9110 section: what), Range, status, spans of the representation that are sent
ROWS: list[tuple[str, str, int, list[tuple[int, int]]]] = [
    # what is asked for is what is sent
    ("14.1.2: first byte", "bytes=0-0", 206, [(0, 1)]),
    ("14.1.2: last byte by position", "bytes=99-99", 206, [(99, 100)]),
    ("14.1.2: both ends are inclusive", "bytes=10-19", 206, [(10, 20)]),
    ("14.1.2: the whole file is still a range", "bytes=0-99", 206, WHOLE),
    ("14.1.2: open end", "bytes=40-", 206, [(40, 100)]),
    ("14.1.2: open end from zero", "bytes=0-", 206, WHOLE),
    ("14.1.2: open end at the last byte", "bytes=99-", 206, [(99, 100)]),
    ("14.1.2: last beyond the end is cut", "bytes=90-200", 206, [(90, 100)]),
    ("14.1.2: last just beyond the end is cut", "bytes=90-100", 206, [(90, 100)]),
    ("14.1.2: suffix", "bytes=-10", 206, [(90, 100)]),
    ("14.1.2: suffix of one", "bytes=-1", 206, [(99, 100)]),
    ("14.1.2: suffix of the length", "bytes=-100", 206, WHOLE),
    ("14.1.2: suffix longer than the file is all of it", "bytes=-101", 206, WHOLE),
    ("14.1.1: leading zeros are digits", "bytes=000010-000019", 206, [(10, 20)]),
    ("14.1.1: leading zeros in a suffix", "bytes=-0001", 206, [(99, 100)]),
    ("14.1.1: first equal to last", "bytes=50-50", 206, [(50, 51)]),
    ("14.1.1: first equal to last but for zeros", "bytes=0050-50", 206, [(50, 51)]),
    # huge numbers: 14.1.2 demands that they be expected
    ("14.1.2: last of 4000 digits", f"bytes=5-{NINES}", 206, [(5, 100)]),
    ("14.1.2: suffix of 4000 digits", f"bytes=-{NINES}", 206, WHOLE),
    ("14.1.2: first of 4000 digits", f"bytes={NINES}-", 416, []),
    ("14.1.2: both of 2000 digits", f"bytes={'9' * 2000}-{'9' * 2000}", 416, []),
    ("14.1.1: last less than first, both of 2000 digits", f"bytes={'9' * 2000}-{'8' * 2000}", 200, WHOLE),
    ("14.1.1: 2000 zeros before a digit", f"bytes={'0' * 2000}5-{'0' * 2000}6", 206, [(5, 7)]),
    ("14.1.2: beyond 64 bits", "bytes=18446744073709551616-", 416, []),
    ("14.1.2: 2**64 does not wrap to 0", "bytes=18446744073709551616-18446744073709551617", 416, []),
    ("14.1.2: suffix of 2**64 does not wrap to 0", "bytes=-18446744073709551616", 206, WHOLE),
    ("14.1.2: suffix of 2**64 + 1 does not wrap to 1", "bytes=-18446744073709551617", 206, WHOLE),
    # not satisfiable
    ("15.5.17: first at the length", "bytes=100-", 416, []),
    ("15.5.17: first beyond the length", "bytes=1000-2000", 416, []),
    ("14.1.2: a suffix of zero is unsatisfiable", "bytes=-0", 416, []),
    ("14.1.2: a suffix of many zeros is unsatisfiable", "bytes=-000", 416, []),
    ("15.5.17: none of several", "bytes=100-,200-300,-0", 416, []),
    # several ranges
    ("14.6: two ranges", "bytes=0-4,10-14", 206, [(0, 5), (10, 15)]),
    ("15.3.7.2: the order asked for is kept", "bytes=50-59,0-9", 206, [(50, 60), (0, 10)]),
    ("14.1.2: first and last byte", "bytes=0-0,-1", 206, [(0, 1), (99, 100)]),
    ("14.1.2: adjacent ranges stay apart", "bytes=0-9,10-19", 206, [(0, 10), (10, 20)]),
    ("14.1.2: overlapping ranges are legal", "bytes=0-9,5-19", 206, [(0, 10), (5, 20)]),
    ("14.1.2: spaces after the equals sign and commas", "bytes= 0-9, 20-29, -10", 206, [(0, 10), (20, 30), (90, 100)]),
    ("5.6.1: tabs around commas", "bytes=0-9\t,\t20-29", 206, [(0, 10), (20, 30)]),
    ("5.6.1.2: empty elements are skipped", "bytes=,,0-9,,", 206, [(0, 10)]),
    ("5.6.1.2: blank elements are skipped", "bytes= , 0-9 , \t, 20-29", 206, [(0, 10), (20, 30)]),
    ("5.5: space around the field", " \tbytes=0-9 ", 206, [(0, 10)]),
    ("14.2: the satisfiable one of two is sent alone", "bytes=0-9,100-", 206, [(0, 10)]),
    ("14.2: unsatisfiable before satisfiable", "bytes=200-,-0,90-", 206, [(90, 100)]),
    ("14.2: two of three", "bytes=0-0,500-,-1", 206, [(0, 1), (99, 100)]),
    # unit
    ("14.1: unit names have no case", "BYTES=0-9", 206, [(0, 10)]),
    ("14.1: unit names have no case, mixed", "Bytes=0-9", 206, [(0, 10)]),
    ("14.2: unknown unit", "items=0-9", 200, WHOLE),
    ("14.2: unit that only begins like bytes", "bytesize=0-9", 200, WHOLE),
    ("14.2: unit that is a part of bytes", "byte=0-9", 200, WHOLE),
    ("14.2: no unit", "=0-9", 200, WHOLE),
    ("14.2: unit none", "none=0-9", 200, WHOLE),
    ("14.1: letters that only fold to those of bytes", "byte\u017f=0-9", 200, WHOLE),
    # malformed: never 206
    ("14.2: empty field", "", 200, WHOLE),
    ("14.2: blank field", "   ", 200, WHOLE),
    ("14.1.1: no equals sign", "bytes", 200, WHOLE),
    ("14.1.1: a colon for the equals sign", "bytes:0-9", 200, WHOLE),
    ("14.1.1: a space for the equals sign", "bytes 0-9", 200, WHOLE),
    ("14.1.1: a space before the equals sign", "bytes =0-9", 200, WHOLE),
    ("14.1.1: no set", "bytes=", 200, WHOLE),
    ("14.1.1: a set of empty elements", "bytes=,", 200, WHOLE),
    ("14.1.1: a set of blank elements", "bytes= , ,\t", 200, WHOLE),
    ("14.1.1: no numbers", "bytes=-", 200, WHOLE),
    ("14.1.1: no hyphen", "bytes=5", 200, WHOLE),
    ("14.1.1: two hyphens", "bytes=5--9", 200, WHOLE),
    ("14.1.1: negative suffix", "bytes=--5", 200, WHOLE),
    ("14.1.1: three numbers", "bytes=1-2-3", 200, WHOLE),
    ("14.1.1: last less than first", "bytes=9-5", 200, WHOLE),
    ("14.1.1: last less than first beyond the end", "bytes=900-500", 200, WHOLE),
    ("14.1.1: letters", "bytes=abc", 200, WHOLE),
    ("14.1.1: hexadecimal", "bytes=0x0-0x9", 200, WHOLE),
    ("14.1.1: a plus sign", "bytes=+0-9", 200, WHOLE),
    ("14.1.1: a fraction", "bytes=0.5-9", 200, WHOLE),
    ("14.1.1: an underscore, as Python reads it", "bytes=1_0-19", 200, WHOLE),
    ("14.1.1: a space before the hyphen", "bytes=0 -9", 200, WHOLE),
    ("14.1.1: a space after the hyphen", "bytes=0- 9", 200, WHOLE),
    ("14.1.1: a space inside a number", "bytes=1 0-19", 200, WHOLE),
    ("14.1.1: Arabic digits", "bytes=\u0660-\u0669", 200, WHOLE),
    ("14.1.1: full-width digits", "bytes=\uff10-\uff19", 200, WHOLE),
    ("14.1.1: superscript digit", "bytes=-\u00b2", 200, WHOLE),
    ("14.1.1: a dash that is no hyphen", "bytes=0\u20139", 200, WHOLE),
    ("14.1.1: a no-break space", "bytes=\u00a00-9", 200, WHOLE),
    ("14.1.1: a line feed at the end", "bytes=0-9\n", 200, WHOLE),
    ("14.1.1: a null", "bytes=0-9\x00", 200, WHOLE),
    ("14.1.1: a lone surrogate", "bytes=0-9\udc80", 200, WHOLE),
    ("14.1.1: a semicolon between ranges", "bytes=0-9;20-29", 200, WHOLE),
    ("14.1.1: one bad member spoils the set", "bytes=0-9,x", 200, WHOLE),
    ("14.1.1: one reversed member spoils the set", "bytes=0-9,9-5", 200, WHOLE),
    ("14.1.1: a bad member after an unsatisfiable one", "bytes=500-,9-5", 200, WHOLE),
    ("14.1.1: the unit again in the set", "bytes=0-9,bytes=20-29", 200, WHOLE),
    ("14.4: a Content-Range for a Range", "bytes 0-9/100", 200, WHOLE),
    # what would cost more than the whole
    ("17.15: the whole twice", "bytes=0-,0-", 200, WHOLE),
    ("17.15: one byte more than the file", "bytes=0-99,0-0", 200, WHOLE),
    ("17.15: exactly the file", "bytes=50-,0-49", 206, [(50, 100), (0, 50)]),
    ("17.15: unsatisfiable ranges add nothing", "bytes=0-99,100-,-0", 206, WHOLE),
    ("17.15: 16 ranges", "bytes=" + ",".join(f"{n}-{n}" for n in range(16)), 206, [(n, n + 1) for n in range(16)]),
    ("17.15: 17 ranges", "bytes=" + ",".join(f"{n}-{n}" for n in range(17)), 200, WHOLE),
    ("17.15: 17 unsatisfiable ranges", "bytes=" + ",".join(["500-"] * 17), 200, WHOLE),
    ("17.15: 16 ranges among empty elements", "bytes=" + ",,".join(["500-"] * 16) + ",,", 416, []),
    ("17.15: the longest field", "bytes=" + "0" * (MAX_FIELD - 8) + "0-", 206, WHOLE),
    ("17.15: a field one character longer", "bytes=" + "0" * (MAX_FIELD - 7) + "0-", 200, WHOLE),
]

# name, Range, status, on an empty representation
EMPTY_ROWS = [
    ("14.1.2: from zero on an empty file", "bytes=0-", 416),
    ("14.1.2: first byte of an empty file", "bytes=0-0", 416),
    ("14.1.2: suffix of zero of an empty file", "bytes=-0", 416),
    ("14.1.2: suffix of an empty file is satisfiable, 14.4: but has no Content-Range", "bytes=-5", 200),
    ("14.1.2: suffix beside an unsatisfiable range, empty file", "bytes=0-,-5", 200),
    ("14.2: malformed on an empty file", "bytes=x", 200),
]


@pytest.mark.parametrize(("field", "status", "sent"), [pytest.param(*row, id=name) for name, *row in ROWS])
def test_range(field: str, status: int, sent: list[tuple[int, int]]) -> None:
    verdict = get(("Range", field))
    assert (verdict.status, spans(verdict)) == (status, sent)


@pytest.mark.parametrize(("field", "status"), [pytest.param(*row, id=name) for name, *row in EMPTY_ROWS])
def test_range_of_an_empty_file(field: str, status: int) -> None:
    verdict = get(("Range", field), of=representation(length=0))
    assert (verdict.status, verdict.parts) == (status, ())


def test_tables_do_not_name_two_rows_alike() -> None:
    names = [name for name, *_ in (*ROWS, *EMPTY_ROWS)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("second", ["bytes=0-9", "bytes=20-29", "x", ""])
def test_several_range_lines_are_ignored(second: str) -> None:
    # RFC 9110 §5.3: a field that is no list has one line; which of them the caller meant cannot be known.
    assert get(("Range", "bytes=0-9"), ("range", second)).status == 200


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("field", ["bytes=0-9", "bytes=500-"])
def test_range_is_for_get_alone(method: str, field: str) -> None:
    assert get(("Range", field), method=method).status == 200  # RFC 9110 §14.2


def test_parse_says_what_was_asked() -> None:
    assert parse_range(["bytes=1-2, 3-, -4"]) == (IntRange(1, 2), IntRange(3, None), SuffixRange(4))
    assert parse_range([]) is None


@pytest.fixture
def strict_digits() -> Iterator[None]:
    """Python set to refuse the reading of numbers as early as it can be told to."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    yield
    sys.set_int_max_str_digits(before)


@pytest.mark.usefixtures("strict_digits")
@pytest.mark.parametrize("digit", ["0", "1", "9"])
def test_numbers_of_any_size_do_not_raise(digit: str) -> None:
    for field in (f"bytes={digit * 4000}-", f"bytes=-{digit * 4000}", f"bytes=0-{digit * 4000}"):
        specs = parse_range([field])
        assert specs is not None
        resolve(specs, LENGTH)


spec = st.one_of(
    st.builds("{}-{}".format, st.integers(0, 40), st.integers(0, 40)),
    st.builds("{}-".format, st.integers(0, 40)),
    st.builds("-{}".format, st.integers(0, 40)),
    st.builds("{}-{}".format, st.integers(0, 10), st.integers(0, 10**30)),
    st.text("0123456789- \t,", max_size=6),
    st.just(""),
)
separator = st.sampled_from([",", ", ", " ,", ",,", "\t,\t"])


@st.composite
def range_fields(draw: st.DrawFn) -> str:
    """Range fields of which many are valid, and many nearly so."""
    field = draw(st.sampled_from(["bytes=", "bytes=", "bytes=", "Bytes=", "bytes =", "items=", "bytes"]))
    for number, member in enumerate(draw(st.lists(spec, max_size=20))):
        field += (draw(separator) if number else "") + member
    if draw(st.booleans()):
        return field
    at = draw(st.integers(0, len(field)))
    return field[:at] + draw(st.text(max_size=2)) + field[at:]


@given(st.one_of(range_fields(), st.text("bytes=0123456789-, \t", max_size=30), st.text()), st.integers(0, 40))
@example("bytes=0-,-5", 0)
@example("bytes=" + ",".join(["0-0"] * (MAX_RANGES + 1)), 40)
def test_agrees_with_the_grammar(field: str, length: int) -> None:
    specs = parse_range([field])
    ours = resolve(specs, length) if specs else None
    expected = oracle.answer(field, length)
    if expected == "ignore":
        assert ours is None
    elif expected == "unsatisfiable":
        assert ours == ()
    else:
        assert ours is not None
        assert [list(range(start, stop)) for start, stop in ours] == expected

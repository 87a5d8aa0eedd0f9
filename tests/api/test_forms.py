"""Parts of forms are found, and whatever is no form is none."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.api.forms import part_of

TYPE = "multipart/form-data; boundary=XX"
contents = st.binary(max_size=200).filter(lambda content: b"\r\n--XX" not in b"\r\n" + content)


def form(*parts: tuple[str, bytes]) -> bytes:
    written = b"".join(
        f"--XX\r\nContent-Type: text/plain\r\nContent-Disposition: {fields}\r\n\r\n".encode() + content + b"\r\n"
        for fields, content in parts
    )
    return written + b"--XX--\r\n"


@given(contents, contents)
def test_a_part_is_found_as_it_was_sent(one: bytes, other: bytes) -> None:
    body = form(('form-data; name="a"; filename="f; name=b"', one), ('form-data; filename="x"; name="b"', other))
    assert part_of(TYPE, body, "a") == one
    assert part_of(TYPE, b"preamble\r\n" + body + b"epilogue", "b") == other
    assert part_of('Multipart/Form-Data; charset=x; boundary="XX"', body, "b") == other
    assert part_of(TYPE, body, "c") is None


def test_names_are_read_as_browsers_and_curl_write_them() -> None:
    for fields in ('form-data; name="file"', "form-data; name=file", 'FORM-DATA; filename="a"; NAME="file"'):
        assert part_of(TYPE, form((fields, b"x")), "file") == b"x", fields
    for fields in ('form-data; name="files"', "form-data", 'form-data; filename="file"', 'form-data; xname="file"'):
        assert part_of(TYPE, form((fields, b"x")), "file") is None, fields


def test_a_form_that_is_cut_off_has_no_such_part() -> None:
    body = form(('form-data; name="file"', b"item-0"))
    assert [length for length in range(len(body)) if part_of(TYPE, body[:length], "file")] == list(
        range(len(body) - len("--\r\n"), len(body))
    )


def test_what_is_nested_or_long_is_found_as_fast_as_anything() -> None:
    nested = b"".join(b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n" % (n, n + 1) for n in range(8000))
    assert part_of("multipart/form-data; boundary=b0", nested, "file") is None
    assert part_of(TYPE, b"--XX\r\n" * 80_000, "file") is None
    quotes = b"--XX\r\nContent-Disposition: form-data; a=" + b'"\\;' * 1000 + b"\r\n\r\n"
    assert part_of(TYPE, quotes * 100 + b"\r\n--XX", "file") is None


lines = st.lists(
    st.sampled_from(
        [
            b"--XX",
            b"--XX--",
            b"",
            b"Content-Disposition: form-data; name=file",
            b"Content-Disposition:",
            b":",
            b"\xff",
            b"x",
        ]
    )
)
values = st.one_of(st.text(max_size=40), st.text(max_size=80).map(lambda text: f"multipart/form-data; boundary={text}"))


@given(lines, values, st.binary(max_size=100))
def test_whatever_comes_is_a_part_or_none(some: list[bytes], content_type: str, body: bytes) -> None:
    for kind in (TYPE, content_type):
        for whole in (b"\r\n".join(some), body):
            found = part_of(kind, whole, "file")
            assert found is None or found in whole

from __future__ import annotations

import email
import email.policy
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.evaluate import Verdict
from tests.http.support import CONTENT_TYPE, DATA, LENGTH, get, representation, written


def read(verdict: Verdict, body: bytes) -> list[tuple[str, str, bytes]]:
    """Content-Type, Content-Range and bytes of each part, as the parser of the standard library sees them."""
    head = f"Content-Type: {verdict.headers['Content-Type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    assert message.get_content_type() == "multipart/byteranges"
    assert not message.defects
    assert not message.preamble
    assert not message.epilogue
    parts = []
    for part in message.iter_parts():
        assert not part.defects
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        parts.append((part["Content-Type"], part["Content-Range"], payload))
    return parts


def test_layout() -> None:
    """The whole body, byte for byte, as RFC 9110 §14.6 shows it."""
    verdict = get(("Range", "bytes=0-1,5-6"))
    mime, _, boundary = verdict.headers["Content-Type"].partition("; boundary=")
    assert mime == "multipart/byteranges"
    assert 1 <= len(boundary) <= 70  # RFC 2046 §5.1.1
    assert written(verdict, DATA) == (
        f"--{boundary}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Range: bytes 0-1/100\r\n\r\n\x00\x01\r\n"
        f"--{boundary}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Range: bytes 5-6/100\r\n\r\n\x05\x06\r\n"
        f"--{boundary}--\r\n"
    ).encode("ascii")


def test_no_content_range_above_the_parts() -> None:
    verdict = get(("Range", "bytes=0-1,5-6"))
    assert verdict.status == 206
    assert "Content-Range" not in verdict.headers  # RFC 9110 §15.3.7.2
    assert verdict.representation_bytes == 4 < verdict.length


@pytest.mark.parametrize("field", ["bytes=0-1", "bytes=0-1,", "bytes=0-1,500-", "bytes=-0,500-,-7"])
def test_one_range_is_never_multipart(field: str) -> None:
    verdict = get(("Range", field))
    assert verdict.headers["Content-Type"] == CONTENT_TYPE  # RFC 9110 §15.3.7.2
    assert len(verdict.parts) == 1


def test_the_boundary_is_stable_and_of_the_content() -> None:
    def boundary(etag: str) -> str:
        return get(("Range", "bytes=0-1,5-6"), of=representation(etag=etag)).headers["Content-Type"]

    assert boundary('"a"') == boundary('"a"') != boundary('"b"')


disjoint = st.lists(st.integers(0, 399), min_size=4, max_size=32, unique=True).map(sorted)


@given(st.binary(min_size=400, max_size=400), disjoint, st.randoms(use_true_random=False))
def test_parts_read_back(data: bytes, edges: list[int], order: random.Random) -> None:
    wanted = list(zip(edges[::2], edges[1::2], strict=False))
    order.shuffle(wanted)
    field = "bytes=" + ", ".join(f"{first}-{last}" for first, last in wanted)
    verdict = get(("Range", field), of=representation(length=400))
    body = written(verdict, data)
    assert verdict.headers["Content-Length"] == str(len(body)) == str(verdict.length)
    assert read(verdict, body) == [
        (CONTENT_TYPE, f"bytes {first}-{last}/400", data[first : last + 1]) for first, last in wanted
    ]
    assert verdict.representation_bytes == sum(last + 1 - first for first, last in wanted)


@pytest.mark.parametrize("data", [b"\r\n" * 50, b"--\r\n" * 25, b"\n\r" * 50, b"-" * LENGTH, b"\x00" * LENGTH])
def test_line_ends_in_the_data_are_data(data: bytes) -> None:
    verdict = get(("Range", "bytes=0-2,50-52"))
    assert [payload for *_, payload in read(verdict, written(verdict, data))] == [data[0:3], data[50:53]]

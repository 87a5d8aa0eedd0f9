from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog.ingest.checksums import DIGEST_BYTES, from_digits, from_multihash
from gateway.catalog.ingest.model import Checksum

PREFIXES = {"MD5": "d50110", "SHA-1": "1114", "SHA-256": "1220", "SHA-384": "2030", "SHA-512": "1340"}


@given(st.sampled_from(sorted(PREFIXES)), st.binary(min_size=64, max_size=64), st.booleans())
def test_a_multihash_gives_back_its_algorithm_and_digest(algorithm: str, digest: bytes, upper: bool) -> None:
    digits = digest[: DIGEST_BYTES[algorithm]].hex()
    text = PREFIXES[algorithm] + digits
    if upper:
        text, digits = text.upper(), digits.upper()
    assert from_multihash(text) == Checksum(algorithm, digits)


@given(st.sampled_from(sorted(PREFIXES)), st.integers(-8, 8).filter(bool))
def test_a_multihash_of_another_length_is_none(algorithm: str, difference: int) -> None:
    text = PREFIXES[algorithm] + "ab" * (DIGEST_BYTES[algorithm] + difference)
    assert from_multihash(text) is None


def test_the_example_of_the_multiformats_documents() -> None:
    digest = hashlib.sha256(b"multihash").hexdigest()
    assert from_multihash("1220" + digest) == Checksum("SHA-256", digest)
    assert digest == "9cbc07c3f991725836a3aa2a581ca2029198aa420b9d99bc0e131d9f3e2cbe47"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "12",
        "1220",
        "122",
        hashlib.sha256(b"").hexdigest(),  # a digest that nobody says the algorithm of
        "1220" + "ab" * 32 + "\n",
        "1220" + "ab" * 31 + " a",
        "0x1220" + "ab" * 32,
        "9220" + "ab" * 32,  # a code's first byte of two
        "922000" + "ab" * 31,
        "d51010" + "ab" * 16,
        "12a000" + "ab" * 32,  # the length in more bytes than it needs
        "1620" + "ab" * 32,  # sha3-256
        "1220" + "１２" * 32,  # digits of another script
        "j0NDRmSPa5bfid2pAcUXaxCm2Dlh3TwayItZstwyeqQ=",
    ],
)
def test_what_is_no_multihash_is_none(text: str) -> None:
    assert from_multihash(text) is None


@given(st.text())
def test_any_text_is_a_checksum_or_none(text: str) -> None:
    found = from_multihash(text)
    assert found is None or len(found.value) == 2 * DIGEST_BYTES[found.algorithm]


@pytest.mark.parametrize(
    ("algorithm", "digits", "expected"),
    [
        ("MD5", "BF39BC048B52618838529D9D98043190", Checksum("MD5", "BF39BC048B52618838529D9D98043190")),
        ("sha256", "ab" * 32, Checksum("SHA-256", "ab" * 32)),
        ("SHA-512", "ab" * 64, Checksum("SHA-512", "ab" * 64)),
        ("SHA-256", "ab" * 16, None),
        ("MD5", "zz" * 16, None),
        ("CRC32", "abababab", None),
        ("", "", None),
    ],
)
def test_digits_must_be_as_many_as_the_algorithm_makes(algorithm: str, digits: str, expected: Checksum | None) -> None:
    assert from_digits(algorithm, digits) == expected

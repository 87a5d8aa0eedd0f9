from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.http.digests import digest_fields, wanted_digests

# The Repr-Digest example of RFC 9530 appendix B: {"hello": "world"} and a line feed.
WORLD = b'{"hello": "world"}\n'
WORLD_SHA256 = "RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg="


def test_the_example_of_the_rfc() -> None:
    assert digest_fields("SHA-256", hashlib.sha256(WORLD).hexdigest()) == {
        "Repr-Digest": f"sha-256=:{WORLD_SHA256}:",
        "Digest": f"SHA-256={WORLD_SHA256}",
    }


@pytest.mark.parametrize(
    ("algorithm", "function", "names"),
    [
        pytest.param("MD5", "md5", {"Digest": "MD5={}"}, id="RFC 9530 5: MD5 is not active, RFC 3230 4.1.1"),
        pytest.param("SHA-1", "sha1", {"Digest": "SHA={}"}, id="RFC 9530 5: SHA-1 is not active, RFC 3230 4.1.1"),
        pytest.param("SHA-256", "sha256", {"Digest": "SHA-256={}", "Repr-Digest": "sha-256=:{}:"}, id="RFC 9530 5"),
        pytest.param("SHA-384", "sha384", {}, id="in neither registry"),
        pytest.param(
            "SHA-512", "sha512", {"Digest": "SHA-512={}", "Repr-Digest": "sha-512=:{}:"}, id="RFC 9530 5, 512"
        ),
    ],
)
@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_fields_of_each_algorithm(algorithm: str, function: str, names: dict[str, str], case: object) -> None:
    assert callable(case)
    digest = hashlib.new(function, WORLD, usedforsecurity=False)
    value = base64.b64encode(digest.digest()).decode()
    expected = {name: text.format(value) for name, text in names.items()}
    assert digest_fields(algorithm, case(digest.hexdigest())) == expected


@pytest.mark.parametrize(
    ("algorithm", "checksum"),
    [
        pytest.param(None, None, id="no checksum"),
        pytest.param("MD5", None, id="no value"),
        pytest.param(None, "a" * 32, id="no algorithm"),
        pytest.param("CRC32", "aabbccdd", id="unknown algorithm"),
        pytest.param("md5", "a" * 32, id="not the name of the catalogue"),
        pytest.param("MD5", "", id="empty"),
        pytest.param("MD5", "a" * 31, id="too short"),
        pytest.param("SHA-256", "a" * 32, id="an MD5 called SHA-256"),
        pytest.param("MD5", "g" * 32, id="not hexadecimal"),
        pytest.param("MD5", "aa " * 10 + "aa", id="spaces, which bytes.fromhex skips"),
        pytest.param("MD5", "\uff11" * 32, id="full-width digits"),
        pytest.param("MD5", "a" * 32 + "\n", id="a line feed"),
    ],
)
def test_no_claim_is_made_that_may_be_wrong(algorithm: str | None, checksum: str | None) -> None:
    assert digest_fields(algorithm, checksum) == {}


@given(st.sampled_from(["MD5", "SHA-1", "SHA-256", "SHA-512"]), st.text())
def test_no_checksum_raises(algorithm: str, checksum: str) -> None:
    digest_fields(algorithm, checksum)


SHA = digest_fields("SHA-256", "00" * 32)


@pytest.mark.parametrize(
    ("headers", "names"),
    [
        ([], {"Digest", "Repr-Digest"}),
        ([("Want-Digest", "SHA-512;q=1, SHA-256;q=1, SHA;q=0.1")], {"Digest", "Repr-Digest"}),
        ([("Want-Digest", "SHA-256;q=0")], {"Repr-Digest"}),
        ([("Want-Digest", "MD5")], {"Repr-Digest"}),
        ([("Want-Repr-Digest", "sha-256=0")], {"Digest"}),
        ([("Want-Repr-Digest", "sha-512=3"), ("Want-Repr-Digest", "sha-256=10")], {"Digest", "Repr-Digest"}),
        ([("Want-Repr-Digest", "sha-512=3"), ("Want-Digest", "md5")], set()),
        ([("Want-Repr-Digest", "\u00e9;;=,,")], {"Digest", "Repr-Digest"}),
    ],
)
def test_preferences_are_honoured(headers: list[tuple[str, str]], names: set[str]) -> None:
    assert set(wanted_digests(SHA, CIMultiDict(headers))) == names

"""Which keys of a published set are taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.identity.jwks import MOST_KEYS, UnusableError, fresh_seconds, parse_discovery, parse_key_set
from gateway.identity.keys import VerificationKey
from tests.identity.forge import EC_KEYS, ED_KEY, OTHER_RSA_KEY, RSA_KEY, base64url, jwk

ALL = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
RSA = jwk(RSA_KEY.public_key(), kid="rsa")
EC = jwk(EC_KEYS["ES256"].public_key(), kid="ec")
ED = jwk(ED_KEY.public_key(), kid="ed")
PLACE = ["jwks_uri"]
SPARE = jwk(OTHER_RSA_KEY.public_key(), kid="spare")


def parsed(*keys: Any, algorithms: list[str] = ALL) -> tuple[VerificationKey, ...]:
    return parse_key_set(json.dumps({"keys": keys}).encode(), algorithms)


def integer(value: int) -> str:
    return base64url(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def test_keys_of_each_type_are_read_and_pinned_to_what_they_can_do() -> None:
    curves = [jwk(key.public_key(), kid=name) for name, key in EC_KEYS.items()]
    rsa_key, *ec_keys, ed_key = parsed(RSA, *curves, ED)
    assert rsa_key == VerificationKey(tuple(ALL[:6]), RSA_KEY.public_key(), "rsa")
    assert ec_keys == [VerificationKey((name,), key.public_key(), name) for name, key in EC_KEYS.items()]
    assert ed_key == VerificationKey(("EdDSA",), ED_KEY.public_key(), "ed")


def test_a_key_is_pinned_to_its_own_algorithm_and_to_those_of_the_settings() -> None:
    assert [key.algorithms for key in parsed({**RSA, "alg": "PS384"})] == [("PS384",)]
    assert [key.algorithms for key in parsed(RSA, algorithms=["RS512", "ES256"])] == [("RS512",)]


def test_what_a_provider_adds_does_not_matter() -> None:
    extras = {"use": "sig", "key_ops": ["verify", "sign"], "x5c": ["MIIB"], "x5t": "x", "x5u": "http://127.0.0.1:9/"}
    assert [key.kid for key in parsed({**RSA, **extras, "alg": "RS256"})] == ["rsa"]


def private_rsa() -> dict[str, Any]:
    numbers = RSA_KEY.private_numbers()
    return {
        **RSA,
        "d": integer(numbers.d),
        "p": integer(numbers.p),
        "q": integer(numbers.q),
        "dp": integer(numbers.dmp1),
        "dq": integer(numbers.dmq1),
        "qi": integer(numbers.iqmp),
    }


USELESS: dict[str, Callable[[], Any]] = {
    "a private RSA key": private_rsa,
    "a private RSA key of d alone": lambda: {**RSA, "d": integer(RSA_KEY.private_numbers().d)},
    "a private EC key": lambda: {**EC, "d": integer(EC_KEYS["ES256"].private_numbers().private_value)},
    "a private Ed25519 key": lambda: {**ED, "d": base64url(ED_KEY.private_bytes_raw())},
    "a symmetric key": lambda: {"kty": "oct", "k": base64url(b"k" * 64), "alg": "HS256"},
    "a symmetric key that says RS256": lambda: {"kty": "oct", "k": base64url(b"k" * 64), "alg": "RS256"},
    "a public key with a secret beside it": lambda: {**RSA, "k": base64url(b"k" * 64)},
    "use enc": lambda: {**RSA, "use": "enc"},
    "use null": lambda: {**RSA, "use": None},
    "use list": lambda: {**RSA, "use": ["sig"]},
    "key_ops encrypt": lambda: {**RSA, "key_ops": ["encrypt"]},
    "key_ops sign alone": lambda: {**RSA, "key_ops": ["sign"]},
    "key_ops text": lambda: {**RSA, "key_ops": "verify"},
    "alg of encryption": lambda: {**RSA, "alg": "RSA-OAEP"},
    "alg none": lambda: {**RSA, "alg": "none"},
    "alg HS256": lambda: {**RSA, "alg": "HS256"},
    "alg list": lambda: {**RSA, "alg": ["RS256"]},
    "alg null": lambda: {**RSA, "alg": None},
    "alg of another type": lambda: {**RSA, "alg": "ES256"},
    "alg of another curve": lambda: {**EC, "alg": "ES384"},
    "kty missing": lambda: {name: value for name, value in RSA.items() if name != "kty"},
    "kty in small letters": lambda: {**RSA, "kty": "rsa"},
    "kty of another type": lambda: {**RSA, "kty": "EC"},
    "kty list": lambda: {**RSA, "kty": ["RSA"]},
    "kid number": lambda: {**RSA, "kid": 1},
    "kid list": lambda: {**RSA, "kid": ["rsa"]},
    "kid of a megabyte": lambda: {**RSA, "kid": "k" * 2**20},
    "RSA of 1024 bits": lambda: jwk(rsa.generate_private_key(65537, 1024).public_key()),
    "RSA of 16384 bits": lambda: {**RSA, "n": integer((1 << 16384) - 1)},
    "RSA without n": lambda: {"kty": "RSA", "e": "AQAB"},
    "RSA of text": lambda: {"kty": "RSA", "n": "!", "e": "!"},
    "RSA of a number": lambda: {"kty": "RSA", "n": 5, "e": 3},
    "RSA with an exponent that costs the loop milliseconds": lambda: {**RSA, "e": integer((1 << 2047) + 1)},
    "RSA with e = 2": lambda: {**RSA, "e": "Ag"},
    "RSA with e = 1": lambda: {**RSA, "e": "AQ"},
    "EC of another curve": lambda: {**EC, "crv": "secp256k1"},
    "EC of no curve": lambda: {**EC, "crv": None},
    "EC of a list of curves": lambda: {**EC, "crv": ["P-256"]},
    "EC with a short coordinate": lambda: {**EC, "x": "AA"},
    "EC at a point off the curve": lambda: {**EC, "x": base64url(b"\1" * 32)},
    "EC at infinity": lambda: {**EC, "x": base64url(bytes(32)), "y": base64url(bytes(32))},
    "Ed448": lambda: {
        "kty": "OKP",
        "crv": "Ed448",
        "x": base64url(ed448.Ed448PrivateKey.generate().public_key().public_bytes_raw()),
    },
    "X25519": lambda: {**ED, "crv": "X25519"},
    "Ed25519 cut short": lambda: {**ED, "x": "AA"},
    "null": lambda: None,
    "text": lambda: "RSA",
    "a list": lambda: [RSA],
    "a number": lambda: 1,
    "an empty object": dict,
}


@pytest.mark.parametrize("name", USELESS)
def test_a_key_that_cannot_be_used_is_passed_over(name: str) -> None:
    assert [key.kid for key in parsed(USELESS[name](), SPARE)] == ["spare"]
    with pytest.raises(UnusableError, match="without a public key for RS256"):
        parsed(USELESS[name]())


def test_the_curve_of_bitcoin_is_not_taken_for_another() -> None:
    point = ec.generate_private_key(ec.SECP256K1()).public_key().public_numbers()
    key = {"kty": "EC", "crv": "P-256", "x": base64url(point.x.to_bytes(32)), "y": base64url(point.y.to_bytes(32))}
    with pytest.raises(UnusableError):
        parsed(key)


def test_equal_keys_count_once_and_there_are_at_most_so_many() -> None:
    assert len(parsed(RSA, RSA, {**RSA, "kid": "again"})) == 2
    assert len(parsed(*({**EC, "kid": str(n)} for n in range(MOST_KEYS * 2)))) == MOST_KEYS


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
members = st.sampled_from(["kty", "use", "key_ops", "alg", "kid", "n", "e", "x", "y", "crv", "d", "k", "x5c"])


@settings(deadline=None)
@given(st.sampled_from([RSA, EC, ED]), st.dictionaries(members, json_values, max_size=3))
def test_any_json_in_a_key_is_a_key_or_passed_over(good: dict[str, Any], changes: dict[str, Any]) -> None:
    keys = parsed({**good, **changes}, SPARE)
    assert keys[-1].kid == "spare"


@settings(deadline=None)
@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_no_set_or_document(body: bytes) -> None:
    with pytest.raises(UnusableError):
        parse_key_set(body, ALL)
    with pytest.raises(UnusableError):
        parse_discovery(body, "https://idp.example.org", ["idp.example.org:443"], PLACE, insecure_http=False)


def test_a_discovery_document_says_where_the_keys_are() -> None:
    body = json.dumps({"issuer": "https://idp.example.org", "jwks_uri": "https://keys.example.org:8443/x?y"}).encode()
    hosts = ["idp.example.org:443", "keys.example.org:8443"]
    (found,) = parse_discovery(body, "https://idp.example.org", hosts, PLACE, insecure_http=False)
    assert found.url == "https://keys.example.org:8443/x?y"
    with pytest.raises(UnusableError, match="none of 'hosts'"):
        parse_discovery(body, "https://idp.example.org", hosts[:1], PLACE, insecure_http=False)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 600),
        ({"Cache-Control": "public"}, 600),
        ({"Cache-Control": "public, max-age=3600"}, 3600),
        ({"cache-control": "MAX-AGE=3600, must-revalidate"}, 3600),
        ({"Cache-Control": 'max-age="120"'}, 120),
        ({"Cache-Control": "max-age=0"}, 60),
        ({"Cache-Control": "max-age=59"}, 60),
        ({"Cache-Control": "max-age=999999999"}, 86_400),
        ({"Cache-Control": "max-age=99999999999999999999"}, 86_400),
        ({"Cache-Control": "max-age=-1"}, 600),
        ({"Cache-Control": "max-age=x"}, 600),
        ({"Cache-Control": "s-maxage=7"}, 600),
        ({"Cache-Control": "no-store"}, 60),
        ({"Cache-Control": "no-cache, max-age=3600"}, 60),
        ({"Cache-Control": "max-age=3600", "Age": "600"}, 3000),
        ({"Cache-Control": "max-age=3600", "Age": "-600"}, 3600),
        ({"Cache-Control": "max-age=3600", "Age": "99999"}, 60),
        ({"Expires": "Thu, 01 Jan 1970 00:00:00 GMT"}, 600),
    ],
)
def test_keys_are_fresh_for_as_long_as_the_answer_says_within_bounds(headers: dict[str, str], seconds: float) -> None:
    assert fresh_seconds(CIMultiDict(headers)) == seconds

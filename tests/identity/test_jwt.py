"""What a bearer token must be: everything else is 401 and nothing but 401."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable
from http import HTTPStatus

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.identity.claims import LONGEST_CLAIM, MOST_GROUPS
from gateway.identity.jwt import LONGEST_TOKEN, BearerTokens, TokenIssuer, sign
from gateway.identity.keys import PublicKey, StaticKeys, VerificationKey
from gateway.identity.networks import Networks
from gateway.identity.principal import Principal
from tests.identity import forge
from tests.identity.asking import identify_at_once
from tests.identity.forge import RSA_KEY, RSA_PEM, SECRET, base64url, claims, token, with_claim, with_header

LEEWAY = 10.0


def of(
    algorithms: tuple[str, ...], key: bytes | PublicKey, issuer: str | None = None, audience: str | None = None
) -> TokenIssuer:
    return TokenIssuer(issuer, audience, algorithms, StaticKeys((VerificationKey(algorithms, key),)))


def bearer_tokens(
    *issuers: TokenIssuer, leeway: float = LEEWAY, clock: Callable[[], float] = time.time
) -> BearerTokens:
    return BearerTokens(issuers, leeway, Networks(32, 64), clock)


HMAC = of(("HS256", "HS384", "HS512"), SECRET.encode())
RSA = of(("RS256",), RSA_KEY.public_key())
BOTH = bearer_tokens(HMAC, RSA)
ONLY_RSA = bearer_tokens(RSA)
ONLY_HS512 = bearer_tokens(of(("HS512",), SECRET.encode()))
STRICT = bearer_tokens(of(("HS256",), SECRET.encode(), issuer="https://idp.example.org", audience="gateway"))


def now() -> int:
    return int(time.time())


def unsigned(algorithm: object) -> str:
    header = base64url(json.dumps({"typ": "JWT", "alg": algorithm}).encode())
    return f"{header}.{base64url(json.dumps(claims()).encode())}."


def parts() -> list[str]:
    return token().split(".")


def assert_refused(tokens: BearerTokens, shown: str) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        identify_at_once(tokens, shown)
    error = caught.value
    assert error.status is HTTPStatus.UNAUTHORIZED
    assert error.headers == {"WWW-Authenticate": 'Bearer realm="downloads", error="invalid_token"'}
    assert len(error.detail) < 200
    for piece in shown.split("."):
        assert len(piece) < 12 or piece not in error.detail
    return error


def unencoded_payload() -> str:
    """RFC 7797: well signed over a payload that is not base64url."""
    header = base64url(json.dumps({"alg": "HS256", "b64": False, "crit": ["b64"]}).encode())
    payload = json.dumps(claims())
    signed = base64url(forge.signature(f"{header}.{payload}".encode(), "HS256"))
    return f"{header}..{signed}"


def turned_bit() -> str:
    header, payload, signature = parts()
    return f"{header}.{payload}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"


def other_payload() -> str:
    header, _, signature = parts()
    return f"{header}.{base64url(json.dumps(claims(role='INSTANCE_ADMIN')).encode())}.{signature}"


def dangling_bits() -> str:
    """The same 32 bytes of signature, written so that the unused bits of the last character are not 0."""
    header, payload, signature = parts()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return f"{header}.{payload}.{signature[:-1]}{alphabet[alphabet.index(signature[-1]) + 1]}"


JWK_OF_ATTACKER = {"kty": "oct", "k": base64url(b"k" * 64)}
DEEP = '{"a":' * 5000 + "1" + "}" * 5000

FORGED: dict[str, Callable[[], str]] = {
    "alg none": lambda: unsigned("none"),
    "alg None": lambda: unsigned("None"),
    "alg nOnE": lambda: unsigned("nOnE"),
    "alg empty": lambda: unsigned(""),
    "alg null": lambda: unsigned(None),
    "alg list": lambda: unsigned(["HS256"]),
    "alg object": lambda: unsigned({"HS256": 1}),
    "alg number": lambda: unsigned(256),
    "alg lower case": lambda: token(header={"alg": "hs256"}),
    "alg missing": lambda: token(header={"typ": "JWT"}),
    "alg none with a true signature": lambda: token(header={"alg": "none"}),
    "alg that nobody has": lambda: token(header={"alg": "HS257"}),
    "alg of another hash": lambda: token(header={"alg": "HS384"}),
    "alg of an elliptic curve": lambda: token(header={"alg": "ES256"}),
    "alg duplicated, the last counts": lambda: token(header='{"alg":"HS256","alg":"none"}'),
    "empty signature": lambda: ".".join([*parts()[:2], ""]),
    "no signature": lambda: ".".join(parts()[:2]),
    "turned bit of the signature": turned_bit,
    "shortened signature": lambda: token()[:-4],
    "signature of another payload": other_payload,
    "dangling bits": dangling_bits,
    "wrong secret": lambda: token(secret=b"x" * 64),
    "empty secret": lambda: token(secret=b""),
    "HS256 with the RSA key's PEM": lambda: token(secret=RSA_PEM),
    "HS256 with the RSA key's PEM, stripped": lambda: token(secret=RSA_PEM.strip()),
    "HS256 with the RSA key's DER": lambda: token(
        secret=RSA_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ),
    "HS256 with the RSA key's modulus": lambda: token(
        secret=RSA_KEY.public_key().public_numbers().n.to_bytes(256, "big")
    ),
    "RS256 of another key": lambda: token(signed_as="RS256", key=forge.OTHER_RSA_KEY),
    "RS256 named, HS256 made": lambda: token(header={"alg": "RS256"}, secret=RSA_PEM),
    "RS256 with an empty signature": lambda: unsigned("RS256"),
    "embedded jwk": lambda: token(header={"alg": "HS256", "jwk": JWK_OF_ATTACKER}, secret=b"k" * 64),
    "jku": lambda: token(header={"alg": "RS256", "jku": "http://127.0.0.1:9/keys"}, signed_as="HS256"),
    "x5u": lambda: token(header={"alg": "RS256", "x5u": "http://127.0.0.1:9/cert"}, signed_as="HS256"),
    "x5c": lambda: token(header={"alg": "HS256", "x5c": ["MIIB"]}, secret=b"MIIB"),
    "kid is an empty file": lambda: token(header={"alg": "HS256", "kid": "../../../../dev/null"}, secret=b""),
    "kid is SQL": lambda: token(header={"alg": "HS256", "kid": "x' UNION SELECT 'key"}, secret=b"key"),
    "kid is a list": lambda: with_header(kid=["a"]),
    "kid is a number": lambda: with_header(kid=1),
    "crit unknown": lambda: with_header(crit=["exp2"], exp2=1),
    "crit empty": lambda: with_header(crit=[]),
    "crit is no list": lambda: with_header(crit="exp"),
    "crit of non-strings": lambda: with_header(crit=[1]),
    "b64 false, listed": unencoded_payload,
    "b64 false, not listed": lambda: with_header(b64=False),
    "two dots alone": lambda: "..",
    "a JWE's five parts": lambda: f"{token()}.AAAA.AAAA",
    "four parts": lambda: f"{token()}.AAAA",
    "one part": lambda: "AAAA",
    "empty": lambda: "",
    "padding of the signature": lambda: f"{token()}=",
    "padding of the header": lambda: "{}==.{}.{}".format(*parts()),
    "a space within": lambda: token().replace(".", ". ", 1),
    "a newline at the end": lambda: f"{token()}\n",
    "a tab before": lambda: f"\t{token()}",
    "base64 of the other alphabet": lambda: "{}.{}.{}".format(*parts()[:2], "+/" * 21 + "+"),
    "NUL": lambda: f"{token()}\0",
    "lone surrogate": lambda: f"{token()}\udcff",
    "other letters": lambda: f"{token()}é",
    "header is no JSON": lambda: token(header="{alg: HS256}"),
    "header is a list": lambda: token(header='["HS256"]'),
    "header is a string": lambda: token(header='"HS256"'),
    "header is not UTF-8": lambda: token(header=b'\xff{"alg":"HS256"}'),
    "header is deep": lambda: token(header='{"a":' * 500 + '"HS256"' + "}" * 500),
    "payload is deep": lambda: token(DEEP)[:LONGEST_TOKEN],
    "payload is deep and signed": lambda: token("[" * 3000),
    "payload is no JSON": lambda: token("tenant=esa"),
    "payload is a list": lambda: token("[]"),
    "payload is null": lambda: token("null"),
    "payload is empty": lambda: token(""),
    "payload is not UTF-8": lambda: token(b'{"sub": "\xff"}'),
    "a number of 5000 digits": lambda: with_claim("x", "1" * 5000),
    "too long": lambda: token(claims(x="x" * LONGEST_TOKEN)),
    "a megabyte of dots": lambda: "." * 2**20,
    "exp missing": lambda: token(claims(exp=...)),
    "exp null": lambda: with_claim("exp", "null"),
    "exp string": lambda: with_claim("exp", f'"{now() + 600}"'),
    "exp text": lambda: with_claim("exp", '"never"'),
    "exp true": lambda: with_claim("exp", "true"),
    "exp NaN": lambda: with_claim("exp", "NaN"),
    "exp Infinity": lambda: with_claim("exp", "Infinity"),
    "exp 1e308": lambda: with_claim("exp", "1e308"),
    "exp 1e999": lambda: with_claim("exp", "1e999"),
    "exp of 300 digits": lambda: with_claim("exp", "9" * 300),
    "exp in milliseconds": lambda: with_claim("exp", str((now() + 600) * 1000)),
    "exp negative": lambda: with_claim("exp", "-1"),
    "exp zero": lambda: with_claim("exp", "0"),
    "exp array": lambda: with_claim("exp", f"[{now() + 600}]"),
    "exp object": lambda: with_claim("exp", "{}"),
    "expired beyond leeway": lambda: token(claims(exp=now() - int(LEEWAY) - 1)),
    "exp duplicated, the last counts": lambda: with_claim("exp", f'{now() + 600}, "exp": 1'),
    "nbf in the future": lambda: token(claims(nbf=now() + 60)),
    "nbf string": lambda: with_claim("nbf", '"0"'),
    "nbf null": lambda: with_claim("nbf", "null"),
    "nbf NaN": lambda: with_claim("nbf", "NaN"),
    "nbf 1e999": lambda: with_claim("nbf", "1e999"),
    "iat in the future": lambda: token(claims(iat=now() + 60)),
    "iat string": lambda: with_claim("iat", '"0"'),
    "iat Infinity": lambda: with_claim("iat", "-Infinity"),
    "groups text": lambda: token(claims(groups="science")),
    "groups object": lambda: token(claims(groups={"science": True})),
    "groups null": lambda: token(claims(groups=None)),
    "groups of numbers": lambda: token(claims(groups=[1])),
    "groups of lists": lambda: token(claims(groups=[["science"]])),
    "groups with an empty name": lambda: token(claims(groups=[""])),
    "groups with NUL": lambda: token(claims(groups=["science\0"])),
    "groups with a lone surrogate": lambda: with_claim("groups", r'["\ud800"]'),
    "too many groups": lambda: token(claims(groups=["g"] * (MOST_GROUPS + 1))),
    "accessGroups text": lambda: token(claims(groups=..., accessGroups="science")),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_or_broken_token_is_refused(name: str) -> None:
    assert_refused(BOTH, FORGED[name]())


@pytest.mark.parametrize("claim", ["tenant", "sub", "role", "email"])
@pytest.mark.parametrize(
    "value",
    ["null", '""', "1", "true", '["esa"]', '{"a": 1}', r'"esa\u0000"', r'"\ud800"', r'"a\udfff"', f'"{"x" * 1025}"'],
)
def test_a_claim_that_says_who_must_be_plain_text(claim: str, value: str) -> None:
    error = assert_refused(BOTH, with_claim(claim, value))
    assert claim in error.detail or claim == "sub"


@pytest.mark.parametrize("claim", ["tenant", "sub", "role", "email"])
def test_a_claim_that_says_who_must_be_there(claim: str) -> None:
    assert f"'{claim}'" in assert_refused(BOTH, token(claims(**{claim: ...}))).detail


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "RS256"])
def test_an_algorithm_is_accepted_only_by_the_key_it_is_pinned_to(algorithm: str) -> None:
    assert_refused(ONLY_HS512, token(signed_as=algorithm))
    assert_refused(ONLY_HS512, token(header={"alg": "HS512"}, signed_as=algorithm))


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("secret", [RSA_PEM, RSA_PEM.strip(), RSA_PEM.replace(b"\n", b"\r\n"), b""])
def test_an_rsa_public_key_is_no_secret(algorithm: str, secret: bytes) -> None:
    assert_refused(ONLY_RSA, token(signed_as=algorithm, secret=secret))
    assert_refused(BOTH, token(signed_as=algorithm, secret=secret))


STRANGE = {
    "no iss": claims(aud="gateway"),
    "wrong iss": claims(iss="https://evil.example.org", aud="gateway"),
    "iss with a slash": claims(iss="https://idp.example.org/", aud="gateway"),
    "iss in capitals": claims(iss="https://IDP.example.org", aud="gateway"),
    "iss list": claims(iss=["https://idp.example.org"], aud="gateway"),
    "iss null": claims(iss=None, aud="gateway"),
    "no aud": claims(iss="https://idp.example.org"),
    "wrong aud": claims(iss="https://idp.example.org", aud="another"),
    "part of aud": claims(iss="https://idp.example.org", aud="gate"),
    "longer aud": claims(iss="https://idp.example.org", aud="gateway2"),
    "aud null": claims(iss="https://idp.example.org", aud=None),
    "aud empty": claims(iss="https://idp.example.org", aud=[]),
    "aud of others": claims(iss="https://idp.example.org", aud=["a", "b"]),
    "aud with a number": claims(iss="https://idp.example.org", aud=["gateway", 1]),
    "aud object": claims(iss="https://idp.example.org", aud={"gateway": 1}),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_token_of_or_for_somebody_else_is_refused(name: str) -> None:
    assert_refused(STRICT, token(STRANGE[name]))


@pytest.mark.parametrize("audience", ["gateway", ["gateway"], ["another", "gateway"]])
def test_a_token_of_the_issuer_for_us_is_accepted(audience: object) -> None:
    assert identify_at_once(STRICT, token(claims(iss="https://idp.example.org", aud=audience))).subject == "scientist"


GOOD: dict[str, Callable[[], str]] = {
    "HS256": lambda: token(signed_as="HS256"),
    "HS384": lambda: token(signed_as="HS384"),
    "HS512": lambda: token(signed_as="HS512"),
    "RS256": lambda: token(signed_as="RS256"),
    "no typ": lambda: token(header={"alg": "HS256"}),
    "typ at+jwt": lambda: token(header={"alg": "HS256", "typ": "at+jwt"}),
    "kid": lambda: with_header(kid="2026-01"),
    "white space in the JSON": lambda: token(json.dumps(claims(), indent=4)),
    "just expired": lambda: token(claims(exp=now() - int(LEEWAY) + 5)),
    "from a clock a little ahead": lambda: token(claims(iat=now() + 5, nbf=now() + 5)),
    "exp with a fraction": lambda: token(claims(exp=now() + 600.5)),
    "exp in 900 years": lambda: token(claims(exp=now() + 900 * 365 * 86400)),
    "no iat": lambda: token(claims(iat=...)),
    "audience where none is asked for": lambda: token(claims(aud=["anybody"], iss="anybody")),
    "accessGroups": lambda: token(claims(groups=..., accessGroups=["science"])),
    "other claims": lambda: token(claims(jti="1", azp="x", realm={"a": [1, None]})),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_token_is_accepted(name: str) -> None:
    expected = Principal("esa", "scientist", "scientist@example.org", "REGISTERED_USER", ("science",))
    assert identify_at_once(BOTH, GOOD[name]()) == expected


def test_groups_are_optional_and_may_be_many_and_of_any_alphabet() -> None:
    assert identify_at_once(BOTH, token(claims(groups=...))).groups == ()
    assert identify_at_once(BOTH, token(claims(groups=[]))).groups == ()
    assert len(identify_at_once(BOTH, token(claims(groups=["g"] * MOST_GROUPS))).groups) == MOST_GROUPS
    assert identify_at_once(BOTH, token(claims(groups=["Île 北京 🛰"]))).groups == ("Île 北京 🛰",)
    assert identify_at_once(BOTH, token(claims(sub="s" * LONGEST_CLAIM))).subject == "s" * LONGEST_CLAIM


def test_claims_are_bounded_in_bytes() -> None:
    longest = "é" * (LONGEST_CLAIM // 2)
    assert identify_at_once(BOTH, token(claims(email=longest))).email == longest
    assert_refused(BOTH, token(claims(email=f"{longest}é")))


def test_groups_win_over_access_groups() -> None:
    assert identify_at_once(BOTH, token(claims(groups=["a"], accessGroups=["b"]))).groups == ("a",)


def test_the_second_key_of_an_algorithm_is_tried_too() -> None:
    """A secret is being replaced: tokens of both are good."""
    tokens = bearer_tokens(of(("HS256",), b"the new secret, " * 4), HMAC)
    assert identify_at_once(tokens, token()).subject == "scientist"
    assert identify_at_once(tokens, token(secret=b"the new secret, " * 4)).subject == "scientist"
    assert_refused(tokens, token(secret=b"the third secret" * 4))


def test_the_reason_is_told() -> None:
    reasons = {
        "expired": token(claims(exp=now() - 60)),
        "not valid yet": token(claims(nbf=now() + 60)),
        "lacks the claim 'exp'": token(claims(exp=...)),
        "too long": "x" * (LONGEST_TOKEN + 1),
        "not a JWT": "x.y.z",
        "algorithm": token(header={"alg": "none"}),
        "signature": token(secret=b"x" * 64),
    }
    for reason, shown in reasons.items():
        assert reason in assert_refused(BOTH, shown).detail
    assert "by or for somebody else" in assert_refused(STRICT, token(STRANGE["wrong aud"])).detail


def test_what_sign_makes_is_read() -> None:
    who = Principal("esa", "scientist", "s@example.org", "ADMIN", ("a", "b"))
    made = sign(SECRET, "HS512", who, now=datetime.datetime.now(datetime.UTC), lifetime=datetime.timedelta(hours=1))
    assert identify_at_once(BOTH, made) == who


@settings(deadline=None)
@given(st.one_of(st.text(), st.text(alphabet=st.characters(categories=["Cs", "Lu", "Cc", "Nd"]))))
def test_any_text_is_refused_as_token(shown: str) -> None:
    assert_refused(BOTH, shown)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
member_names = st.sampled_from(["exp", "nbf", "iat", "aud", "iss", "sub", "tenant", "role", "email", "groups", "jti"])


@settings(deadline=None)
@given(st.dictionaries(member_names, json_values, max_size=4))
def test_any_json_in_the_claims_is_a_principal_or_401(changes: dict[str, object]) -> None:
    shown = token(claims(**changes))
    for tokens in (BOTH, STRICT):
        try:
            who = identify_at_once(tokens, shown)
        except GatewayError:
            assert_refused(tokens, shown)
            continue
        assert all(isinstance(text, str) and text for text in (who.tenant, who.subject, who.role, who.email))


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["alg", "kid", "crit", "b64", "typ", "jwk", "x5c", "zip"]), json_values))
def test_any_json_in_the_header_is_401_or_harmless(members: dict[str, object]) -> None:
    shown = token(header={"alg": "HS256", **members}, secret=b"not the secret, but as long as it has to be")
    assert_refused(BOTH, shown)


@settings(deadline=None)
@given(st.integers(min_value=0), st.characters(codec="ascii"))
def test_no_character_of_a_token_can_be_replaced(position: int, character: str) -> None:
    good = GOOD_TOKEN
    position %= len(good)
    changed = good[:position] + character + good[position + 1 :]
    if changed != good:
        assert_refused(BOTH, changed)


GOOD_TOKEN = token(claims(exp=now() + 10**6))


def test_a_remembered_token_is_not_good_past_its_expiry(monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.time()
    clock = [start]
    tokens = bearer_tokens(HMAC, leeway=0, clock=lambda: clock[0])
    good = token(claims(exp=int(start) + 100))
    first = identify_at_once(tokens, good)
    monkeypatch.setattr("gateway.identity.jwt.parse_token", lambda _: pytest.fail("it is not remembered"))
    assert identify_at_once(tokens, good) is first
    monkeypatch.undo()
    clock[0] = int(start) + 100
    with pytest.raises(GatewayError, match="expired"):
        identify_at_once(tokens, good)


def test_no_more_tokens_are_remembered_than_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.identity.jwt.MOST_REMEMBERED", 3)
    tokens = bearer_tokens(HMAC, leeway=0)
    for number in range(10):
        name = f"user-{number}"
        made = token(claims(sub=name))
        assert identify_at_once(tokens, made).subject == name
    assert len(tokens._verified) == 3

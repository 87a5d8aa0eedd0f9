"""Several issuers side by side: each token is verified as the settings say for its own, and as nothing else.

A port on which nobody may ever connect stands for all addresses that tokens name.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.config import Identity, JwtKey
from gateway.errors import GatewayError
from gateway.identity.claims import ClaimMapping
from gateway.identity.jwt import BearerTokens, TokenIssuer, open_tokens
from gateway.identity.keys import StaticKeys, VerificationKey, load_key
from gateway.identity.networks import Networks
from gateway.identity.principal import Principal
from tests.identity.asking import at_once, identify, identify_at_once, request
from tests.identity.forge import (
    EC_KEYS,
    ED_KEY,
    OTHER_RSA_KEY,
    RSA_KEY,
    RSA_PEM,
    SECRET,
    base64url,
    claims,
    jwk,
    own_key,
    pem,
    signature,
    token,
)
from tests.identity.provider import Provider, provider

ISSUER = "https://idp.example.org/realm"
"""Signs with everything asymmetric; each key has its kid."""
OTHER_ISSUER = "https://other.example.org"
"""Signs with ES256, by a key of its own and the name that a key of the first has."""
AUDIENCE = "downloads"
ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
OTHER_EC_KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_ED_KEY = ed25519.Ed25519PrivateKey.generate()
KEYS = (
    VerificationKey(("RS256", "RS384", "RS512"), RSA_KEY.public_key(), "rsa"),
    VerificationKey(("PS256", "PS384", "PS512"), OTHER_RSA_KEY.public_key(), "pss"),
    *(VerificationKey((name,), key.public_key(), name) for name, key in EC_KEYS.items()),
    VerificationKey(("EdDSA",), ED_KEY.public_key(), "ed"),
)
KIDS = {"RS": "rsa", "PS": "pss", "Ed": "ed"}
TOKENS = BearerTokens(
    [
        TokenIssuer(ISSUER, AUDIENCE, ASYMMETRIC, StaticKeys(KEYS)),
        TokenIssuer(
            OTHER_ISSUER,
            AUDIENCE,
            ("ES256",),
            StaticKeys((VerificationKey(("ES256",), OTHER_EC_KEY.public_key(), "ES256"),)),
            ClaimMapping(tenant="cnes"),
        ),
        TokenIssuer(None, None, ("HS256",), StaticKeys((VerificationKey(("HS256",), SECRET.encode()),))),
    ],
    10,
    Networks(32, 64),
)
SCIENTIST = Principal("esa", "scientist", "scientist@example.org", "REGISTERED_USER", ("science",))


def said(**changes: Any) -> dict[str, Any]:
    return claims(**{"iss": ISSUER, "aud": AUDIENCE, **changes})


def good(algorithm: str = "ES256", *, header: dict[str, Any] | None = None, **changes: Any) -> str:
    """A token of the first issuer; ``header`` adds members, or takes those away that are ``...``."""
    members = {"alg": algorithm, "kid": KIDS.get(algorithm[:2], algorithm), **(header or {})}
    key = OTHER_RSA_KEY if algorithm.startswith("PS") else own_key(algorithm)
    shown = {name: value for name, value in members.items() if value is not ...}
    return token(said(**changes), shown, signed_as=algorithm, key=key)


def signed_with(raw: bytes, **members: Any) -> str:
    """A token that claims to be signed by ES256, with any bytes for a signature."""
    return ".".join([*good(header=members).split(".")[:2], base64url(raw)])


def by_secret(secret: bytes, kid: str = "rsa") -> str:
    """HS256 with what everyone may know."""
    return token(said(), {"alg": "HS256", "kid": kid}, secret=secret)


def by_stranger(**members: Any) -> str:
    """Signed by a key of the attacker, who tells where to find it."""
    key = ec.generate_private_key(ec.SECP256R1())
    header = {"alg": "ES256", "jwk": jwk(key.public_key()), **members}
    return token(said(), header, signed_as="ES256", key=key)


def raw(header: str, payload: str | None = None) -> str:
    """Truly signed by ES256 over any text."""
    return token(payload or json.dumps(said()), header, signed_as="ES256")


def der_signature() -> str:
    """The signature as X.509 writes it, not as RFC 7518 §3.4 does."""
    message = ".".join(good().split(".")[:2])
    return f"{message}.{base64url(EC_KEYS['ES256'].sign(message.encode(), ec.ECDSA(SHA256())))}"


def swapped(claimed: str, made: str, kid: str) -> str:
    """``alg`` says one, the signature is another."""
    return token(said(), {"alg": claimed, "kid": kid}, signed_as=made, key=own_key(made))


HEADER = '{"alg":"ES256","kid":"ES256"'
ORDER_OF_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
PUBLIC_DER = RSA_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
ABROAD = "http://127.0.0.1:9/keys"
"""An address that a token names."""

FORGED: dict[str, Callable[[], str]] = {
    "none": lambda: good(header={"alg": "none"}),
    "None": lambda: good(header={"alg": "None"}),
    "nOnE": lambda: good(header={"alg": "nOnE"}),
    "NONE with an empty signature": lambda: signed_with(b"", alg="NONE"),
    "empty signature": lambda: signed_with(b""),
    "psychic signature: r = s = 0": lambda: signed_with(bytes(64)),
    "r = 0": lambda: signed_with(bytes(32) + b"\1" * 32),
    "s = 0": lambda: signed_with(b"\1" * 32 + bytes(32)),
    "r = s = the order": lambda: signed_with(ORDER_OF_P256.to_bytes(32, "big") * 2),
    "r = s = 1": lambda: signed_with((1).to_bytes(32, "big") * 2),
    "signature of ones": lambda: signed_with(b"\xff" * 64),
    "signature in DER": der_signature,
    "signature too long by a zero": lambda: signed_with(signature(b"x", "ES256") + b"\0"),
    "signature cut": lambda: good()[:-8],
    "Ed25519 by another key": lambda: token(said(), {"alg": "EdDSA", "kid": "ed"}, signed_as="EdDSA", key=OTHER_ED_KEY),
    "Ed25519 of zeros": lambda: signed_with(bytes(64), alg="EdDSA", kid="ed"),
    "Ed25519 cut": lambda: signed_with(bytes(63), alg="EdDSA", kid="ed"),
    "HS256 by the RSA key in PEM": lambda: by_secret(RSA_PEM),
    "HS256 by the RSA key in PEM without its last line end": lambda: by_secret(RSA_PEM.strip()),
    "HS256 by the RSA key in DER": lambda: by_secret(PUBLIC_DER),
    "HS256 by the RSA key as JWK": lambda: by_secret(json.dumps(jwk(RSA_KEY.public_key(), kid="rsa")).encode()),
    "HS256 by the modulus": lambda: by_secret(RSA_KEY.public_key().public_numbers().n.to_bytes(256, "big")),
    "HS256 by the EC key in PEM": lambda: by_secret(pem(EC_KEYS["ES256"].public_key()), "ES256"),
    "HS256 by the Ed25519 key": lambda: by_secret(ED_KEY.public_key().public_bytes_raw(), "ed"),
    "HS256 by the secret of the tables without issuer": lambda: by_secret(SECRET.encode()),
    "HS512 by the same": lambda: token(said(), {"alg": "HS512"}, signed_as="HS512"),
    "PS256 said, RS256 made": lambda: swapped("PS256", "RS256", "pss"),
    "RS256 said, PS256 made": lambda: swapped("RS256", "PS256", "rsa"),
    "RS256 said, RS384 made": lambda: swapped("RS256", "RS384", "rsa"),
    "RS512 said, RS256 made": lambda: swapped("RS512", "RS256", "rsa"),
    "ES256 said, RS256 made": lambda: swapped("ES256", "RS256", "ES256"),
    "RS256 said, ES256 made": lambda: swapped("RS256", "ES256", "rsa"),
    "ES384 said, ES256 made": lambda: swapped("ES384", "ES256", "ES384"),
    "EdDSA said, ES256 made": lambda: swapped("EdDSA", "ES256", "ed"),
    "PS256 by a key that is for RS256": lambda: swapped("PS256", "PS256", "rsa"),
    "RS256 with the kid of an EC key": lambda: good("RS256", header={"kid": "ES256"}),
    "ES256 with the kid of an RSA key": lambda: good(header={"kid": "rsa"}),
    "ES256 with the kid of another curve": lambda: good(header={"kid": "ES512"}),
    "ES256K": lambda: good(header={"alg": "ES256K"}),
    "Ed448": lambda: good("EdDSA", header={"alg": "Ed448"}),
    "alg in small letters": lambda: good(header={"alg": "es256"}),
    "alg with a blank": lambda: good(header={"alg": "ES256 "}),
    "alg list": lambda: good(header={"alg": ["ES256"]}),
    "alg missing": lambda: good(header={"alg": ...}),
    "embedded jwk": by_stranger,
    "embedded jwk with a known kid": lambda: by_stranger(kid="ES256"),
    "jku": lambda: by_stranger(jku=ABROAD, kid="ES256"),
    "jku with an unknown kid": lambda: by_stranger(jku=ABROAD, kid="new"),
    "x5u": lambda: by_stranger(x5u=ABROAD, kid="ES256"),
    "x5c": lambda: by_stranger(x5c=[base64url(PUBLIC_DER)], kid="ES256"),
    "x5t": lambda: by_stranger(x5t=base64url(hashlib.sha256(PUBLIC_DER).digest()), kid="ES256"),
    "kid is a URL": lambda: by_stranger(kid=ABROAD),
    "kid is a file": lambda: by_stranger(kid="file:///dev/null"),
    "kid is a path": lambda: token(said(), {"alg": "HS256", "kid": "../../../../dev/null"}, secret=b""),
    "kid is SQL": lambda: by_stranger(kid="x' UNION SELECT 'secret' --"),
    "kid is a command": lambda: by_stranger(kid="| sleep 10"),
    "kid is a template": lambda: by_stranger(kid="${jndi:ldap://127.0.0.1/}"),
    "kid is empty": lambda: good(header={"kid": ""}),
    "kid has a NUL": lambda: good(header={"kid": "ES256\0"}),
    "kid in other letters": lambda: good(header={"kid": "es256"}),
    "kid number": lambda: good(header={"kid": 1}),
    "kid array": lambda: good(header={"kid": ["ES256"]}),
    "kid object": lambda: good(header={"kid": {"ES256": 1}}),
    "kid true": lambda: good(header={"kid": True}),
    "kid of a megabyte": lambda: good(header={"kid": "k" * 2**20}),
    "kid of another issuer's key": lambda: token(
        said(), {"alg": "ES256", "kid": "ES256"}, signed_as="ES256", key=OTHER_EC_KEY
    ),
    "crit unknown": lambda: good(header={"crit": ["http://example.org/x"], "http://example.org/x": True}),
    "crit exp": lambda: good(header={"crit": ["exp"], "exp": 1}),
    "crit empty": lambda: good(header={"crit": []}),
    "crit null": lambda: good(header={"crit": None}),
    "b64 false": lambda: good(header={"b64": False}),
    "b64 false in crit": lambda: good(header={"b64": False, "crit": ["b64"]}),
    "b64 true in crit": lambda: good(header={"b64": True, "crit": ["b64"]}),
    "b64 of another type": lambda: good(header={"b64": 1}),
    "nested JWE": lambda: base64url(b'{"alg":"RSA-OAEP","enc":"A256GCM","cty":"JWT"}') + ".AA.AA.AA.AA",
    "JWE header in three parts": lambda: raw('{"alg":"dir","enc":"A256GCM"}'),
    "JWT in a JWT": lambda: raw(HEADER + ',"cty":"JWT"}', json.dumps(good())),
    "typ of a logout token": lambda: good(header={"typ": "logout+jwt"}),
    "typ of a proof of possession": lambda: good(header={"typ": "dpop+jwt"}),
    "typ of another type": lambda: good(header={"typ": ["JWT"]}),
    "alg twice": lambda: raw('{"alg":"none","alg":"ES256","kid":"ES256"}'),
    "alg twice, escaped": lambda: raw('{"alg":"ES256","al\\u0067":"ES256","kid":"ES256"}'),
    "kid twice": lambda: raw('{"alg":"ES256","kid":"rsa","kid":"ES256"}'),
    "sub twice": lambda: raw(HEADER + "}", json.dumps(said())[:-1] + ',"sub":"admin"}'),
    "role twice": lambda: raw(HEADER + "}", '{"role":"ADMIN",' + json.dumps(said())[1:]),
    "exp twice": lambda: raw(HEADER + "}", '{"exp":1,' + json.dumps(said())[1:]),
    "a name twice deep within": lambda: raw(HEADER + "}", json.dumps(said())[:-1] + ',"x":[{"a":1,"a":1}]}'),
    "NaN somewhere": lambda: raw(HEADER + "}", json.dumps(said())[:-1] + ',"x":NaN}'),
    "header in UTF-16": lambda: token(said(), (HEADER + "}").encode("utf-16"), signed_as="ES256"),
    "payload in UTF-16": lambda: token(json.dumps(said()).encode("utf-16"), HEADER + "}", signed_as="ES256"),
    "payload with a byte order mark": lambda: raw(HEADER + "}", "\ufeff" + json.dumps(said())),
    "JSON serialization": lambda: json.dumps(
        dict(zip(("protected", "payload", "signature"), good().split("."), strict=True))
    ),
    "padding": lambda: f"{good('RS256')}=",
    "base64 of the other alphabet": lambda: good("RS256").replace("-", "+").replace("_", "/") + "+",
    "white space within": lambda: good().replace(".", " .", 1),
    "a newline within": lambda: f"{good()[:50]}\n{good()[50:]}",
    "a newline at the end": lambda: f"{good()}\n",
    "two tokens": lambda: f"{good()},{good()}",
    "two dots": lambda: "..",
    "five parts": lambda: f"{good()}.AAAA.AAAA",
    "huge": lambda: good(x="x" * 10_000),
    "iss missing": lambda: good(iss=...),
    "iss null": lambda: good(iss=None),
    "iss with a slash": lambda: good(iss=f"{ISSUER}/"),
    "iss in capitals": lambda: good(iss=ISSUER.upper()),
    "iss with a blank": lambda: good(iss=f"{ISSUER} "),
    "iss by http": lambda: good(iss=ISSUER.replace("https", "http")),
    "iss list": lambda: good(iss=[ISSUER]),
    "iss object": lambda: good(iss={ISSUER: 1}),
    "iss of another issuer": lambda: good(iss=OTHER_ISSUER),
    "iss unknown": lambda: good(iss="https://evil.example.org"),
    "iss is where somebody listens": lambda: by_stranger_of(ABROAD),
    "alg of another issuer": lambda: good("RS256", iss=OTHER_ISSUER),
    "aud missing": lambda: good(aud=...),
    "aud null": lambda: good(aud=None),
    "aud empty": lambda: good(aud=[]),
    "aud wrong": lambda: good(aud="another"),
    "aud part of ours": lambda: good(aud="download"),
    "aud longer than ours": lambda: good(aud="downloads2"),
    "aud with ours within": lambda: good(aud="all downloads"),
    "aud in capitals": lambda: good(aud="DOWNLOADS"),
    "aud of others": lambda: good(aud=["a", "b"]),
    "aud with a number": lambda: good(aud=[AUDIENCE, 1]),
    "aud nested": lambda: good(aud=[[AUDIENCE]]),
    "aud object": lambda: good(aud={AUDIENCE: 1}),
    "exp missing": lambda: good(exp=...),
    "exp null": lambda: good(exp=None),
    "exp string": lambda: good(exp=str(int(time.time()) + 600)),
    "exp true": lambda: good(exp=True),
    "exp negative": lambda: good(exp=-1),
    "exp past": lambda: good(exp=int(time.time()) - 11),
    "exp NaN": lambda: raw(HEADER + "}", json.dumps(said(exp=float("nan")))),
    "exp Infinity": lambda: raw(HEADER + "}", json.dumps(said(exp=float("inf")))),
    "exp 1e308": lambda: good(exp=1e308),
    "exp 1e999": lambda: raw(HEADER + "}", json.dumps(said(exp=...))[:-1] + ',"exp":1e999}'),
    "exp in milliseconds": lambda: good(exp=int(time.time() + 600) * 1000),
    "exp array": lambda: good(exp=[int(time.time()) + 600]),
    "nbf in the future": lambda: good(nbf=int(time.time()) + 60),
    "nbf string": lambda: good(nbf="0"),
    "nbf true": lambda: good(nbf=True),
    "iat true": lambda: good(iat=True),
    "nbf negative": lambda: good(nbf=-1),
    "nbf in milliseconds": lambda: good(nbf=int(time.time()) * 1000),
    "iat in the future": lambda: good(iat=int(time.time()) + 60),
    "iat string": lambda: good(iat="0"),
    "iat 1e308": lambda: good(iat=1e308),
    "sub missing": lambda: good(sub=...),
    "sub empty": lambda: good(sub=""),
    "sub number": lambda: good(sub=1),
    "tenant missing": lambda: good(tenant=...),
    "tenant list": lambda: good(tenant=["esa"]),
    "tenant object": lambda: good(tenant={"name": "esa"}),
    "tenant number": lambda: good(tenant=1),
    "tenant with NUL": lambda: good(tenant="esa\0"),
    "email missing": lambda: good(email=...),
    "role missing": lambda: good(role=...),
    "groups text": lambda: good(groups="science"),
}


def by_stranger_of(issuer: str) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return token(said(iss=issuer), {"alg": "ES256", "jku": issuer}, signed_as="ES256", key=key)


def refusal(tokens: BearerTokens, shown: str) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        identify_at_once(tokens, shown)
    return caught.value


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_or_broken_token_is_refused(name: str) -> None:
    """Without waiting for anything: nothing is asked."""
    shown = FORGED[name]()
    error = refusal(TOKENS, shown)
    assert error.status is HTTPStatus.UNAUTHORIZED
    assert error.headers == {"WWW-Authenticate": 'Bearer realm="downloads", error="invalid_token"'}
    assert len(error.detail) < 200
    assert not [piece for piece in shown.split(".") if len(piece) > 12 and piece in error.detail]


def test_there_are_enough_of_them() -> None:
    assert len(FORGED) >= 100


GOOD: dict[str, Callable[[], str]] = {
    **{name: functools.partial(good, name) for name in ASYMMETRIC},
    **{
        f"{name} without kid": functools.partial(good, name, header={"kid": ...})
        for name in ("RS256", "PS512", "EdDSA")
    },
    "HS256 without issuer": lambda: token(claims()),
    "HS256 of an issuer that nobody knows": lambda: token(claims(iss="https://somebody.example.org")),
    "typ JWT": lambda: good(header={"typ": "JWT"}),
    "typ of an access token": lambda: good(header={"typ": "at+jwt"}),
    "typ of an access token, in full": lambda: good(header={"typ": "application/AT+JWT"}),
    "aud array": lambda: good(aud=["account", AUDIENCE]),
    "exp a float of whole seconds": lambda: good(exp=float(int(time.time()) + 600)),
    "exp a float": lambda: good(exp=time.time() + 600.25),
    "exp just past": lambda: good(exp=int(time.time()) - 5),
    "iat and nbf a little ahead": lambda: good(iat=int(time.time()) + 5, nbf=int(time.time()) + 5),
    "addresses of keys that are not looked at": lambda: good(header={"jku": ABROAD, "x5u": ABROAD}),
    "a jwk that is not looked at": lambda: good(header={"jwk": jwk(OTHER_EC_KEY.public_key())}),
    "b64 true": lambda: good(header={"b64": True}),
    "unknown members": lambda: good(
        header={"nonce": "x"}, jti="1", azp="portal", acr="1", realm_access={"roles": ["a"]}
    ),
    "white space in the JSON": lambda: raw(json.dumps({"alg": "ES256"}, indent=2), json.dumps(said(), indent=8)),
    "escapes in the JSON": lambda: raw(HEADER + "}", json.dumps(said()).replace("scientist", "scien\\u0074ist")),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_token_is_accepted(name: str) -> None:
    assert identify_at_once(TOKENS, GOOD[name]()) == SCIENTIST


def test_names_of_any_alphabet_are_good() -> None:
    names: dict[str, Any] = {
        "sub": "Ольга Ångström",
        "email": "οδυσσεύς@παράδειγμα.ελ",
        "tenant": "宇宙",
        "groups": ["Île 北京 🛰"],
    }
    who = identify_at_once(TOKENS, good(**names))
    assert (who.subject, who.email, who.tenant, list(who.groups)) == tuple(names.values())


def test_a_key_is_looked_for_only_among_those_of_the_issuer() -> None:
    """Both issuers have a key of this name."""
    other = token(said(iss=OTHER_ISSUER), {"alg": "ES256", "kid": "ES256"}, signed_as="ES256", key=OTHER_EC_KEY)
    assert identify_at_once(TOKENS, other).tenant == "cnes"
    own = token(said(), {"alg": "ES256", "kid": "ES256"}, signed_as="ES256", key=OTHER_EC_KEY)
    assert "signature" in refusal(TOKENS, own).detail


def test_an_issuer_cannot_reach_another_ones_tenant() -> None:
    shown = token(said(iss=OTHER_ISSUER, tenant="esa"), {"alg": "ES256"}, signed_as="ES256", key=OTHER_EC_KEY)
    assert identify_at_once(TOKENS, shown).tenant == "cnes"


def test_an_issuer_with_two_tables_may_use_the_keys_of_both() -> None:
    tables: list[dict[str, Any]] = [
        {"algorithms": ["HS256"], "secret": SECRET, "issuer": ISSUER, "audience": "one"},
        {"algorithms": ["HS256"], "secret": SECRET[::-1], "issuer": ISSUER, "audience": "two"},
        {"algorithms": ["HS512"], "secret": SECRET, "issuer": ISSUER, "audience": "three"},
    ]
    settings = [JwtKey.model_validate(table) for table in tables]
    issuers = [
        TokenIssuer(key.issuer, key.audience, tuple(key.algorithms), StaticKeys((load_key(key),))) for key in settings
    ]
    tokens = BearerTokens(issuers, 10, Networks(32, 64))
    old, new = SECRET.encode(), SECRET[::-1].encode()
    for audience, secret, algorithm in (("one", old, "HS256"), ("two", new, "HS256"), ("three", old, "HS512")):
        assert identify_at_once(tokens, token(said(aud=audience), signed_as=algorithm, secret=secret))
    for audience, secret, algorithm in (("two", old, "HS256"), ("one", new, "HS256"), ("one", old, "HS512")):
        assert refusal(tokens, token(said(aud=audience), signed_as=algorithm, secret=secret))


@contextlib.asynccontextmanager
async def nobody_may_connect() -> AsyncIterator[tuple[int, list[object]]]:
    """A port, and who connected to it."""
    seen: list[object] = []

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(writer.get_extra_info("peername"))
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()
        await server.wait_closed()


def addresses(idp: Provider, place: str) -> dict[str, str]:
    """Tokens that name ``place``, by an attacker and by the provider itself."""
    stranger = ec.generate_private_key(ec.SECP256R1())

    def by(key: ec.EllipticCurvePrivateKey, header: dict[str, Any], **changes: Any) -> str:
        payload = claims(**{"iss": idp.issuer, "aud": AUDIENCE, **changes})
        return token(payload, {"alg": "ES256", **header}, signed_as="ES256", key=key)

    return {
        "jku": by(stranger, {"jku": place, "kid": "first"}),
        "jku, unknown kid": by(stranger, {"jku": place, "kid": "new"}),
        "x5u": by(stranger, {"x5u": place}),
        "kid": by(stranger, {"kid": place}),
        "iss": by(stranger, {"kid": "first"}, iss=place),
        "iss with jku": by(stranger, {"jku": place, "kid": "x"}, iss=place),
        "iss of ours before an @": by(stranger, {}, iss=f"{idp.issuer}@{place.removeprefix('http://')}"),
        "claims": by(stranger, {}, jwks_uri=place, jku=place, azp=place, sub=place),
        "_claim_sources": by(stranger, {}, _claim_sources={"src1": {"endpoint": place}}),
        "everything": by(stranger, {"jku": place, "x5u": place, "kid": place}, iss=place),
    }


async def test_no_address_of_a_token_is_ever_connected_to() -> None:
    async with provider() as idp, nobody_may_connect() as (port, seen):
        settings = Identity(issuers=[idp.setting()])
        async with open_tokens(settings, Networks(32, 64)) as tokens:
            for place in (f"http://127.0.0.1:{port}/keys", f"http://127.0.0.1:{port}", f"http://localhost:{port}/"):
                for name, shown in addresses(idp, place).items():
                    with pytest.raises(GatewayError) as caught:
                        await identify(tokens, shown)
                    assert caught.value.status is HTTPStatus.UNAUTHORIZED, name
            good_one = token(
                claims(iss=idp.issuer, aud=AUDIENCE, jku=place),
                {"alg": "ES256", "kid": "first", "jku": place, "x5u": place},
                signed_as="ES256",
            )
            assert await identify(tokens, good_one) == SCIENTIST
        assert idp.fetches == 1
        assert {request.path for request in idp.requests} == {"/keys", "/realm/.well-known/openid-configuration"}
        assert seen == []
        # It would have been seen.
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()
        while not seen:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_token_is_found_whatever_the_case_of_its_scheme(scheme: str) -> None:
    assert TOKENS.find(request(("Authorization", f"{scheme} x.y.z"))) == "x.y.z"


@pytest.mark.parametrize("value", ["Bearer gdk_x.y.z", "bearer  gdk_", "Basic x", "Bearer", "Bearer ", "DPoP x.y.z"])
def test_api_keys_and_other_schemes_are_not_taken_for_tokens(value: str) -> None:
    assert TOKENS.find(request(("Authorization", value))) is None


def test_what_only_looks_like_an_api_key_is_a_bad_token() -> None:
    for shown in ("GDK_x", "gdk-x", "xgdk_"):
        assert TOKENS.find(request(("Authorization", f"Bearer {shown}"))) == shown


def test_two_authorization_fields_are_refused() -> None:
    with pytest.raises(GatewayError, match="more than one Authorization field"):
        TOKENS.find(request(("Authorization", "Bearer gdk_x"), ("Authorization", "Bearer x.y.z")))


def test_the_token_that_regards_makes_for_callers_without_a_name_is_an_anonymous_caller() -> None:
    public = {"sub": "public", "role": "PUBLIC", "email": "public@regards.com"}
    for changes in (public, {**public, "sub": "other"}, {**public, "groups": []}):
        who = at_once(TOKENS.identify(token(claims(**changes)), request()))
        assert who.is_anonymous
        assert (who.tenant, who.network, who.credential, who.groups) == ("esa", "192.0.2.7/32", "none", ())


def test_a_remembered_public_token_is_counted_by_the_network_of_each_request() -> None:
    shown = token(claims(sub="public", role="PUBLIC", email="public@regards.com"))
    for address in ("192.0.2.7", "192.0.2.8"):
        assert at_once(TOKENS.identify(shown, request(address=address))).network == f"{address}/32"


@pytest.mark.parametrize("changes", [{"role": "PUBLIC"}, {"email": "public@regards.com"}])
def test_a_named_caller_is_not_anonymous(changes: dict[str, str]) -> None:
    assert not at_once(TOKENS.identify(token(claims(**changes)), request())).is_anonymous

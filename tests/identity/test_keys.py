"""Keys in files and settings, and the algorithms that they fit."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gateway.config import JwtKey
from gateway.errors import ConfigurationError
from gateway.identity.jwks import parse_key_set
from gateway.identity.jwt import BearerTokens, TokenIssuer
from gateway.identity.keys import StaticKeys, VerificationKey, describe, fits, load_key
from gateway.identity.networks import Networks
from tests.identity.asking import identify_at_once
from tests.identity.forge import EC_KEYS, ED_KEY, RSA_KEY, RSA_PEM, SECRET, PrivateKey, own_key, pem, token
from tests.identity.forge import signature as forged_signature

ASYMMETRIC = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
SHORT_RSA_KEY = rsa.generate_private_key(65537, 1024)


def setting(file: Path, *algorithms: str) -> JwtKey:
    return JwtKey.model_validate({"algorithms": list(algorithms), "public_key_file": file})


def refusal(file: Path, content: bytes, *algorithms: str) -> str:
    file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load_key(setting(file, *algorithms))
    message = str(caught.value)
    assert message.startswith(f"identity.jwt: public_key_file {file}: ")
    return message


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
def test_a_public_key_in_a_file_verifies_its_algorithm(tmp_path: Path, algorithm: str) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(pem(own_key(algorithm).public_key()))
    key = load_key(setting(file, algorithm))
    issuer = TokenIssuer(None, None, (algorithm,), StaticKeys((key,)))
    tokens = BearerTokens([issuer], 10, Networks(32, 64))
    assert identify_at_once(tokens, token(signed_as=algorithm)).subject == "scientist"


def test_one_rsa_key_may_verify_several_algorithms(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(RSA_PEM)
    assert load_key(setting(file, "RS256", "PS512")).algorithms == ("RS256", "PS512")


@pytest.mark.parametrize(
    ("algorithms", "key", "needed"),
    [
        (["RS256"], SHORT_RSA_KEY, "an RSA key of at least 2048 bits"),
        (["PS512"], SHORT_RSA_KEY, "an RSA key of at least 2048 bits"),
        (["RS256"], EC_KEYS["ES256"], "an RSA key"),
        (["ES256"], RSA_KEY, "an EC key on the curve secp256r1"),
        (["ES256"], EC_KEYS["ES384"], "an EC key on the curve secp256r1"),
        (["ES384"], EC_KEYS["ES256"], "an EC key on the curve secp384r1"),
        (["ES512"], EC_KEYS["ES384"], "an EC key on the curve secp521r1"),
        (["ES256", "ES384"], EC_KEYS["ES256"], "an EC key on the curve secp384r1"),
        (["ES256"], ec.generate_private_key(ec.SECP256K1()), "an EC key on the curve secp256r1"),
        (["EdDSA"], ed448.Ed448PrivateKey.generate(), "an Ed25519 key"),
        (["EdDSA"], RSA_KEY, "an Ed25519 key"),
        (["RS256", "EdDSA"], ED_KEY, "an RSA key"),
    ],
)
def test_a_key_that_does_not_fit_each_algorithm_is_refused(
    tmp_path: Path,
    algorithms: list[str],
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey,
    needed: str,
) -> None:
    content = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert f"must be {needed}" in refusal(tmp_path / "key.pem", content, *algorithms)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        b"\xff\xfe",
        RSA_PEM[:100],
        RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        RSA_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    ],
    ids=["empty", "nonsense", "no text", "cut", "private key", "DER"],
)
def test_what_is_no_public_key_in_pem_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    assert "holds no PEM public key" in refusal(tmp_path / "key.pem", content, "RS256")


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"public_key_file .*absent: No such file"):
        load_key(setting(tmp_path / "absent", "RS256"))


def test_a_secret_is_a_key() -> None:
    key = load_key(JwtKey.model_validate({"algorithms": ["HS256"], "secret": SECRET}))
    assert key == VerificationKey(("HS256",), SECRET.encode())


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("secret", [RSA_PEM.decode(), json.dumps({"kty": "oct", "k": "k" * 64}), f"ssh-rsa {'A' * 64}"])
def test_a_public_key_given_as_secret_is_refused_at_the_start(algorithm: str, secret: str) -> None:
    """Everyone may know it, so that everyone could sign."""
    given = JwtKey.model_validate({"algorithms": [algorithm], "secret": secret})
    with pytest.raises(ConfigurationError, match=r"identity\.jwt: secret: ") as caught:
        load_key(given)
    assert secret not in str(caught.value)


def test_a_key_does_not_show_itself() -> None:
    assert SECRET not in repr(VerificationKey(("HS256",), SECRET.encode()))


def test_a_key_verifies_nothing_by_an_algorithm_that_it_is_not_pinned_to() -> None:
    shown = token(signed_as="RS256")
    message, _, _ = shown.rpartition(".")
    key = VerificationKey(("PS256",), RSA_KEY.public_key())
    signature = forged_signature(message.encode(), "RS256")
    assert VerificationKey(("RS256",), RSA_KEY.public_key()).verifies("RS256", message.encode(), signature)
    assert not key.verifies("RS256", message.encode(), signature)
    assert not key.verifies("none", message.encode(), b"")


@pytest.mark.parametrize("algorithm", ["none", "HS256", "ES256K", "Ed448", ""])
def test_no_public_key_fits_other_algorithms(algorithm: str) -> None:
    keys: list[PrivateKey] = [RSA_KEY, ED_KEY, *EC_KEYS.values()]
    assert not [key for key in keys if fits(algorithm, key.public_key())]


def test_kinds_of_keys_are_told_to_operators() -> None:
    assert describe(b"secret") == "a secret"
    assert describe(RSA_KEY.public_key()) == "RSA of 2048 bits"
    assert describe(EC_KEYS["ES384"].public_key()) == "EC secp384r1"
    assert describe(ED_KEY.public_key()) == "Ed25519"


PAYLOAD = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
VECTORS = {
    "RS256": (
        {
            "kty": "RSA",
            "n": (
                "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0B"
                "m4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5"
                "z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7"
                "aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"
            ),
            "e": "AQAB",
        },
        (
            f"eyJhbGciOiJSUzI1NiJ9.{PAYLOAD}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5"
            "RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnb"
            "yTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsq"
            "tFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_Io"
            "ypGlUPQGe77Rw"
        ),
    ),
    "ES256": (
        {
            "kty": "EC",
            "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        },
        (
            f"eyJhbGciOiJFUzI1NiJ9.{PAYLOAD}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8"
            "ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
        ),
    ),
    "EdDSA": (
        {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        (
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGc"
            "vMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
        ),
    ),
}
"""RFC 7515 A.2 and A.3, RFC 8037 A.4."""


@pytest.mark.parametrize("algorithm", VECTORS)
def test_the_examples_of_the_standards_are_verified(algorithm: str) -> None:
    published, shown = VECTORS[algorithm]
    (key,) = parse_key_set(json.dumps({"keys": [published]}).encode(), [algorithm])
    message, _, encoded = shown.rpartition(".")
    signed = base64.urlsafe_b64decode(encoded + "==")
    assert key.verifies(algorithm, message.encode(), signed)
    assert not key.verifies(algorithm, message.encode() + b"x", signed)
    assert not key.verifies(algorithm, message.encode(), bytes([signed[0] ^ 1]) + signed[1:])

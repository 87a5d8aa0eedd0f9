"""Which settings of an identity provider can be used."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.config import Identity, Issuer

GOOD: dict[str, Any] = {"issuer": "https://idp.example.org/realm", "audience": "downloads", "algorithms": ["RS256"]}
KEYS = {"jwks_url": "https://keys.example.org/jwks?kind=sig"}


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        Issuer.model_validate(values)
    return str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        KEYS,
        {**KEYS, "issuer": "any text, as RFC 7519 allows"},
        {"hosts": ["keys.example.org", "keys.example.org:8443", "[2001:db8::1]"]},
        {"issuer": "http://127.0.0.1:8080/realm", "insecure_http": True},
        {"issuer": "http://[::1]:8080", "insecure_http": True},
        {"jwks_url": "http://127.0.0.1:8080/keys", "insecure_http": True},
        {"algorithms": ["RS256", "ES512", "EdDSA", "PS384"]},
        {"grace": 0, "max_stale": 0, "cool_down": 1, "timeout": 60},
        {"tenant": "esa", "claims": {"sub": "uid"}},
        {"audience": False},
    ],
)
def test_what_can_be_used(changes: dict[str, Any]) -> None:
    assert Issuer.model_validate({**GOOD, **changes})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"audience": None}, "audience"),
        ({"audience": ""}, "audience"),
        ({"audience": True}, "audience"),
        ({"audience": []}, "audience"),
        ({"issuer": ""}, "issuer"),
        ({"algorithms": []}, "algorithms"),
        ({"algorithms": ["HS256"]}, "algorithms"),
        ({"algorithms": ["none"]}, "algorithms"),
        ({"algorithms": ["RS256", "HS512"]}, "algorithms"),
        ({"algorithms": ["ES256K"]}, "algorithms"),
        ({"issuer": "any text"}, "'issuer' must be a URL .*, or 'jwks_url' must be given"),
        ({"issuer": "http://idp.example.org"}, "'issuer' must be a URL with https"),
        ({"issuer": "http://127.0.0.1"}, "'issuer' must be a URL with https"),
        ({"issuer": "http://10.0.0.1", "insecure_http": True}, "https, or http to a loopback address"),
        ({"issuer": "http://localhost", "insecure_http": True}, "https, or http to a loopback address"),
        ({"issuer": "https://idp.example.org/?realm=x"}, "'issuer' must have no query"),
        ({"issuer": "https://user:canary@idp.example.org/"}, "'issuer' must be a URL"),
        ({"jwks_url": "http://keys.example.org/"}, "'jwks_url' must be a URL with https"),
        ({"jwks_url": "http://127.0.0.1/"}, "'jwks_url' must be a URL with https"),
        ({"jwks_url": "file:///etc/keys.json"}, "'jwks_url' must be a URL"),
        ({"jwks_url": "https://KEYS.example.org/"}, "'jwks_url' must be a URL"),
        ({**KEYS, "hosts": ["keys.example.org"]}, "'hosts' limits what discovery finds"),
        ({"hosts": ["https://keys.example.org"]}, "must be a host"),
        ({"hosts": ["*.example.org"]}, "must be a host"),
        ({"hosts": ["keys.example.org", "keys.example.org:443"]}, "names a host twice"),
        ({"tenant": "esa", "claims": {"tenant": "org"}}, "'tenant' is fixed"),
        ({"claims": {"name": "sub"}}, "claims.name"),
        ({"claims": {"sub": ""}}, "claims.sub"),
        ({"grace": -1}, "grace"),
        ({"grace": 604_801}, "grace"),
        ({"max_stale": float("inf")}, "max_stale"),
        ({"max_stale": float("nan")}, "max_stale"),
        ({"cool_down": 0}, "cool_down"),
        ({"cool_down": 3601}, "cool_down"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": 61}, "timeout"),
        ({"secret": "s" * 64}, "secret"),
        ({"leeway": 60}, "leeway"),
    ],
)
def test_what_cannot_is_refused_by_name(changes: dict[str, Any], complaint: str) -> None:
    assert re.search(complaint, refusal({**GOOD, **changes}))


def test_an_issuer_has_one_table_of_its_own() -> None:
    key = {"algorithms": ["HS256"], "secret": "s" * 32, "issuer": GOOD["issuer"]}
    for tables in ({"issuers": [GOOD, {**GOOD, "audience": "other"}]}, {"jwt": [key], "issuers": [GOOD]}):
        with pytest.raises(ValidationError, match="is in more than one table"):
            Identity.model_validate(tables)
    # Several keys of one issuer are several [[identity.jwt]].
    assert Identity.model_validate({"jwt": [key, key], "issuers": [{**GOOD, "issuer": f"{GOOD['issuer']}/"}]})


def test_issuers_may_take_the_place_of_keys_and_one_of_both_is_needed() -> None:
    assert Identity.model_validate({"issuers": [GOOD]}).jwt == []
    with pytest.raises(ValidationError, match=r"\[\[identity.jwt\]\].*\[\[identity.issuers\]\]"):
        Identity.model_validate({})

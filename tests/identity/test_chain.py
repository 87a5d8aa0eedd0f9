"""From header and query to a caller."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy, MultiDict

from gateway.errors import GatewayError
from gateway.identity.chain import IdentityChain
from gateway.identity.jwt import BearerTokens, TokenIssuer
from gateway.identity.keys import StaticKeys, VerificationKey
from gateway.identity.networks import Networks
from gateway.identity.principal import Principal
from gateway.identity.shown import Shown
from gateway.text import is_storable
from tests.identity.forge import SECRET, claims, token

ALGORITHMS = ("HS256", "HS512")
KEYS = StaticKeys((VerificationKey(ALGORITHMS, SECRET.encode()),))
NETWORKS = Networks(32, 64)
CHAIN = IdentityChain([BearerTokens([TokenIssuer(None, None, ALGORITHMS, KEYS)], 10, NETWORKS)], [], NETWORKS)
SCIENTIST = Principal("esa", "scientist", "scientist@example.org", "REGISTERED_USER", ("science",))


def identify(
    *fields: tuple[str, str], query: tuple[tuple[str, str], ...] = (), address: str = "192.0.2.7"
) -> Principal:
    shown = Shown(CIMultiDictProxy(CIMultiDict(fields)), MultiDict(query), address)
    return asyncio.run(CHAIN.identify(shown))


def refusal(*fields: tuple[str, str], query: tuple[tuple[str, str], ...] = ()) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        identify(*fields, query=query)
    error = caught.value
    assert error.status is HTTPStatus.UNAUTHORIZED
    assert error.headers["WWW-Authenticate"].startswith('Bearer realm="downloads"')
    return error


@pytest.mark.parametrize(
    "value", ["Bearer {}", "bearer {}", "BEARER {}", "bEaReR {}", "Bearer  {}", "Bearer {} ", "Bearer     {}   "]
)
def test_the_scheme_is_read_in_any_case_and_with_any_spaces(value: str) -> None:
    assert identify(("Authorization", value.format(token()))) == SCIENTIST
    assert identify(("AUTHORIZATION", value.format(token()))) == SCIENTIST


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "Bearer",
        "Bearer ",
        "Bearer    ",
        "{}",
        "Bearer{}",
        "Bearer:{}",
        "Bearer={}",
        "Bearer\t{}",
        "Basic {}",
        "Digest {}",
        "Token {}",
        "Bearer Bearer {}",
        'Bearer "{}"',
        "Bearer {}, Bearer {}",
        "Bearer {} {}",
        "Bearer {},",
        "Bearer token={}",
        "Ｂearer {}",
        "Bearer\u00a0{}",
    ],
)
def test_any_other_form_is_refused(value: str) -> None:
    shown = token()
    error = refusal(("Authorization", value.format(shown, shown)))
    assert "error=" in error.headers["WWW-Authenticate"]
    assert shown not in error.detail


def test_two_authorization_fields_are_refused_even_if_equal() -> None:
    field = ("Authorization", f"Bearer {token()}")
    other = ("authorization", f"Bearer {token(claims(sub='admin', role='INSTANCE_ADMIN'))}")
    for pair in ((field, field), (field, other), (field, ("Authorization", ""))):
        assert 'error="invalid_request"' in refusal(*pair).headers["WWW-Authenticate"]


def test_a_bad_credential_is_never_taken_for_anonymous() -> None:
    scope = (("scope", "esa"),)
    for value in ("", "Bearer x", "Basic eDp5", f"Bearer {token(secret=b'x' * 64)}", f"Bearer {token(claims(exp=1))}"):
        refusal(("Authorization", value), query=scope)
        refusal(("Authorization", value), ("scope", "esa"))


def test_the_tenant_of_a_token_is_not_changed_by_the_scope() -> None:
    field = ("Authorization", f"Bearer {token()}")
    assert identify(field, ("scope", "cnes"), query=(("scope", "cnes"),)) == SCIENTIST


def test_a_token_in_the_query_is_no_credential() -> None:
    for name in ("token", "access_token", "Authorization", "jwt"):
        refusal(query=((name, token()),))


def test_without_a_credential_the_scope_names_the_tenant() -> None:
    by_query = identify(query=(("scope", "esa"),))
    assert by_query == identify(("scope", "esa")) == identify(("SCOPE", "cnes"), query=(("scope", "esa"),))
    assert (by_query.tenant, by_query.email, by_query.groups) == ("esa", None, ())
    assert by_query.is_anonymous
    assert not by_query.is_admin


def test_an_anonymous_caller_has_a_network_and_a_known_one_has_none() -> None:
    scope = (("scope", "esa"),)
    assert identify(query=scope).network == "192.0.2.7/32"
    assert identify(query=scope, address="2001:db8::1:2:3:4") == identify(query=scope, address="2001:db8::")
    assert identify(query=scope, address="").network == "unknown"
    assert identify(("Authorization", f"Bearer {token()}"), query=scope).network is None


def test_a_scope_that_no_tenant_can_have_is_refused() -> None:
    for scope in ("", "esa\0", "\ud800", "\udcff"):
        refusal(query=(("scope", scope),))
        refusal(("scope", scope))
    assert "scope" in refusal().detail


@settings(deadline=None)
@given(st.text(st.characters()), st.booleans())
def test_any_text_as_authorization_is_401(value: str, after_scheme: bool) -> None:
    shown = f"Bearer {value}" if after_scheme else value
    refusal(("Authorization", shown), query=(("scope", "esa"),))


@settings(deadline=None)
@given(st.text(st.characters()))
def test_any_scope_is_a_tenant_or_401(value: str) -> None:
    if value and is_storable(value):
        assert identify(query=(("scope", value),)).tenant == value
    else:
        refusal(query=(("scope", value),))


@pytest.mark.parametrize("role", ["ADMIN", "PROJECT_ADMIN", "INSTANCE_ADMIN"])
def test_roles_that_lift_above_rights(role: str) -> None:
    assert identify(("Authorization", f"Bearer {token(claims(role=role))}")).is_admin


@pytest.mark.parametrize("role", ["admin", "ADMIN ", "REGISTERED_USER", "PUBLIC", "PROJECT-ADMIN"])
def test_roles_that_do_not(role: str) -> None:
    assert not identify(("Authorization", f"Bearer {token(claims(role=role))}")).is_admin


def at(tenant: str | None, *fields: tuple[str, str], otherwise: str | None = None, scope: str = "") -> Principal:
    """Who one is below the path of ``tenant``."""
    query = MultiDict([("scope", scope)] if scope else [])
    shown = Shown(CIMultiDictProxy(CIMultiDict(fields)), query, "192.0.2.7", tenant=tenant, otherwise=otherwise)
    return asyncio.run(CHAIN.identify(shown))


def test_below_the_path_of_a_tenant_one_is_of_him_or_there_is_no_such_tenant() -> None:
    shown = ("Authorization", f"Bearer {token()}")
    assert at("esa", shown) == SCIENTIST
    assert at("esa").tenant == at("esa", scope="other").tenant == "esa"
    refusals = []
    for tenant, fields in (("other", [shown]), ("ghost", [shown]), ("\0", [shown]), ("\0", [])):
        with pytest.raises(GatewayError) as caught:
            at(tenant, *fields)
        refusals.append((caught.value.status, caught.value.detail.replace(repr(tenant), "X")))
    assert set(refusals) == {(HTTPStatus.NOT_FOUND, "There is no tenant X.")}


def test_a_bad_credential_is_refused_whatever_the_tenant_of_the_path() -> None:
    for tenant in ("esa", "ghost"):
        with pytest.raises(GatewayError) as caught:
            at(tenant, ("Authorization", "Bearer x"))
        assert caught.value.status is HTTPStatus.UNAUTHORIZED


def test_who_names_no_tenant_is_of_the_one_that_is_meant_otherwise() -> None:
    assert at(None, otherwise="esa").tenant == "esa"
    assert at(None, otherwise="esa", scope="other").tenant == "other"
    assert at(None, ("scope", "other"), otherwise="esa").tenant == "other"
    assert at("path", otherwise="esa").tenant == "path"
    assert at(None, ("Authorization", f"Bearer {token()}"), otherwise="other") == SCIENTIST

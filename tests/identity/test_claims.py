"""Who the caller is, as tokens of different issuers say it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Identity, Issuer
from gateway.identity.claims import LONGEST_CLAIM, MOST_GROUPS, ClaimError, ClaimMapping, check_audience, check_times
from gateway.identity.principal import Principal
from tests.identity.forge import claims

KEYCLOAK: dict[str, Any] = {
    "sub": "f3a1",
    "preferred_username": "scientist",
    "email": "scientist@example.org",
    "email_verified": True,
    "realm_access": {"roles": ["offline_access", "downloads-EXPLOIT", "downloads-REGISTERED_USER"]},
    "groups": ["science"],
}


def mapping(**settings: Any) -> ClaimMapping:
    values = {"issuer": "https://idp.example.org", "audience": "downloads", "algorithms": ["RS256"]}
    return ClaimMapping.by(Issuer.model_validate(values | settings))


OF_KEYCLOAK = mapping(
    tenant="esa", role_prefix="downloads-", claims={"sub": "preferred_username", "role": "realm_access.roles"}
)


def refusal(mapped: ClaimMapping, shown: dict[str, Any]) -> str:
    with pytest.raises(ClaimError) as caught:
        mapped.principal(shown)
    return str(caught.value)


def test_claims_of_keycloak() -> None:
    who = OF_KEYCLOAK.principal(KEYCLOAK)
    assert who == Principal("esa", "scientist", "scientist@example.org", "EXPLOIT", ("science",))


def test_claims_of_a_provider_that_knows_logins_alone() -> None:
    names = {"sub": "uid", "email": "uid"}
    mapped = mapping(tenant="nasa", default_role="REGISTERED_USER", claims=names)
    assert mapped.principal({"uid": "scientist"}) == Principal("nasa", "scientist", "scientist", "REGISTERED_USER")


def test_the_examples_of_the_readme_read_tokens_of_these_providers() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    examples = [tomllib.loads(block) for block in re.findall(r"^```toml\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)]
    keycloak, logins = (Identity.model_validate(each["identity"]).issuers[0] for each in examples if "identity" in each)
    assert ClaimMapping.by(keycloak).principal(KEYCLOAK).role == "EXPLOIT"
    assert ClaimMapping.by(logins).principal({"uid": "scientist"}).email == "scientist"


def test_the_names_of_regards_are_the_default() -> None:
    assert mapping().principal(claims()) == ClaimMapping().principal(claims())
    assert mapping().principal(claims(groups=..., accessGroups=["a"])).groups == ("a",)


def test_dots_lead_into_objects_unless_a_claim_has_this_very_name() -> None:
    names = {"tenant": "a.b.c", "groups": "https://example.org/groups"}
    mapped = mapping(claims=names)
    shown = claims(a={"b": {"c": "esa", "d": "cnes"}}, **{"https://example.org/groups": ["g"]})
    assert (mapped.principal(shown).tenant, mapped.principal(shown).groups) == ("esa", ("g",))
    assert mapped.principal({**shown, "a.b.c": "dlr"}).tenant == "dlr"


@pytest.mark.parametrize("value", [{}, {"b": 1}, {"b": {}}, {"b": {"c": 1}}, {"b": {"c": ["esa"]}}, [], "b", None, 1])
def test_a_path_that_leads_nowhere_is_a_missing_claim(value: object) -> None:
    assert "'a.b.c'" in refusal(mapping(claims={"tenant": "a.b.c"}), claims(a=value))


def test_a_fixed_tenant_cannot_be_changed_by_a_token() -> None:
    assert mapping(tenant="cnes").principal(claims(tenant="esa")).tenant == "cnes"


@pytest.mark.parametrize(
    ("shown", "role"),
    [
        ("EXPLOIT", "EXPLOIT"),
        ("A_CUSTOM_ROLE", "A_CUSTOM_ROLE"),
        (["PUBLIC", "ADMIN", "EXPLOIT"], "ADMIN"),
        (["offline_access", "REGISTERED_USER"], "REGISTERED_USER"),
        (["offline_access", "A_CUSTOM_ROLE"], "DEFAULT"),
        ([], "DEFAULT"),
        (None, "DEFAULT"),
        (["INSTANCE_ADMIN"], "DEFAULT"),
        (["INSTANCE_ADMIN", "EXPLOIT"], "EXPLOIT"),
        ("INSTANCE_ADMIN", "DEFAULT"),
        (["admin", "Admin", " ADMIN"], "DEFAULT"),
    ],
)
def test_the_role_is_the_highest_that_is_known(shown: object, role: str) -> None:
    assert mapping(default_role="DEFAULT").principal(claims(role=shown)).role == role


@pytest.mark.parametrize(
    ("shown", "role"),
    [
        ("x-EXPLOIT", "EXPLOIT"),
        ("EXPLOIT", "DEFAULT"),
        ("x-", "DEFAULT"),
        ("x-x-EXPLOIT", "x-EXPLOIT"),
        (["x-CURATOR", "INSTANCE_ADMIN", "ADMIN"], "CURATOR"),
        (["x-CURATOR", "x-EXPLOIT"], "EXPLOIT"),
        (["X-EXPLOIT"], "DEFAULT"),
    ],
)
def test_with_a_prefix_only_roles_that_have_it_count(shown: object, role: str) -> None:
    assert mapping(default_role="DEFAULT", role_prefix="x-").principal(claims(role=shown)).role == role


def test_the_instance_administrator_comes_only_from_an_issuer_that_may_name_him() -> None:
    shown = claims(role="INSTANCE_ADMIN")
    assert "'role'" in refusal(mapping(), shown)
    assert mapping(instance_admin=True).principal(shown).role == "INSTANCE_ADMIN"


@pytest.mark.parametrize("role", [None, [], ["offline_access"]])
def test_without_a_role_and_a_default_the_token_is_refused(role: object) -> None:
    assert "'role'" in refusal(mapping(), claims(role=role))


@pytest.mark.parametrize("role", [1, {"EXPLOIT": 1}, [1], [["EXPLOIT"]], [""], "", "a\0", ["R"] * (MOST_GROUPS + 1)])
def test_a_role_that_is_no_text_is_refused_even_if_there_is_a_default(role: object) -> None:
    assert "'role'" in refusal(mapping(default_role="PUBLIC"), claims(role=role))


@pytest.mark.parametrize("value", [False, None, 0, "false", "no", [], {}])
def test_an_address_that_the_provider_did_not_verify_could_be_anybodys(value: object) -> None:
    shown = claims(email_verified=value)
    assert "not verified" in refusal(mapping(), shown)
    assert mapping(unverified_email=True).principal(shown).email == "scientist@example.org"


@pytest.mark.parametrize("changes", [{}, {"email_verified": True}, {"email_verified": "true"}])
def test_an_address_that_is_verified_or_of_which_nothing_is_said_is_good(changes: dict[str, Any]) -> None:
    assert mapping().principal(claims(**changes)).email == "scientist@example.org"


@pytest.mark.parametrize("claim", ["tenant", "sub", "email"])
@pytest.mark.parametrize("value", [None, "", 1, True, ["a"], {"a": 1}, "a\0", "\ud800", "x" * (LONGEST_CLAIM + 1)])
def test_a_claim_that_is_no_plain_text_is_refused_without_being_quoted(claim: str, value: object) -> None:
    message = refusal(mapping(claims={claim: "mapped.name"}), claims(mapped={"name": value}))
    assert message == "the token's claim 'mapped.name' is missing or is no plain text"


@pytest.mark.parametrize("groups", ["science", {"science": 1}, [1], [["science"]], [""], 1, True])
def test_mapped_groups_that_are_no_list_of_names_are_refused(groups: object) -> None:
    assert "'teams'" in refusal(mapping(claims={"groups": "teams"}), claims(teams=groups))


def test_mapped_groups_may_be_missing() -> None:
    assert mapping(claims={"groups": "teams"}).principal(claims()).groups == ()
    assert mapping(claims={"groups": "teams"}).principal(claims(teams=None)).groups == ()


class TestTimes:
    @pytest.mark.parametrize(
        ("changes", "good"),
        [
            ({"exp": 991}, True),
            ({"exp": 990}, False),
            ({"exp": 990.5}, True),
            ({"exp": 1100, "nbf": 1010}, True),
            ({"exp": 1100, "nbf": 1010.5}, False),
            ({"exp": 1100, "iat": 1010}, True),
            ({"exp": 1100, "iat": 1011}, False),
            ({"exp": 1100, "nbf": 0, "iat": 0}, True),
            ({"exp": 253_402_300_799}, True),
            ({"exp": 253_402_300_800}, False),
        ],
    )
    def test_clocks_may_differ_by_the_leeway_and_not_by_more(self, changes: dict[str, Any], good: bool) -> None:
        if good:
            assert check_times(changes, 1000, 10) == changes["exp"]
        else:
            with pytest.raises(ClaimError):
                check_times(changes, 1000, 10)

    def test_the_second_of_expiry_is_over(self) -> None:
        with pytest.raises(ClaimError, match="expired"):
            check_times({"exp": 1000}, 1000, 0)


def test_where_tokens_are_for_nobody_one_that_is_for_somebody_is_refused() -> None:
    check_audience({}, False)
    for shown in ("them", ["them"], "", [], None, False):
        with pytest.raises(ClaimError, match="by or for somebody else"):
            check_audience({"aud": shown}, False)


@pytest.mark.parametrize("shown", ["us", ["us"], ["them", "us"]])
def test_a_token_for_us_is_good(shown: object) -> None:
    check_audience({"aud": shown}, "us")


@pytest.mark.parametrize(
    "shown", ["", "u", "us2", "US", " us", "us them", [], ["them"], ["us", 1], [["us"]], {"us": 1}, None, 1]
)
def test_a_token_for_others_is_not(shown: object) -> None:
    with pytest.raises(ClaimError, match="by or for somebody else"):
        check_audience({"aud": shown}, "us")

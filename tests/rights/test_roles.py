"""REGARDS' hierarchy of roles, and a tenant's own."""

from __future__ import annotations

import itertools

import pytest

from gateway import db
from gateway.identity.principal import anonymous
from gateway.rights.custom_roles import holds
from gateway.rights.roles import HIERARCHY, is_at_least
from tests.harness import RunningGateway, principal


def test_each_role_may_what_those_before_it_may() -> None:
    for (low, role), (high, least) in itertools.product(enumerate(HIERARCHY), repeat=2):
        assert is_at_least(role, least) == (low >= high), (role, least)


@pytest.mark.parametrize("parent", HIERARCHY[:4])
def test_a_role_of_the_tenant_may_what_its_parent_may(parent: str) -> None:
    for least in HIERARCHY:
        assert is_at_least("curator", least, parent) == is_at_least(parent, least)


@pytest.mark.parametrize("role", ["curator", "admin", " ADMIN", "ADMIN\0", ""])
@pytest.mark.parametrize("parent", [None, "curator", "admin"])
def test_a_role_that_nobody_knows_may_what_everyone_may(role: str, parent: str | None) -> None:
    assert [least for least in HIERARCHY if is_at_least(role, least, parent)] == ["PUBLIC"]


def test_a_parent_says_nothing_of_a_role_of_regards() -> None:
    assert not is_at_least("REGISTERED_USER", "EXPLOIT", "ADMIN")


async def test_parents_are_those_of_the_callers_own_tenant(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    await made.connection.execute("INSERT INTO roles VALUES ($1, 'curator', 'EXPLOIT')", await made.tenant())
    await made.connection.execute("INSERT INTO roles VALUES ($1, 'curator', 'ADMIN')", await made.tenant("cnes"))
    async with db.connect(gateway.config.database, ()) as database:
        for who, least, expected in (
            (principal("x", role="curator"), "EXPLOIT", True),
            (principal("x", role="curator"), "ADMIN", False),
            (principal("x", role="curator", tenant="cnes"), "ADMIN", True),
            (principal("x", role="curator", tenant="cnes"), "PROJECT_ADMIN", False),
            (principal("x", role="curator", tenant="nowhere"), "REGISTERED_USER", False),
            (principal("x", role="EXPLOIT"), "EXPLOIT", True),
            (anonymous("esa"), "REGISTERED_USER", False),
        ):
            assert await holds(database, who, least) is expected, who


async def test_a_role_whose_parent_is_admin_is_above_rights_and_others_are_not(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entry = await made.file(b"data", collection="nobody")
    for name, parent in (("curator", "ADMIN"), ("operator", "EXPLOIT")):
        await made.connection.execute("INSERT INTO roles VALUES ($1, $2, $3)", await made.tenant(), name, parent)
    for role, status in (("curator", 200), ("operator", 403), ("unheard of", 403), ("ADMIN", 200), ("EXPLOIT", 403)):
        assert (await gateway.get(entry.stac, principal("x", role=role)))[0].status == status, role
    assert (await gateway.get(entry.stac, principal("x", role="curator", tenant="cnes")))[0].status == 404

"""The predicate against the rules: random worlds in PostgreSQL, and all questions about each in one batch."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Self, cast

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.catalog.statements import LOCATE_BY_ASSET, LOCATE_BY_CHECKSUM
from gateway.db import Database
from gateway.identity.principal import Principal, anonymous
from gateway.rights.access import access
from gateway.rights.policies import Policies, Verdict
from gateway.rights.policy import Policy, PolicyError, Question
from gateway.rights.predicate import caller_columns
from gateway.rights.properties import Properties
from tests.rights.model import Group, Product, Right, World

TENANTS = ("esa", "cnes")
DATASETS = ("d1", "d2")
NAMES = ("a", "b", "c")
EMAILS = ("x@example.org", "y@example.org")
COLOURS = ("red", "blue")
LEVELS = ("ACCEPTED", "ACCEPTED_WITH_WARNINGS", "REJECTED")
METADATA = ("NO_ACCESS", "RESTRICTED_ACCESS", "CUSTOM_ACCESS", "FULL_ACCESS")
FILES = ("NO_ACCESS", "INHERITED_ACCESS", "CUSTOM_ACCESS")
ROLES = (*["REGISTERED_USER"] * 6, "EXPLOIT", "ADMIN", "PROJECT_ADMIN", "INSTANCE_ADMIN", "curator", "guest", "nobody")

SOME = st.sampled_from
scores = SOME([None, 0.0, 4.5, 5.0, 10.0])
bounds = SOME([None, None, 4.5, 5.0])
levels = SOME([None, None, None, *(LEVELS[:count] for count in (1, 2)), LEVELS[1:]])
policies = SOME([None, *COLOURS, *COLOURS, "silent", "unknown"])

groups = st.tuples(
    *(
        st.builds(Group, st.just(tenant), st.just(name), SOME([False, False, True]), st.frozensets(SOME(EMAILS)))
        for tenant in TENANTS
        for name in NAMES
    )
)
products = st.tuples(
    *(
        st.builds(
            Product, st.just(tenant), st.just(dataset), st.just(name), scores, SOME([None, *LEVELS]), SOME(COLOURS)
        )
        for tenant in TENANTS
        for dataset in DATASETS
        for name in ("p1", "p2")
    )
)
rights = st.lists(
    st.builds(
        Right,
        SOME(TENANTS),
        SOME(DATASETS),
        st.tuples(SOME(TENANTS), SOME(NAMES)),
        SOME(METADATA),
        SOME(FILES),
        bounds,
        bounds,
        levels,
        policies,
    ),
    unique_by=lambda right: (right.tenant, right.dataset, right.group),
    min_size=4,
    max_size=16,
)
roles = st.dictionaries(
    st.tuples(SOME(TENANTS), SOME(["curator", "guest"])),
    SOME(["PUBLIC", "REGISTERED_USER", "EXPLOIT", "ADMIN"]),
)
callers = st.lists(
    st.builds(anonymous, SOME(TENANTS))
    | st.builds(
        Principal,
        SOME(TENANTS),
        st.just("login"),
        SOME([*EMAILS, "z@example.org"]),
        SOME(ROLES),
        st.lists(SOME([*NAMES, "unheard of"]), max_size=2).map(tuple),
    ),
    min_size=3,
    max_size=6,
)


class Silent:
    """A policy that never decides."""

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, object]) -> Self:
        return cls()

    async def decide(self, questions: Sequence[Question]) -> list[bool]:
        raise PolicyError("I do not know")

    async def close(self) -> None:
        pass


POLICIES = Policies({"properties": (cast("Policy", Properties()), 5), "silent": (cast("Policy", Silent()), 5)})


class OneConnection:
    """Runs what a `Database` would, on a connection in a transaction."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self.fetch = connection.fetch


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as running:
        yield running


@pytest.fixture
def connection(database: str, runner: asyncio.Runner) -> Iterator[asyncpg.Connection[Any]]:
    async def connect() -> asyncpg.Connection[Any]:
        opened = await asyncpg.connect(database)
        await opened.execute("SET plan_cache_mode = force_generic_plan")
        await opened.execute("SET synchronous_commit = off")
        return opened

    opened = runner.run(connect())
    yield opened
    runner.run(opened.close())


@contextlib.asynccontextmanager
async def filled(connection: asyncpg.Connection[Any], world: World) -> AsyncIterator[None]:
    """``world`` in the tables, until the end of the block."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.executemany("INSERT INTO tenants (name) VALUES ($1)", [(name,) for name in TENANTS])
        await connection.execute(
            "INSERT INTO datasets (tenant_id, collection_id, urn, body) "
            "SELECT tenant_id, d, 'urn-' || name || '-' || d, '{}' FROM tenants, unnest($1::text[]) d",
            DATASETS,
        )
        of_tenant = "(SELECT tenant_id FROM tenants WHERE name = $1)"
        await connection.executemany(
            f"INSERT INTO roles VALUES ({of_tenant}, $2, $3)", [(*key, parent) for key, parent in world.roles.items()]
        )
        await connection.executemany(
            f"INSERT INTO groups (tenant_id, name, is_public) VALUES ({of_tenant}, $2, $3)",
            [(group.tenant, group.name, group.public) for group in world.groups],
        )
        of_group = f"(SELECT group_id FROM groups WHERE tenant_id = {of_tenant} AND name = $2)"
        await connection.executemany(
            f"INSERT INTO group_members (group_id, email) VALUES ({of_group}, $3)",
            [(group.tenant, group.name, email) for group in world.groups for email in group.members],
        )
        await connection.executemany(
            "INSERT INTO products (tenant_id, dataset_id, urn, provider_id, properties, body, quality_score, "
            "quality_level) SELECT tenant_id, dataset_id, $3, $4, $5::jsonb, '{}', $6, $7 FROM datasets "
            f"WHERE tenant_id = {of_tenant} AND collection_id = $2",
            [
                (it.tenant, it.dataset, it.urn, it.name, json.dumps({"colour": it.colour}), it.score, it.level)
                for it in world.products
            ],
        )
        await connection.executemany(
            "INSERT INTO access_rights SELECT d.dataset_id, g.group_id, $5, $6, $7, $8, $9, $10, $11::jsonb "
            f"FROM datasets d, groups g WHERE d.tenant_id = {of_tenant} AND d.collection_id = $2 "
            "AND g.tenant_id = (SELECT tenant_id FROM tenants WHERE name = $3) AND g.name = $4",
            [
                (it.tenant, it.dataset, *it.group, it.metadata, it.files, it.least, it.most, it.levels, *policy_of(it))
                for it in world.rights
            ],
        )
        yield
    finally:
        await transaction.rollback()


def policy_of(right: Right) -> tuple[str | None, str | None]:
    if right.policy not in COLOURS:
        return right.policy, None
    return "properties", json.dumps({"all": [{"property": "colour", "equals": right.policy}]})


worlds = st.builds(World, groups, roles, products, rights)


@pytest.mark.timeout(300)
@settings(
    max_examples=2000 if os.environ.get("GATEWAY_TEST_FULL") else 150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
)
@given(worlds, callers)
def test_the_predicate_says_what_the_rules_say(
    runner: asyncio.Runner, connection: asyncpg.Connection[Any], world: World, who: list[Principal]
) -> None:
    async def run() -> None:
        async with filled(connection, world):
            await check_downloads(connection, world, who)
            await check_questions_of_access(connection, world, who)

    runner.run(run())


async def check_downloads(connection: asyncpg.Connection[Any], world: World, who: list[Principal]) -> None:
    """Both look-ups of downloads, each with every caller and product in one batch."""
    asked = [(one, product) for one in who for product in world.products]
    expected = [world.verdict(one, product) for one, product in asked]
    keys: dict[str, list[tuple[str, ...]]] = {
        LOCATE_BY_CHECKSUM: [(product.urn, "0") for _, product in asked],
        LOCATE_BY_ASSET: [(product.dataset, product.name, "data") for _, product in asked],
    }
    for statement, of_question in keys.items():
        questions = [(*caller_columns(one), *key) for (one, _), key in zip(asked, of_question, strict=True)]
        rows = {
            row["number"] - 1: row
            for row in await connection.fetch(statement, *zip(*questions, strict=True), ["RAWDATA"])
        }
        for number, (one, product) in enumerate(asked):
            row = rows.get(number)
            if row is not None and row["urn"] != product.urn:
                # Another tenant's product of the same name, which is the caller's own.
                assert statement is LOCATE_BY_ASSET
                assert one.tenant != product.tenant
                continue
            found = None if row is None else (await POLICIES.judge(one, [row]))[0]
            assert found == expected[number], (one, product)
            if row is not None:
                assert row["visible_to_all"] == world.is_visible_to_all(product)


async def check_questions_of_access(connection: asyncpg.Connection[Any], world: World, who: list[Principal]) -> None:
    database = cast("Database", OneConnection(connection))
    products_of = {product.urn: product for product in world.products}
    datasets = {f"urn-{tenant}-{dataset}": (tenant, dataset) for tenant in TENANTS for dataset in DATASETS}
    for one in who:
        found = await access(database, POLICIES, one, [*products_of, *datasets, "unheard of"])
        expected = {urn: world.verdict(one, product) for urn, product in products_of.items()}
        for urn, (tenant, dataset) in datasets.items():
            if tenant == one.tenant:
                expected[urn] = Verdict(*[world.sees_dataset(one, dataset)] * 2)
        assert found == {urn: verdict for urn, verdict in expected.items() if verdict is not None}

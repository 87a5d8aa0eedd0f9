"""What it costs to decide who may download what: identity, rights and licence, in a large catalogue.

``python -m benchmarks.decisions``: one process decides about random files of a catalogue with many files, datasets and
groups, one at a time and 64 at a time. Sides, in turn within each round:

- gateway: the token is verified (or remembered), and `Catalog.locate` asks PostgreSQL, together with others;
- one by one: the same token is verified by pyjwt each time, and the very same statement is run for it alone, on a
  connection of asyncpg's pool: the libraries used the ordinary way.

The client has a core of its own, PostgreSQL another one. The user is in some of the groups by his token, in others by
the database, and has accepted the licence that every dataset has. At the end it says which large tables were read from
end to end: none should be.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import click
import jwt
from multidict import CIMultiDict, CIMultiDictProxy, MultiDict

from benchmarks.harness import conditions, ending_in_order
from benchmarks.in_process import Comparison, NotDoneError, Side, nothing
from benchmarks.options import numbers
from benchmarks.processes import choose_cores, on_core
from gateway.catalog.locate import catalog, decide
from gateway.catalog.model import ByChecksum
from gateway.catalog.statements import LOCATE_BY_CHECKSUM, WARM_UP
from gateway.config import Database, Identity, Quotas, Rights
from gateway.db import apply_schema, connect
from gateway.embedded import Services, run_services
from gateway.errors import GatewayError
from gateway.identity.jwt import open_tokens, sign
from gateway.identity.networks import Networks
from gateway.identity.principal import Principal
from gateway.identity.shown import Shown
from gateway.rights.policies import Verdict, open_policies
from gateway.rights.predicate import caller_columns

TENANT, EMAIL = "mission", "scientist@example.org"
SECRET = "k" * 64
GROUPS_OF_DATASET = 20
"""Groups that have a right to each dataset."""

_CATALOGUE = """
INSERT INTO tenants (name) VALUES ('mission');
INSERT INTO licences (tenant_id, name, url) SELECT tenant_id, 'terms', 'https://example.org/terms' FROM tenants;
INSERT INTO groups (tenant_id, name) SELECT tenant_id, 'group-' || n FROM tenants, generate_series(1, {groups}) n;
INSERT INTO datasets (tenant_id, collection_id, urn, body, licence_id)
SELECT t.tenant_id, 'collection-' || n, 'URN:AIP:DATASET:mission:' || n || ':V1', '{{}}', l.licence_id
FROM tenants t JOIN licences l USING (tenant_id), generate_series(1, {datasets}) n;
INSERT INTO access_rights (dataset_id, group_id, metadata_level, file_level)
SELECT d.dataset_id, 1 + (d.dataset_id * 7919 + n * 104729) % {groups}, 'FULL_ACCESS', 'INHERITED_ACCESS'
FROM datasets d, generate_series(1, {of_dataset}) n ON CONFLICT DO NOTHING;
INSERT INTO products (tenant_id, dataset_id, urn, provider_id, properties, body)
SELECT t.tenant_id, 1 + n % {datasets}, 'URN:FEATURE:DATA:mission:' || n || ':V1', 'item-' || n, '{{}}', '{{}}'
FROM tenants t, generate_series(1, {files}) n;
INSERT INTO files (product_id, asset_key, data_type, checksum, checksum_algorithm, size, mime_type, file_name, body)
SELECT product_id, 'data', 'RAWDATA', encode(sha256(urn::bytea), 'hex'), 'SHA-256', 1000000, 'image/tiff', 'file.tif',
       '{{}}'
FROM products;
INSERT INTO copies (file_id, storage, location, size, version)
SELECT file_id, 'disk', 'a/' || file_id, 1000000, 'v' FROM files;
INSERT INTO group_members (group_id, email)
SELECT group_id, 'scientist@example.org' FROM groups WHERE group_id <= {by_database};
INSERT INTO licence_acceptances (licence_id, email, version)
SELECT licence_id, 'scientist@example.org', 1 FROM licences;
INSERT INTO quota_limits (tenant_id, subject, metric, period, value)
SELECT tenant_id, 'tenant', 'downloads', 'day', 1000000000 FROM tenants;
"""
_PICKED = """
SELECT urn, encode(sha256(urn::bytea), 'hex') AS checksum FROM products WHERE product_id = ANY ($1::bigint[])"""
_NAMES = "SELECT name FROM groups WHERE group_id > $1 ORDER BY group_id LIMIT $1"
_SCANS = "SELECT relname, seq_scan FROM pg_stat_user_tables WHERE n_live_tup > 1000"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--files", default=1_000_000, show_default=True, type=click.IntRange(100, 10**8))
@click.option("--datasets", default=10_000, show_default=True, type=click.IntRange(1, 10**6))
@click.option("--groups", default=1000, show_default=True, type=click.IntRange(2, 10**5))
@click.option("--memberships", default=200, show_default=True, type=click.IntRange(2, 1000), help="Of the user.")
@click.option("--decisions", default=5000, show_default=True, type=click.IntRange(100, 10**6), help="In each round.")
@click.option("--rounds", default=9, show_default=True, type=click.IntRange(1, 1000))
@click.option("--at-a-time", default="1,64", show_default=True, callback=numbers(1, 1000), help="Decisions.")
def main(  # noqa: PLR0917 - options
    files: int, datasets: int, groups: int, memberships: int, decisions: int, rounds: int, at_a_time: list[int]
) -> None:
    """Compare what a decision takes, and print medians, spreads and ratios."""
    cores = choose_cores()
    with ending_in_order():
        with on_core(cores.load):
            services = run_services()
            running = services.__enter__()
        try:
            with on_core(cores.server):
                pinned = f"client on core {cores.server}, PostgreSQL on core {cores.load}"
                click.echo(conditions(pinned, "loopback"))
                asyncio.run(fill(running, files, datasets, groups, memberships))
                click.echo(
                    f"{files:,} files in {datasets:,} datasets; {groups:,} groups, of which {GROUPS_OF_DATASET} have a "
                    f"right to each dataset, and the user is in {memberships}"
                )
                asyncio.run(compare(running, files, decisions, rounds, at_a_time))
        finally:
            services.__exit__(None, None, None)


async def fill(services: Services, files: int, datasets: int, groups: int, memberships: int) -> None:
    """Make the catalogue."""
    connection = await asyncpg.connect(services.postgres_dsn)
    await apply_schema(connection)
    text = _CATALOGUE.format(
        files=files, datasets=datasets, groups=groups, by_database=memberships // 2, of_dataset=GROUPS_OF_DATASET
    )
    await connection.execute(text)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


async def compare(services: Services, files: int, decisions: int, rounds: int, at_a_time: Sequence[int]) -> None:
    """Run the sides in turn."""
    connection = await asyncpg.connect(services.postgres_dsn)
    memberships = await connection.fetchval("SELECT count(*) FROM group_members")
    names = await connection.fetch(_NAMES, memberships)
    who = Principal(TENANT, "scientist", EMAIL, "REGISTERED_USER", tuple(row["name"] for row in names))
    chance = random.Random(1)
    picked = [chance.randrange(1, files + 1) for _ in range(decisions)]
    urns = await connection.fetch(_PICKED, picked)
    addresses = [ByChecksum(row["urn"], row["checksum"]) for row in urns]
    click.echo(f"the user may have {await _allowed(services, who, addresses):.1%} of the files that are asked for")
    before = await _scans(connection)
    async with gateway(services, who, addresses) as ours, one_by_one(services, who, addresses) as theirs:
        await Comparison("decisions", "took", "PostgreSQL").run([ours, theirs], decisions, rounds, at_a_time)
    await asyncio.sleep(1)  # statistics are told when a connection is idle, or ends
    after = await _scans(connection)
    await connection.close()
    read = sorted(name for name in after if after[name] != before[name])
    click.echo(f"\nlarge tables that were read from end to end: {', '.join(read) or 'none'}")


@contextlib.asynccontextmanager
async def gateway(services: Services, who: Principal, addresses: Sequence[ByChecksum]) -> AsyncIterator[Side]:
    """As a request is decided."""
    settings = Database.model_validate({"dsn": services.postgres_dsn})
    identity = Identity.model_validate({"jwt": [{"algorithms": ["HS512"], "secret": SECRET}]})
    headers = CIMultiDictProxy(CIMultiDict({"Authorization": f"Bearer {_token(who)}"}))
    shown = Shown(headers, MultiDict[str](), "192.0.2.7")
    async with (
        connect(settings, WARM_UP) as database,
        open_policies([]) as policies,
        catalog(database, Quotas().metered_data_types, Rights(), policies) as files,
        open_tokens(identity, Networks(32, 64)) as tokens,
    ):

        async def decision(number: int) -> None:
            token = tokens.find(shown)
            assert token is not None
            principal = await tokens.identify(token, shown)
            with contextlib.suppress(GatewayError):
                await files.locate(addresses[number % len(addresses)], principal)

        yield Side("gateway", decision, nothing)


@contextlib.asynccontextmanager
async def one_by_one(services: Services, who: Principal, addresses: Sequence[ByChecksum]) -> AsyncIterator[Side]:
    """As anybody would write it."""
    token, metered, settings = _token(who), Quotas().metered_data_types, Rights()
    async with asyncpg.create_pool(services.postgres_dsn, min_size=8, max_size=8) as pool:

        async def decision(number: int) -> None:
            claims = jwt.decode(token, SECRET, algorithms=["HS512"])
            principal = Principal(
                claims["tenant"], claims["sub"], claims["email"], claims["role"], tuple(claims["groups"])
            )
            address = addresses[number % len(addresses)]
            columns = ([value] for value in (*caller_columns(principal), address.product, address.checksum))
            async with pool.acquire() as connection:
                row = await connection.fetchrow(LOCATE_BY_CHECKSUM, *columns, metered)
            assert row is not None
            with contextlib.suppress(GatewayError):
                decide(row, Verdict(row["visible"], row["downloadable"]), address, principal, settings)

        yield Side("one by one", decision, nothing)


async def _scans(connection: asyncpg.Connection[Any]) -> dict[str, int]:
    """How often each large table was read from end to end."""
    return {row["relname"]: row["seq_scan"] for row in await connection.fetch(_SCANS)}


async def _allowed(services: Services, who: Principal, addresses: Sequence[ByChecksum]) -> float:
    """The part of the files that the gateway lets the user have."""
    settings, found = Database.model_validate({"dsn": services.postgres_dsn}), 0
    async with (
        connect(settings, WARM_UP) as database,
        open_policies([]) as policies,
        catalog(database, Quotas().metered_data_types, Rights(), policies) as files,
    ):
        for address in addresses[:1000]:
            with contextlib.suppress(GatewayError):
                found += (await files.locate(address, who)).is_metered
    if found == 0:
        raise NotDoneError("the user may have nothing")
    return found / min(len(addresses), 1000)


def _token(who: Principal) -> str:
    now = datetime.datetime.now(datetime.UTC)
    return sign(SECRET, "HS512", who, now=now, lifetime=datetime.timedelta(hours=1))


if __name__ == "__main__":
    main()

"""Wiring and life cycle: from settings to an application that serves."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import AsyncIterator, Callable

import aiohttp.http_parser
import aiohttp.http_writer
from aiohttp import web

import gateway.db
from gateway.api import (
    access,
    admin_routes,
    availability,
    basket,
    cache,
    companion,
    keys_admin,
    licences,
    link_routes,
    login,
    openapi,
    ops,
    order_archive,
    order_events,
    order_files,
    order_metalink,
    orders,
    orders_admin,
    quota_rules,
    regards_downloads,
    regards_quota,
    regards_search,
    restores,
    stac_batch,
    stac_catalogue,
    stac_downloads,
    stac_transactions,
    usage,
)
from gateway.api.bodies import MOST_BYTES
from gateway.api.keys import DATABASE, DOWNLOADS, HEALTH, LOGINS, TRANSACTIONS
from gateway.api.stac_catalogue import CATALOGUE, Catalogue, catalogue, showing
from gateway.catalog.locate import catalog
from gateway.catalog.statements import WARM_UP
from gateway.catalog.transactions.transactions import Transactions, opened_transactions
from gateway.companion.opening import following
from gateway.companion.passing import PassingOn
from gateway.config import Config
from gateway.db import Database
from gateway.delivery.pace import Pace
from gateway.downloads import Downloads
from gateway.errors import ConfigurationError, Family
from gateway.families import FAMILIES
from gateway.following import Following
from gateway.http.cors import CrossOrigin
from gateway.identity.opening import Logins, OpenIdentities, identities
from gateway.links import API
from gateway.locations import storage_locations
from gateway.notifications import listening
from gateway.ops import cross_origin
from gateway.ops.audit import audited, auditing
from gateway.ops.error_page import Site
from gateway.ops.health import Health
from gateway.ops.request_context import PROXIES, SITE, mark_answer, request_context
from gateway.orders.archives import Archives
from gateway.orders.service import Ordering, open_orders
from gateway.orders.sums import summing
from gateway.quotas.upkeep import open_quotas
from gateway.rights.policies import open_policies
from gateway.sources import Resting
from gateway.stac.roots import places, roots
from gateway.stac.searching import searching
from gateway.staging.model import TOPIC as RESTORES
from gateway.staging.opening import open_staging
from gateway.staging.pins import reading_from
from gateway.staging.requests import open_requests
from gateway.staging.waiting import Waiting
from gateway.verification import verifying

_REGARDS = (
    "availability",
    "cache",
    "downloads",
    "engines",
    "entities",
    "files",
    "license",
    "order",
    "orders",
    "quota",
    "quotas",
    "restore",
    "restores",
    "settings",
    "user",
)
"""What REGARDS' paths begin with."""


def create_app(config: Config) -> web.Application:
    """Make the application. What it holds open is opened when it starts and closed when it ends.

    Raises:
        ConfigurationError: a setting cannot be used. Starting the application raises it, too, when the database,
            Redis or a storage cannot be reached.
    """
    check_extensions()
    app = web.Application(middlewares=[audited, request_context], client_max_size=MOST_BYTES)
    app.on_response_prepare.append(mark_answer)
    if config.api.cors_origins:
        cross_origin.set_up(app, CrossOrigin(frozenset(config.api.cors_origins)))
    app[PROXIES] = tuple(config.server.trusted_proxies)
    app[API] = config.api
    app[SITE] = Site(config.api.public_url, has_login=config.identity.login is not None)
    regards, stac = config.api.regards_prefix, config.api.stac_prefix
    app[FAMILIES] = {
        **{f"{regards}/{name}": Family.REGARDS for name in _REGARDS},
        **dict.fromkeys(places(stac), Family.STAC),
    }
    app.add_routes(regards_downloads.routes(regards))
    app.add_routes(quota_rules.routes(regards))
    app.add_routes(regards_quota.routes(regards))
    app.add_routes(access.routes(regards))
    regards_search.set_up(app, config)
    cache.set_up(app, config)
    app.add_routes(licences.routes(regards))
    app.add_routes(availability.routes(regards))
    app.add_routes(restores.routes(regards))
    for family in (basket, order_metalink, order_archive, orders, order_events, orders_admin, order_files):
        app.add_routes(family.routes(regards))
    for root in roots(stac):
        if root != stac or config.companion is None:
            app.add_routes(stac_catalogue.routes(root))
            app.add_routes(stac_transactions.routes(root))
        app.add_routes(stac_downloads.routes(root))
        app.add_routes(stac_batch.routes(root))
        app.add_routes(licences.stac_routes(root))
    app.add_routes(usage.routes())
    app.add_routes(login.routes())
    keys_admin.set_up(app, config)
    link_routes.set_up(app, config)
    app.add_routes(admin_routes.routes())
    app.add_routes(ops.routes())
    app.add_routes(openapi.routes(stac))
    if config.companion is not None:
        app.add_routes(companion.routes(stac))
    openapi.describe(app, config.api)
    app.on_shutdown.append(order_events.end_streams)
    app.on_shutdown.append(restores.end_streams)
    app.cleanup_ctx.append(auditing(config.database, config.audit))
    app.cleanup_ctx.append(_neighbours(config, identities(config)))
    return app


def _neighbours(config: Config, identity: OpenIdentities) -> Callable[[web.Application], AsyncIterator[None]]:
    async def opened(app: web.Application) -> AsyncIterator[None]:
        async with neighbours(config, identity) as found:
            app[DOWNLOADS], app[HEALTH], app[DATABASE] = found.downloads, found.health, found.database
            app[LOGINS], app[TRANSACTIONS] = found.logins, found.transactions
            app[CATALOGUE], app[orders.ORDERING] = found.catalogue, found.ordering
            app[order_archive.ARCHIVES] = found.archives
            app[restores.FOLLOWING] = found.following
            if found.passing_on is not None:
                app[companion.PASSING_ON] = found.passing_on
            yield

    return opened


@dataclasses.dataclass(frozen=True, slots=True)
class Neighbours:
    """What handlers ask."""

    downloads: Downloads
    health: Health
    database: Database
    logins: Logins | None
    catalogue: Catalogue
    transactions: Transactions
    passing_on: PassingOn | None
    ordering: Ordering
    archives: Archives
    following: Following
    """Who follows restores."""


@contextlib.asynccontextmanager
async def neighbours(config: Config, identity: OpenIdentities) -> AsyncIterator[Neighbours]:
    """Open what a download needs, in the order in which it must outlive the others.

    Raises:
        ConfigurationError: the database, Redis or a storage cannot be reached.
    """
    delivery = config.delivery
    async with (
        storage_locations(config.storage) as locations,
        gateway.db.connect(config.database, WARM_UP) as database,
        open_quotas(config.redis, config.quotas, database) as quotas,
        open_policies(config.policies) as policies,
        catalog(database, config.quotas.metered_data_types, config.rights, policies) as files,
        verifying(database, delivery.storage_timeout) as verifier,
        listening(config.database) as notifications,
        identity(database, notifications) as callers,
        searching(database, policies, config.rights) as search,
        catalogue(search, showing(locations, config.api.asset_href)) as products,
        opened_transactions(config.database, list(locations.values())) as transactions,
        following(config.companion, config.api, database, locations) as companionship,
        summing(config, database, verifier, locations) as sums,
        open_requests(database, config.staging) as requests,
        reading_from(database, config.staging.cache) as pins,
        open_staging(config, notifications, locations) as staging,
        open_orders(config, policies, notifications, staging.stager, sums) as ordering,
    ):
        downloads = Downloads(
            identity=callers.chain,
            catalog=files,
            locations=locations,
            quotas=quotas,
            pace=Pace(delivery.send_timeout, delivery.min_rate, delivery.min_rate_grace, delivery.storage_timeout),
            verifier=verifier,
            redirect_agents=tuple(delivery.redirect_agents),
            public_url=config.api.public_url,
            clock=lambda: datetime.datetime.now(datetime.UTC),
            resting=Resting(),
            pins=pins,
            waiting=Waiting(
                config.staging,
                database,
                requests,
                locations,
                config.api.public_url,
                config.api.regards_prefix,
            ),
            upstream=companionship.items,
        )
        checks = {"postgresql": database.ping, "redis": quotas.ping}
        followers = Following(RESTORES, config.orders.streams, config.orders.streams_per_user)
        notifications.subscribe(followers)
        health = Health(
            checks, alarms=lambda: {"broken_copies": verifier.broken + staging.broken}, notifications=notifications
        )
        yield Neighbours(
            downloads,
            health,
            database,
            callers.logins,
            products,
            transactions,
            companionship.passing_on,
            ordering,
            Archives(downloads, database, ordering.actions, folders=config.orders.product_folders),
            followers,
        )
        await downloads.close()


def check_extensions() -> None:
    """See that aiohttp parses and writes HTTP by its C extensions.

    Its parser in pure Python takes malformed messages that a proxy in front reads otherwise: request smuggling.

    Raises:
        ConfigurationError: they are missing or switched off.
    """
    parser, writer = aiohttp.http_parser, aiohttp.http_writer
    if parser.HttpRequestParser is parser.HttpRequestParserPy or (
        writer._serialize_headers is writer._py_serialize_headers
    ):
        raise ConfigurationError(
            "aiohttp runs without its C extensions, which is not safe behind a proxy: unset AIOHTTP_NO_EXTENSIONS, "
            "or install an aiohttp wheel for this platform"
        )

"""Everything that orders need, opened and closed."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
from collections.abc import AsyncIterator
from http import HTTPStatus

import gateway.db
from gateway.config import Config, Orders
from gateway.db import Database
from gateway.errors import GatewayError
from gateway.following import Following
from gateway.notices import spool
from gateway.notices.opening import sending_notices, subscriptions
from gateway.notifications import Notifications
from gateway.orders.actions import Actions
from gateway.orders.baskets import Baskets
from gateway.orders.counting import Counter
from gateway.orders.creation import Creator
from gateway.orders.model import Condition, NoStager, Numbering, Stager, Sums
from gateway.orders.tokens import OrderTokens
from gateway.orders.worker import working
from gateway.rights.policies import Policies
from gateway.search.limits import COMPOSED
from gateway.search.query import QueryError
from gateway.search.reading import parse
from gateway.search.sql import Parameters, condition

POOL_SIZE = 6
"""Connections for what takes longer than a look-up, of each process."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ordering:
    """What handlers ask."""

    settings: Orders
    creator: Creator
    actions: Actions
    basket: Baskets
    tokens: OrderTokens | None
    """None: there are none."""
    public_url: str | None
    prefix: str
    """Before ``/user/orders`` and ``/orders``."""
    following: Following


async def translate(query: str) -> Numbering:
    """As `Translator`: in REGARDS' language, as baskets compose it."""
    try:
        found = await asyncio.to_thread(parse, query, COMPOSED)
    except QueryError as error:
        raise GatewayError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error

    def numbered(first: int) -> Condition:
        parameters = Parameters(*[None] * (first - 1))
        text = condition(found, parameters)
        return Condition(text, tuple(parameters.values[first - 1 :]))

    return numbered


@contextlib.asynccontextmanager
async def work_database(config: Config) -> AsyncIterator[Database]:
    """The database, for what may take as long as a large order does.

    Raises:
        ConfigurationError: it cannot be reached.
    """
    settings = config.database.model_copy(update={"pool_size": POOL_SIZE, "timeout": config.orders.timeout})
    # Whatever changes an order over these connections leaves notices of it.
    async with gateway.db.connect(settings, ((spool.SUBSCRIBE, (subscriptions(config),)),)) as database:
        yield database


def offline_storages(config: Config) -> list[str]:
    """Names of the storages in which nothing is online for good."""
    return [one.name for one in config.storage if one.type != "ONLINE"]


def order_tokens(config: Config) -> OrderTokens | None:
    """What makes order tokens; None without a secret."""
    secret = config.orders.secret
    return OrderTokens(secret.get_secret_value().encode()) if secret is not None else None


@contextlib.asynccontextmanager
async def open_orders(
    config: Config,
    policies: Policies,
    notifications: Notifications,
    stager: Stager | None = None,
    sums: Sums | None = None,
) -> AsyncIterator[Ordering]:
    """Orders, and the workers inside this process.

    Raises:
        ConfigurationError: the database cannot be reached.
    """
    settings, tokens = config.orders, order_tokens(config)
    async with contextlib.AsyncExitStack() as stack:
        database = await stack.enter_async_context(work_database(config))
        if settings.workers:
            await stack.enter_async_context(sending_notices(config, database, notifications, tokens))
        await stack.enter_async_context(
            working(
                *(database, notifications, settings, stager or NoStager(), sums),
                workers=settings.workers,
                offline=offline_storages(config),
            )
        )
        creator = Creator(
            database, settings, config.rights, policies, translate, lambda: datetime.datetime.now(datetime.UTC)
        )
        counter = Counter(policies, config.rights.open_data_types, config.quotas.metered_data_types)
        following = Following("orders", settings.streams, settings.streams_per_user)
        notifications.subscribe(following)
        yield Ordering(
            settings,
            creator,
            Actions(database, settings, creator),
            Baskets(database, settings, counter, translate),
            tokens,
            config.api.public_url,
            config.api.regards_prefix,
            following,
        )

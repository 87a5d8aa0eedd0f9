"""Looks at all that a gateway stands on, and says what to change."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from gateway.config import Config
from gateway.doctor.cache import look_at_cache
from gateway.doctor.findings import Check
from gateway.doctor.identity import look_at_issuer, look_at_keys
from gateway.doctor.mail import look_at_mail
from gateway.doctor.postgresql import look_at_postgresql
from gateway.doctor.redis_server import look_at_redis
from gateway.doctor.signed_urls import Clients
from gateway.doctor.storages import look_at_storage
from gateway.rights.policies import policy_names

_SHARE_OF_A_REQUEST = 5
"""So many requests to a storage may each take an equal part of its time."""


def checks(config: Config, *, storages: Sequence[str], origin: str | None, seconds: float) -> list[Check]:
    """All that is to be looked at.

    Args:
        config: of the gateway.
        storages: names of those that are looked at; none for all.
        origin: of the pages whose scripts fetch files; None for that of ``api.public_url``.
        seconds: that a check may take.
    """
    clients = Clients(config.api.public_url, origin, seconds / _SHARE_OF_A_REQUEST)
    return [
        Check("database", functools.partial(look_at_postgresql, config.database, policy_names(config.policies))),
        Check("redis", functools.partial(look_at_redis, config.redis)),
        *([Check("identity.jwt", functools.partial(look_at_keys, config.identity))] if config.identity.jwt else []),
        *(
            Check(f"issuer {issuer.issuer}", functools.partial(look_at_issuer, issuer))
            for issuer in config.identity.issuers
        ),
        *([Check("mail", functools.partial(look_at_mail, config.mail))] if config.mail is not None else []),
        *(
            [Check(f"cache {config.staging.cache}", functools.partial(look_at_cache, config))]
            if config.staging.cache is not None and (not storages or config.staging.cache in storages)
            else []
        ),
        *(
            Check(f"storage {setting.name}", functools.partial(look_at_storage, setting, config, clients))
            for setting in config.storage
            if not storages or setting.name in storages
        ),
    ]

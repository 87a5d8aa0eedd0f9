"""Who downloads what within which limits: the same for everyone who takes part, from a few numbers."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

from gateway.catalog.model import File
from gateway.config import Database as DatabaseSettings
from gateway.config import Quotas as QuotaSettings
from gateway.config import Redis as RedisSettings
from gateway.delivery.transfer import Transfer
from gateway.identity.principal import Principal
from gateway.quotas.limits import Limit

MIB = 2**20
TENANTS = ("busy", "windows")
"""Most downloads are of the first; the second has rolling windows and rates, which cost more."""
BUSY = 0.85
"""Share of the first tenant."""
USERS = 24
"""Of each tenant."""
GROUPS = 4
CONTENTS = 400
CONCURRENT, GROUP_CONCURRENT, TENANT_CONCURRENT = 5, 24, 90
ROLLING_SECONDS, ROLLING_DOWNLOADS = 2, 60
RATE, BURST = 60, 10
"""Starts per second, and at once."""


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What the processes are told."""

    dsn: str
    redis_url: str
    directory: str
    """For what they log."""
    goal: int
    """Reservations that are to be granted or refused in all; it scales the limits of a lifetime."""
    tasks: int
    """Downloads that a process runs at a time."""
    lease_ttl: int = 3
    process_timeout: float = 1.5

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Scenario:
        return cls(**json.loads(text))

    @property
    def board(self) -> Path:
        return Path(self.directory) / "board"

    @property
    def database(self) -> DatabaseSettings:
        return DatabaseSettings.model_validate({"dsn": self.dsn, "timeout": 5})

    @property
    def redis(self) -> RedisSettings:
        return RedisSettings.model_validate({"url": self.redis_url, "timeout": 1})

    @property
    def quotas(self) -> QuotaSettings:
        return QuotaSettings(lease_ttl=self.lease_ttl, process_timeout=self.process_timeout)

    def limits(self, tenant: str, number: int) -> tuple[Limit, ...]:
        """Of a user, those of his group and tenant included."""
        share = self.goal * (BUSY if tenant == TENANTS[0] else 1 - BUSY) / USERS
        account, group = f"user:{email(number)}", f"group:{number % GROUPS}"
        limits = [
            Limit(account, "concurrent", "now", CONCURRENT),
            Limit(group, "concurrent", "now", GROUP_CONCURRENT),
            Limit("tenant", "concurrent", "now", TENANT_CONCURRENT),
        ]
        # A sixth of the users comes to the end of what he may have in all before the soak does.
        if number % 6 == 0:
            limits.append(Limit(account, "downloads", "total", max(int(share * 0.15), 1)))
        elif number % 6 == 1:
            limits.append(Limit(account, "bytes", "day", max(int(share * 0.5), 1) * MIB))
        elif tenant == TENANTS[1]:
            if number % 2:
                limits.append(Limit(account, "downloads", f"{ROLLING_SECONDS}s", ROLLING_DOWNLOADS))
            else:
                limits.append(Limit(account, "rate", "1s", RATE, BURST))
        return tuple(limits)


def email(number: int) -> str:
    return f"user-{number}@example.org"


@dataclasses.dataclass(frozen=True)
class Wish:
    """A download that somebody wants."""

    principal: Principal
    file: File
    transfer: Transfer
    whole: bool
    """Somebody else sends it."""
    part: float
    """How much of it the client takes."""
    seconds: float
    """How long he takes for it."""


class Wishes:
    """Random ones."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._chance = random.Random(seed)
        self._callers = {
            tenant: [
                (Principal(tenant, email(number), email(number), "REGISTERED_USER"), scenario.limits(tenant, number))
                for number in range(USERS)
            ]
            for tenant in TENANTS
        }
        self._files: dict[tuple[str, int, int], File] = {}

    def next(self) -> Wish:
        chance = self._chance
        tenant = TENANTS[chance.random() >= BUSY]
        number, content = chance.randrange(USERS), chance.randrange(CONTENTS)
        principal, limits = self._callers[tenant][number]
        key = tenant, number, content
        file = self._files.get(key)
        if file is None:
            file = self._files[key] = _file(content, limits)
        assert file.size is not None
        promised = file.size if chance.random() < 0.8 else file.size // 2
        part = (0.0, 1.0, chance.random())[chance.choice((0, 1, 1, 1, 1, 1, 1, 2, 2))]
        # Some take longer than a heartbeat, a few longer than a lease would live without.
        long = chance.random()
        seconds = 4.0 if long < 0.0005 else 1.5 if long < 0.002 else 0.0
        return Wish(principal, file, Transfer(promised), chance.random() < 0.15, part, seconds)


def _file(content: int, limits: tuple[Limit, ...]) -> File:
    # Most are small, a few need more than one slice of a lease.
    size = 200 * MIB if content % 200 == 0 else (content % 16 + 1) * MIB // 8
    return File(
        file_id=content,
        product="urn",
        data_type="RAWDATA",
        name="file",
        mime_type=None,
        size=size,
        checksum=f"{content:064x}",
        checksum_algorithm="SHA-256",
        reference=False,
        copies=(),
        visible_to_all=False,
        is_open=False,
        is_metered=True,
        limits=limits,
    )

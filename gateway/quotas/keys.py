"""Names of what quotas keep in Redis.

All keys of a tenant carry its name as hash tag, so that they share a slot of a Redis Cluster; and its epoch, so that a
new one begins with nothing.
"""

from __future__ import annotations

import dataclasses
import functools
from urllib.parse import quote, unquote


@dataclasses.dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one tenant in one epoch. What they hold is told in the scripts, ``lua/*.lua``."""

    tenant: str
    epoch: int

    @property
    def prefix(self) -> str:
        """What all of them begin with."""
        return _prefix(self.tenant, self.epoch)

    @property
    def state(self) -> str:
        """Hash: the state of the epoch."""
        return f"{self.prefix}state"

    @property
    def events(self) -> str:
        """Stream: what the ledger has not yet."""
        return f"{self.prefix}events"

    def lease(self, identifier: str) -> str:
        """Text: one reservation."""
        return f"{self.prefix}lease:{identifier}"

    def content(self, account: str, content: str) -> str:
        """Text: one caller's download of one content."""
        return _contents(self.prefix, account) + content

    def account(self, account: str) -> str:
        """Hash: the counters of one account."""
        return f"{self.prefix}account:{account}"

    def running(self, account: str) -> str:
        """Sorted set: the running leases of one account."""
        return f"{self.prefix}running:{account}"

    def of_accounts(self, accounts: tuple[str, ...]) -> tuple[str, ...]:
        """`account` and `running` of each, one after the other."""
        return _of_accounts(self.prefix, accounts)

    def account_of(self, key: str) -> str:
        """The account that a key of `account` is of."""
        return key.removeprefix(self.account(""))


def tenant_and_epoch(key: str) -> tuple[str, int]:
    """Whose key it is."""
    _, tenant, rest = key.split(":", 2)
    return unquote(tenant[1:-1]), int(rest.split(":", 1)[0])


@functools.lru_cache(maxsize=1024)
def _prefix(tenant: str, epoch: int) -> str:
    return f"gateway:{{{quote(tenant, safe='')}}}:{epoch}:"


@functools.lru_cache(maxsize=4096)
def _contents(prefix: str, account: str) -> str:
    return f"{prefix}content:{quote(account, safe='@')}:"


@functools.lru_cache(maxsize=4096)
def _of_accounts(prefix: str, accounts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{prefix}{kind}:{account}" for account in accounts for kind in ("account", "running"))

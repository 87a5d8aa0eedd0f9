"""Scripts run for a tenant: in its epoch, with what they appended kept in the journal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gateway.quotas.epochs import CountersClosedError, Epochs
from gateway.quotas.journal import Journal
from gateway.quotas.keys import Keys
from gateway.redis.scripts import NEIGHBOUR_ERRORS, Scripts
from gateway.redis.server import read_scripts

UNKNOWN_ERRORS = (*NEIGHBOUR_ERRORS, CountersClosedError)
"""What is raised when nobody knows what is charged."""

SCRIPTS = read_scripts("gateway.quotas")
"""The scripts, ``lua/NAME.lua``: each can be run twice with the same keys and arguments as if it were once."""

Answer = list[Any]
"""Of a script: its first member says what the others are."""


class Calls:
    """Runs scripts."""

    def __init__(self, scripts: Scripts, epochs: Epochs, journal: Journal) -> None:
        self._scripts = scripts
        self._epochs = epochs
        self._journal = journal

    async def run(
        self, name: str, tenant: str, keys_of: Callable[[Keys], Sequence[str]], arguments: Sequence[str | int]
    ) -> Answer:
        """What the script ``name`` answers.

        Raises:
            CountersClosedError: the counters of ``tenant`` cannot be used now.
            RedisError, OSError, TimeoutError: nobody knows whether it ran.
        """
        keys = self._epochs.keys(tenant)
        with self._epochs.calling(tenant):
            answer: Answer = await self._scripts.run(name, keys_of(keys), arguments)
            kind = answer[0]
            if kind == b"closed":
                self._epochs.doubt(keys)
                raise CountersClosedError(tenant)
            if kind == b"granted":
                if answer[4]:
                    self._journal.add(tenant, keys.epoch, int(answer[2]), answer[4].decode())
                self._confirm(keys, answer[3])
            elif kind == b"ended":
                for number in range(2, len(answer), 2):
                    self._journal.add(tenant, keys.epoch, int(answer[number]), answer[number + 1].decode())
                if len(answer) > 1:
                    self._confirm(keys, answer[1])
        return answer

    def _confirm(self, keys: Keys, position: bytes) -> None:
        self._journal.confirm(keys.tenant, keys.epoch, int(position))

"""Asking for restores: each file once, whoever asks and wherever; each user as much as he may wait for.

All who ask at the same time in a process share a transaction. Single flight over processes is a unique index: whoever
comes second joins. Restores are made in the order of their files, and those that are there are locked in the order of
their ids, behind them: so nobody waits for somebody who waits for him.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from http import HTTPStatus

import asyncpg

from gateway.batching import Batches, batching
from gateway.config.staging import Staging
from gateway.db import Connection, Database, is_of_server, no_answer
from gateway.errors import GatewayError, unavailable
from gateway.identity.principal import Principal
from gateway.sources import Nearline
from gateway.staging.estimates import estimating
from gateway.staging.model import Restore, RestoreState
from gateway.staging.states import ready_of

FAILED_SECONDS = 300
"""After which a restore that failed may be asked for again: neither tape nor robot is hammered."""
_BUDGET_SECONDS = 60
_TRIES = 3
"""Of joining a restore that ended in the very moment."""
_LANES = 2

User = tuple[str, str]
"""Tenant and e-mail address, which is empty for all anonymous callers together."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """Somebody wants a file restored."""

    tenant: str
    email: str
    """Empty: all anonymous callers together."""
    file_id: int
    copy_id: int
    """That is restored if nobody asked before."""
    storage: str
    location: str
    size: int | None
    hours: float
    """That it shall be readable, at least, once it is restored; from now on if it is already."""
    priority: int

    @property
    def user(self) -> User:
        """Who asks."""
        return self.tenant, self.email


def asking(principal: Principal, file_id: int, size: int | None, copy: Nearline, *, hours: float, priority: int) -> Ask:
    """What ``principal`` asks for; ``size`` is that of the file, in bytes."""
    found = copy.copy
    return Ask(
        principal.tenant,
        principal.email or "",
        file_id,
        found.copy_id,
        found.storage,
        found.location,
        size if size is not None else found.size,
        hours,
        priority,
    )


# The last restore of each file, whoever of $2 wished it for himself, and what estimates are made of.
_LOOK = f"""
WITH found AS MATERIALIZED (
    SELECT r.*, ARRAY(
        SELECT w.email FROM restore_wishes w
        WHERE w.restore_id = r.restore_id AND w.email = ANY ($2::text[]) AND w.order_file_id = 0
    ) AS wishers, r.state = 'RESTORED' AND r.expires_at > now() AND NOT EXISTS (
        SELECT FROM copies c WHERE c.file_id = r.file_id AND c.restored_until > now()
    ) AS is_void
    FROM unnest($1::bigint[]) AS wanted(file_id)
    CROSS JOIN LATERAL (
        SELECT * FROM restores r WHERE r.file_id = wanted.file_id ORDER BY r.restore_id DESC LIMIT 1
    ) r
), {estimating("found")}
SELECT found.*, typical.seconds AS typical, ahead.many AS ahead, now() AS now
FROM found
LEFT JOIN typical ON typical.storage = found.storage
LEFT JOIN ahead ON ahead.storage = found.storage AND ahead.priority = found.priority"""  # noqa: S608 - made of constants

# Who ingests a file anew takes away what was restored in place: the restore ends, and the next one may begin.
_END_VOID = """
UPDATE restores r
SET expires_at = least(r.expires_at, now()), wanted_until = NULL, due_at = now()
FROM (
    SELECT restore_id FROM restores WHERE restore_id = ANY ($1::bigint[]) ORDER BY restore_id FOR NO KEY UPDATE
) locked
WHERE r.restore_id = locked.restore_id AND r.state = 'RESTORED' AND NOT EXISTS (
    SELECT FROM copies c WHERE c.file_id = r.file_id AND c.restored_until > now()
)"""

_LOCK_USERS = "SELECT pg_advisory_xact_lock(key) FROM unnest($1::bigint[]) AS key"
_SPENT = """
SELECT u.tenant, u.email, count(*) AS files, coalesce(sum(r.size), 0)::bigint AS octets
FROM unnest($1::text[], $2::text[]) AS u(tenant, email)
JOIN tenants t ON t.name = u.tenant
JOIN restore_wishes w ON w.tenant_id = t.tenant_id AND w.email = u.email AND w.order_file_id = 0
JOIN restores r ON r.restore_id = w.restore_id AND r.state IN ('QUEUED', 'STAGING')
GROUP BY u.tenant, u.email"""
_BEGIN = """
INSERT INTO restores (tenant_id, file_id, copy_id, storage, location, size, hours, priority, due_at)
SELECT t.tenant_id, a.file_id, a.copy_id, a.storage, a.location, a.size, a.hours, a.priority, now()
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::float8[], $8::smallint[])
    AS a(tenant, file_id, copy_id, storage, location, size, hours, priority)
JOIN tenants t ON t.name = a.tenant
ORDER BY a.file_id
ON CONFLICT (file_id) WHERE state IN ('QUEUED', 'STAGING', 'RESTORED') DO NOTHING"""
_LOCK = """
SELECT r.restore_id, r.file_id, r.state <> 'RESTORED' OR r.expires_at > now() AS is_good
FROM restores r WHERE r.file_id = ANY ($1::bigint[]) AND r.state IN ('QUEUED', 'STAGING', 'RESTORED')
ORDER BY r.restore_id FOR NO KEY UPDATE"""
_RAISE = """
UPDATE restores r
SET hours = greatest(r.hours, a.hours), priority = least(r.priority, a.priority),
    wanted_until = CASE WHEN r.state = 'RESTORED'
                        THEN greatest(r.wanted_until, now() + make_interval(secs => a.hours * 3600))
                        ELSE r.wanted_until END,
    due_at = CASE WHEN r.state = 'RESTORED' THEN now() ELSE r.due_at END
FROM unnest($1::bigint[], $2::float8[], $3::smallint[]) AS a(restore_id, hours, priority)
WHERE r.restore_id = a.restore_id
  AND (r.hours < a.hours OR r.priority > a.priority OR (
      r.state = 'RESTORED'
      AND greatest(r.wanted_until, r.expires_at) < now() + make_interval(secs => a.hours * 3600)))"""
_WISH = """
INSERT INTO restore_wishes (restore_id, tenant_id, email)
SELECT a.restore_id, t.tenant_id, a.email
FROM unnest($1::bigint[], $2::text[], $3::text[]) AS a(restore_id, tenant, email) JOIN tenants t ON t.name = a.tenant
ORDER BY a.restore_id, a.email
ON CONFLICT DO NOTHING"""


class Requests:
    """Takes what users ask for. Made by `open_requests`."""

    def __init__(self, database: Database, settings: Staging, shared: Batches[Ask, Restore]) -> None:
        self._database = database
        self._settings = settings
        self._shared = shared

    async def demand(self, ask: Ask) -> Restore:
        """Have a file restored, or join whoever asked before.

        Asking again changes nothing, but that it may be wanted longer or sooner.

        Returns:
            The restore. RESTORED with an end that is past is one that is just ended: a later call begins anew.

        Raises:
            GatewayError: 429 he waits for enough; 403 it is more than anybody may wait for; 503 it failed a moment
                ago, or PostgreSQL does not answer.
        """
        try:
            return await self._shared.ask(ask)
        except TimeoutError as error:
            raise no_answer() from error

    async def demand_all(self, asks: Sequence[Ask]) -> list[Restore | GatewayError]:
        """As `demand` for each, with what it would raise; in one transaction.

        Raises:
            GatewayError: 503 PostgreSQL does not answer.
        """
        return await demand_all(self._database, self._settings, asks)


@contextlib.asynccontextmanager
async def open_requests(database: Database, settings: Staging) -> AsyncIterator[Requests]:
    """What takes requests for restores while the block runs."""

    async def ask_all(asks: Sequence[Ask]) -> Sequence[Restore | Exception]:
        return await demand_all(database, settings, asks)

    async with batching(ask_all, seconds=2 * database.timeout, lanes=_LANES, of_all=is_of_server) as shared:
        yield Requests(database, settings, shared)


async def demand_all(database: Database, settings: Staging, asks: Sequence[Ask]) -> list[Restore | GatewayError]:
    """See `Requests.demand_all`."""
    by_file = await _look(database, asks)
    if void := [known.row["restore_id"] for known in by_file.values() if known.row["is_void"]]:
        await database.fetch(_END_VOID, void)
        by_file = await _look(database, asks)
    found: dict[Ask, Restore | GatewayError] = {}
    for ask in asks:
        known = by_file.get(ask.file_id)
        answer = known.answers(ask, settings) if known is not None else None
        if answer is not None:
            found[ask] = answer
    if left := list(dict.fromkeys(ask for ask in asks if ask not in found)):
        async with database.transaction() as connection:
            found.update(await _taken(connection, settings, left))
    return [found[ask] for ask in asks]


@dataclasses.dataclass(frozen=True, slots=True)
class _Known:
    """The last restore of a file."""

    row: asyncpg.Record

    @property
    def goes_on(self) -> bool:
        return self.row["ended_at"] is None

    @property
    def is_ending(self) -> bool:
        """It could be read until now, and the next one has to wait until that is put in order."""
        return bool(self.row["state"] == "RESTORED" and self.row["expires_at"] <= self.row["now"])

    def has_wish(self, ask: Ask) -> bool:
        return ask.email in self.row["wishers"]

    def answers(self, ask: Ask, settings: Staging) -> Restore | GatewayError | None:
        """What to say without changing anything; None if something is to be changed."""
        row = self.row
        if row["state"] == "FAILED":
            seconds = FAILED_SECONDS - (row["now"] - row["ended_at"]).total_seconds()
            return _failed(seconds) if seconds > 0 else None
        if self.is_ending:
            return self.restore(settings)
        if not self.goes_on or not self.has_wish(ask) or row["priority"] > ask.priority or row["hours"] < ask.hours:
            return None
        if row["state"] == "RESTORED":
            wanted = row["now"] + datetime.timedelta(hours=ask.hours)
            until = max(row["expires_at"], row["wanted_until"] or row["expires_at"])
            if until < wanted - datetime.timedelta(minutes=1):
                return None
        return self.restore(settings)

    def restore(self, settings: Staging) -> Restore:
        return restore_of(self.row, settings)


def restore_of(row: asyncpg.Record, settings: Staging) -> Restore:
    """A restore from its row, told with `estimating` and ``now``."""
    state: RestoreState = row["state"]
    return Restore(
        row["restore_id"],
        row["file_id"],
        state,
        row["requested_at"],
        ready_of(row, settings),
        row["restored_at"],
        row["expires_at"],
        "It could not be restored." if state == "FAILED" else None,
        row["ended_at"],
        row["hours"],
        row["now"],
    )


async def _look(database: Database | Connection, asks: Sequence[Ask]) -> Mapping[int, _Known]:
    files, emails = list({ask.file_id for ask in asks}), list({ask.email for ask in asks})
    return {row["file_id"]: _Known(row) for row in await database.fetch(_LOOK, files, emails)}


async def _taken(
    connection: Connection, settings: Staging, asks: Sequence[Ask]
) -> Mapping[Ask, Restore | GatewayError]:
    """Begin or join what is asked for, in a transaction."""
    # Two gateways must not each find room for the last wish of a user.
    users = sorted({ask.user for ask in asks})
    await connection.execute(_LOCK_USERS, sorted(_lock_key(user) for user in users))
    found: dict[Ask, Restore | GatewayError] = {}
    for _ in range(_TRIES):
        left = [ask for ask in asks if ask not in found]
        if not left:
            break
        by_file = await _look(connection, left)
        budget = await _budget(connection, settings, users)
        wishes: list[Ask] = []
        for ask in left:
            refusal = _refusal(ask, by_file.get(ask.file_id), budget, settings)
            if refusal is not None:
                found[ask] = refusal
            else:
                wishes.append(ask)
        joined = await _join(connection, wishes)
        by_file = await _look(connection, [ask for ask in wishes if ask.file_id in joined])
        found |= {ask: by_file[ask.file_id].restore(settings) for ask in wishes if ask.file_id in by_file}
    lost = unavailable("The restore could not be joined; try again.", code="Restoring")
    return {ask: found.get(ask, lost) for ask in asks}


def _refusal(
    ask: Ask, known: _Known | None, budget: dict[User, _Budget], settings: Staging
) -> Restore | GatewayError | None:
    """What to say instead of taking a wish; a wish that is taken is counted in the budget."""
    if known is not None:
        answer = known.answers(ask, settings)
        if answer is not None:
            return answer
        if known.goes_on and (known.has_wish(ask) or known.row["state"] == "RESTORED"):
            return None
    if settings.user_files < 1 or (ask.size or 0) > settings.user_size:
        # However long he waits: who is told to come back would do so for ever.
        detail = "It cannot be restored for you: it is more than one may wait for at a time."
        return GatewayError(HTTPStatus.FORBIDDEN, detail, code="StagingBudget")
    if not budget[ask.user].takes(ask.size or 0):
        return GatewayError(
            HTTPStatus.TOO_MANY_REQUESTS,
            "You wait for as many restores, or as many bytes of them, as one may at a time.",
            code="StagingBudget",
            headers={"Retry-After": str(_BUDGET_SECONDS)},
        )
    return None


@dataclasses.dataclass(slots=True)
class _Budget:
    """What a user may still wait for."""

    files: int
    octets: int

    def takes(self, octets: int) -> bool:
        """Whether there is room for one more of that size; if so it is taken."""
        if self.files < 1 or self.octets < octets:
            return False
        self.files -= 1
        self.octets -= octets
        return True


async def _budget(connection: Connection, settings: Staging, users: Sequence[User]) -> dict[User, _Budget]:
    found: dict[User, _Budget] = defaultdict(lambda: _Budget(settings.user_files, settings.user_size))
    for row in await connection.fetch(_SPENT, [user[0] for user in users], [user[1] for user in users]):
        left = settings.user_files - row["files"], settings.user_size - row["octets"]
        found[row["tenant"], row["email"]] = _Budget(*left)
    return found


async def _join(connection: Connection, asks: Sequence[Ask]) -> set[int]:
    """Begin what does not go on yet, and wish; the files of which that worked."""
    by_file: dict[int, list[Ask]] = defaultdict(list)
    for ask in asks:
        by_file[ask.file_id].append(ask)
    if not by_file:
        return set()
    merged = [_merged(some) for some in by_file.values()]
    columns = zip(
        *(
            (one.tenant, one.file_id, one.copy_id, one.storage, one.location, one.size, one.hours, one.priority)
            for one in merged
        ),
        strict=True,
    )
    await connection.execute(_BEGIN, *columns)
    rows = [row for row in await connection.fetch(_LOCK, list(by_file)) if row["is_good"]]
    ids = {row["file_id"]: row["restore_id"] for row in rows}
    some = [one for one in merged if one.file_id in ids]
    await connection.execute(
        _RAISE, [ids[one.file_id] for one in some], [one.hours for one in some], [one.priority for one in some]
    )
    wishes = [ask for ask in asks if ask.file_id in ids]
    await connection.execute(
        _WISH, [ids[ask.file_id] for ask in wishes], [ask.tenant for ask in wishes], [ask.email for ask in wishes]
    )
    return set(ids)


def _merged(asks: Iterable[Ask]) -> Ask:
    """One request for a file in place of several."""
    first, *others = asks
    return dataclasses.replace(
        first,
        hours=max(first.hours, *(one.hours for one in others)) if others else first.hours,
        priority=min(first.priority, *(one.priority for one in others)) if others else first.priority,
    )


def _failed(seconds: float) -> GatewayError:
    return unavailable(
        "The file could not be restored a moment ago; try again later.",
        retry_after=max(1, math.ceil(seconds)),
        code="RestoreFailed",
    )


def _lock_key(user: User) -> int:
    return int.from_bytes(hashlib.sha256("\0".join(("restores", *user)).encode()).digest()[:8], "big", signed=True)

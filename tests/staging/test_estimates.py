"""When a restore will be done, and when to ask again: pure rules, and the SQL that tells them what they need."""

from __future__ import annotations

import datetime

from hypothesis import given
from hypothesis import strategies as st

from gateway.config.staging import Staging
from gateway.locations import Location
from gateway.staging.estimates import LEAST_SECONDS, MOST_SECONDS, expected, retry_after
from gateway.staging.states import states
from tests.harness import RunningGateway
from tests.staging.tape import Tape, restored

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
SECONDS = st.floats(min_value=-1e6, max_value=1e6)


def later(seconds: float) -> datetime.datetime:
    return NOW + datetime.timedelta(seconds=seconds)


@given(SECONDS)
def test_retry_after_is_never_too_short_nor_too_long(seconds: float) -> None:
    found = retry_after(later(seconds), NOW)
    assert LEAST_SECONDS <= found <= MOST_SECONDS
    if LEAST_SECONDS <= seconds <= MOST_SECONDS:
        assert seconds <= found < seconds + 1.001
    if seconds <= 0:
        assert found <= 60


@given(SECONDS, SECONDS)
def test_what_is_ready_later_is_asked_for_no_sooner(one: float, other: float) -> None:
    least, most = sorted((one, other))
    if least > 0:
        assert retry_after(later(least), NOW) <= retry_after(later(most), NOW)
    elif most <= 0:
        assert retry_after(later(least), NOW) >= retry_after(later(most), NOW)


@given(
    started=st.none() | SECONDS,
    typical=st.none() | st.floats(min_value=0, max_value=1e5),
    ahead=st.integers(0, 10_000),
    at_a_time=st.integers(1, 1000),
)
def test_whoever_waits_behind_more_waits_longer(
    started: float | None, typical: float | None, ahead: int, at_a_time: int
) -> None:
    def ready(many: int, told: datetime.datetime | None = None) -> datetime.datetime:
        return expected(
            now=NOW,
            started=None if started is None else later(started),
            told=told,
            typical=typical,
            ahead=many,
            at_a_time=at_a_time,
            poll=10,
        )

    assert ready(ahead) <= ready(ahead + at_a_time)
    assert ready(ahead, told=later(7)) == later(7)
    if started is None:
        assert ready(ahead) >= NOW
        assert ready(1) == later(30 if typical is None else typical)
        if ahead > at_a_time:
            assert ready(ahead) >= later(2 * (30 if typical is None else typical))


async def test_history_and_what_waits_before_it_are_counted(archive: RunningGateway) -> None:
    catalogue, connection = archive.catalogue, archive.catalogue.connection
    await connection.execute(
        "INSERT INTO restores (tenant_id, file_id, copy_id, storage, location, hours, state, requested_at, started_at, "
        "restored_at, expires_at, ended_at) SELECT $1, -n, -n, 'tape', 'x', 1, 'EXPIRED', now() - interval '1 day', "
        "now() - interval '1 hour', now() - interval '1 hour' + n * interval '1 min', now(), now() "
        "FROM generate_series(1, 9) n",
        await catalogue.tenant(),
    )
    await connection.execute(
        "INSERT INTO restores (tenant_id, file_id, copy_id, storage, location, hours, priority) "
        "SELECT $1, -n, -n, 'tape', 'x', 1, CASE WHEN n > 120 THEN 5 ELSE 3 END FROM generate_series(101, 140) n",
        await catalogue.tenant(),
    )
    entry = await catalogue.file(b"1", storage="tape", state="NEARLINE")
    await connection.execute(
        "INSERT INTO restores (tenant_id, file_id, copy_id, storage, location, hours, priority) "
        "SELECT $1, file_id, copy_id, storage, location, 1, 3 FROM copies",
        await catalogue.tenant(),
    )
    location = _location(archive)
    settings = Staging(store_files=10)

    async def seconds() -> float:
        found = (await states(connection, {"tape": location}, settings, [entry.file_id]))[entry.file_id]
        now: datetime.datetime = await connection.fetchval("SELECT now()")
        assert found.ready is not None
        return (found.ready - now).total_seconds()

    # The median is 5 min; 20 come before it, 10 at a time: it is in the third round.
    assert 890 < await seconds() <= 900
    await connection.execute("UPDATE restores SET priority = 1 WHERE file_id = $1", entry.file_id)
    assert 290 < await seconds() <= 300
    await connection.execute(
        "UPDATE restores SET state = 'STAGING', started_at = now() - interval '4 min' WHERE file_id = $1", entry.file_id
    )
    assert 50 < await seconds() <= 60
    await restored(connection, entry)
    found = (await states(connection, {"tape": location}, settings, [entry.file_id]))[entry.file_id]
    assert found.ready is None


def _location(archive: RunningGateway) -> Location:
    tape = Tape.from_options("tape", {"root": str(archive.catalogue.root)})
    return Location(tape, type="NEARLINE", tenants=frozenset("*"))

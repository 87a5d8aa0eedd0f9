"""The statements of workers that restore: what one takes, keeps by its lease, and writes down of it."""

from __future__ import annotations

import json

WORK = "restore_work"
"""The topic that workers are woken by."""
_MOST_POSITIONS = 1000
"""Copies whose places on tape are asked for at a time."""

ONE_BY_ONE = "SELECT pg_advisory_xact_lock(hashtextextended('restores of ' || $1, 0))"

_TAKE = """
, held AS (
    UPDATE restores r SET lease = $2, lease_until = now() + $3::interval, due_at = NULL, roomed = r.roomed OR $4
    FROM taken WHERE r.restore_id = taken.restore_id
    RETURNING r.restore_id, r.tenant_id, r.file_id, r.copy_id, r.storage, r.location, r.size, r.state, r.priority,
              r.tape, r.position, r.tries, r.asked, r.roomed, taken.was_held,
              coalesce(extract(epoch FROM now() - r.ended_at), 0)::double precision AS ended_for,
              coalesce(extract(epoch FROM now() - r.started_at), 0)::double precision AS age,
              greatest(r.hours * 3600, extract(epoch FROM r.wanted_until - now()))::double precision AS seconds
)
SELECT held.*, t.name AS tenant, f.file_id IS NOT NULL AS has_file, f.checksum, f.checksum_algorithm,
       coalesce(held.size, f.size, c.size) AS whole
FROM held JOIN tenants t USING (tenant_id) LEFT JOIN files f USING (file_id) LEFT JOIN copies c USING (copy_id)
ORDER BY held.priority, held.tape, held.position, held.restore_id"""

# A file waits until what is left of its restore before is given back: else that would hit the new one.
CLAIM_QUEUED = f"""
WITH busy AS (
    SELECT count(*) AS copies FROM restores
    WHERE storage = $1 AND (state = 'STAGING' OR lease IS NOT NULL)
      AND (state = 'STAGING' OR (state = 'QUEUED' AND lease_until > now()))
), taken AS (
    SELECT r.restore_id, r.lease IS NOT NULL AS was_held FROM restores r
    WHERE r.storage = $1 AND r.state = 'QUEUED' AND coalesce(r.lease_until, r.due_at, '-infinity') <= now()
      AND NOT EXISTS (
          SELECT FROM restores e WHERE e.file_id = r.file_id AND e.ended_at IS NOT NULL AND (e.asked OR e.roomed))
    ORDER BY r.priority, r.tape, r.position, r.restore_id
    LIMIT (SELECT greatest(0, least($5, $6 - copies)) FROM busy) FOR NO KEY UPDATE OF r SKIP LOCKED
){_TAKE}"""  # noqa: S608 - made of constants

# What is over is not extended any more.
CLAIM_DUE = f"""
WITH taken AS (
    SELECT r.restore_id, r.lease IS NOT NULL AS was_held FROM restores r
    WHERE r.storage = $1 AND r.state IN ('STAGING', 'RESTORED') AND coalesce(r.lease_until, r.due_at) <= now()
      AND (r.state = 'STAGING' OR greatest(r.expires_at, r.wanted_until) > now())
    ORDER BY r.priority, r.tape, r.position, r.restore_id LIMIT $5 FOR NO KEY UPDATE SKIP LOCKED
){_TAKE}"""  # noqa: S608 - as above

CLAIM_ENDED = f"""
WITH taken AS (
    SELECT r.restore_id, r.lease IS NOT NULL AS was_held FROM restores r
    WHERE r.storage = $1 AND r.ended_at IS NOT NULL AND (r.asked OR r.roomed)
      AND coalesce(r.lease_until, '-infinity') <= now()
    ORDER BY r.restore_id LIMIT $5 FOR NO KEY UPDATE SKIP LOCKED
){_TAKE}"""  # noqa: S608 - as above
# Several are locked in the order of their ids before anything of them is changed, as by everybody else.
_OURS = """
WITH ours AS (
    SELECT restore_id FROM restores
    WHERE restore_id = ANY ($2::bigint[]) AND lease = $1 {condition} ORDER BY restore_id FOR NO KEY UPDATE
)"""
_HELD = """
WITH held AS (
    SELECT r.restore_id FROM unnest($1::bigint[], $2::uuid[]) AS known(restore_id, lease)
    JOIN restores r ON r.restore_id = known.restore_id AND r.lease = known.lease
    ORDER BY r.restore_id FOR NO KEY UPDATE OF r
)"""

CLEANED = f"""{_OURS.format(condition="")}
UPDATE restores r SET asked = false, roomed = false, lease = NULL, lease_until = NULL
FROM ours WHERE r.restore_id = ours.restore_id"""  # noqa: S608 - as above

UNPLACED = f"""
SELECT restore_id, location FROM restores WHERE storage = $1 AND state = 'QUEUED' AND tape IS NULL
ORDER BY restore_id LIMIT {_MOST_POSITIONS}"""  # noqa: S608 - as above
PLACE = """
WITH placed AS (
    SELECT r.restore_id, told.tape, told.position
    FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS told(restore_id, tape, position)
    JOIN restores r USING (restore_id) WHERE r.state = 'QUEUED' ORDER BY r.restore_id FOR NO KEY UPDATE OF r
)
UPDATE restores r SET tape = placed.tape, position = placed.position
FROM placed WHERE r.restore_id = placed.restore_id"""

WAKE = f"SELECT pg_notify('gateway', '{json.dumps({'topic': WORK, 'tenant': None, 'id': None})}')"
PROLONG = f"""{_HELD}
UPDATE restores r SET lease_until = now() + $3::interval
FROM held WHERE r.restore_id = held.restore_id
RETURNING r.restore_id, r.lease, r.ended_at IS NOT NULL AS ended"""  # noqa: S608 - as above

_MINE = """
WITH known AS (SELECT * FROM unnest({columns}), mine AS (
    SELECT r.restore_id FROM restores r JOIN known USING (restore_id)
    WHERE r.lease = $1 AND r.ended_at IS NULL ORDER BY r.restore_id FOR NO KEY UPDATE OF r
)"""


def _mine(columns: str) -> str:
    """``known``: rows of arguments from the second on; ``mine``: those of them that are held still, locked in order."""
    names = [one.split()[0] for one in columns.split(", ")]
    types = [one.split()[1] for one in columns.split(", ")]
    arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(types, 2))
    return _MINE.format(columns=f"{arrays}) AS known({', '.join(names)})")


# Asked for before it is asked: whoever finds it thus asks again.
BEGIN = f"""
{_mine("restore_id bigint")}
UPDATE restores r SET state = 'STAGING', started_at = coalesce(r.started_at, now()), asked = true
FROM mine WHERE r.restore_id = mine.restore_id RETURNING r.restore_id"""  # noqa: S608 - as above
LEAVE = f"""
{_mine("restore_id bigint")}
UPDATE restores r SET lease = NULL, lease_until = NULL
FROM mine WHERE r.restore_id = mine.restore_id"""  # noqa: S608 - as above
LEAVE_ENDED = f"""{_OURS.format(condition="AND ended_at IS NOT NULL")}
UPDATE restores r SET lease = NULL, lease_until = NULL
FROM ours WHERE r.restore_id = ours.restore_id"""  # noqa: S608 - as above
LET_GO = f"""{_HELD}
UPDATE restores r SET lease_until = now() + $3::interval, error = coalesce($4, r.error)
FROM held WHERE r.restore_id = held.restore_id"""  # noqa: S608 - as above
REQUEUE = f"""
{_mine("restore_id bigint")}
UPDATE restores r SET state = 'QUEUED', due_at = least(r.due_at, now() + $3::interval), error = $4,
    lease = NULL, lease_until = NULL
FROM mine WHERE r.restore_id = mine.restore_id"""  # noqa: S608 - as above
POLL = f"""
{_mine("restore_id bigint, seconds float8")}
UPDATE restores r SET due_at = least(r.due_at, now() + make_interval(secs => known.seconds)),
    lease = NULL, lease_until = NULL
FROM mine JOIN known USING (restore_id) WHERE r.restore_id = mine.restore_id"""  # noqa: S608 - as above
EXPECT = f"""
{_mine("restore_id bigint, ready_at timestamptz")}
UPDATE restores r SET ready_at = known.ready_at
FROM mine JOIN known USING (restore_id)
WHERE r.restore_id = mine.restore_id AND r.ready_at IS DISTINCT FROM known.ready_at"""  # noqa: S608 - as above

# In place. What the storage takes back before it is wanted is asked for again in time.
RESTORED = f"""
{_mine("restore_id bigint, until timestamptz")}, lasting AS (
    SELECT r.restore_id, known.until,
           greatest(r.wanted_until, coalesce(r.restored_at, now()) + r.hours * interval '1 h') AS wanted
    FROM mine JOIN known USING (restore_id) JOIN restores r USING (restore_id)
), done AS (
    UPDATE restores r SET state = 'RESTORED', restored_at = coalesce(r.restored_at, now()),
        expires_at = least(lasting.until, lasting.wanted), tries = 0, error = NULL, lease = NULL, lease_until = NULL,
        due_at = least(r.due_at, CASE WHEN lasting.until < lasting.wanted THEN
                       greatest(now() + $4::interval, lasting.until - (lasting.until - now()) / 4) END)
    FROM lasting WHERE r.restore_id = lasting.restore_id
    RETURNING r.restore_id, r.copy_id, r.storage, r.location, r.expires_at
), readable AS (
    UPDATE copies c SET restored_until = done.expires_at FROM done
    WHERE c.copy_id = done.copy_id AND c.storage = done.storage AND c.location = done.location
)
SELECT restore_id FROM done"""  # noqa: S608 - as above
# It stays in hand until the storage was told that it need not keep it (asked).
PUBLISHED = """
UPDATE restores SET state = 'RESTORED', restored_at = now(), tries = 0, error = NULL,
    expires_at = greatest(wanted_until, now() + hours * interval '1 h')
WHERE restore_id = $2 AND lease = $1 AND state = 'STAGING' RETURNING expires_at"""
# A statement of its own: it sees the wishes of those who had the restore's row before.
PIN = """
UPDATE restore_wishes SET pinned_until = now() + $2::interval
WHERE restore_id = $1 AND order_file_id <> 0 AND pinned_until IS NULL"""
RELEASED = f"""{_OURS.format(condition="AND state = 'RESTORED'")}
UPDATE restores r SET asked = false, lease = NULL, lease_until = NULL
FROM ours WHERE r.restore_id = ours.restore_id"""  # noqa: S608 - as above

EXTEND_CACHED = f"""
{_mine("restore_id bigint")}, done AS (
    UPDATE restores r SET expires_at = greatest(r.expires_at, r.wanted_until),
        lease = CASE WHEN r.asked THEN r.lease END, lease_until = CASE WHEN r.asked THEN r.lease_until END
    FROM mine WHERE r.restore_id = mine.restore_id RETURNING r.restore_id, r.expires_at
)
UPDATE copies c SET restored_until = done.expires_at FROM done JOIN cache_entries e USING (restore_id)
WHERE c.entry_id = e.entry_id"""  # noqa: S608 - as above
# It stays readable as long as it was to be, and no longer.
NOT_EXTENDED = f"""
{_mine("restore_id bigint")}
UPDATE restores r SET wanted_until = least(r.wanted_until, r.expires_at), error = $3, lease = NULL, lease_until = NULL
FROM mine WHERE r.restore_id = mine.restore_id"""  # noqa: S608 - as above
GONE = f"""
{_mine("restore_id bigint")}, done AS (
    UPDATE restores r SET state = 'EXPIRED', expires_at = least(r.expires_at, now()), ended_at = now(), error = $3,
        lease = NULL, lease_until = NULL
    FROM mine WHERE r.restore_id = mine.restore_id RETURNING r.copy_id
)
UPDATE copies c SET restored_until = NULL FROM done WHERE c.copy_id = done.copy_id"""  # noqa: S608 - as above

LOCK = (
    "SELECT file_id, copy_id, tried FROM restores WHERE restore_id = $2 AND lease = $1 AND ended_at IS NULL FOR UPDATE"
)
TRY_AGAIN = """
UPDATE restores SET tries = tries + 1, error = $2, due_at = least(due_at, now() + $3::interval), lease = NULL,
    lease_until = NULL, state = CASE state WHEN 'STAGING' THEN 'QUEUED' ELSE state END
WHERE restore_id = $1"""
LOST = "UPDATE copies SET state = 'LOST' WHERE copy_id = $1 AND storage = $2 AND location = $3"
BROKEN = """
UPDATE copies SET broken_version = version, verified_version = nullif(verified_version, version)
WHERE copy_id = $1 AND storage = $2 AND location = $3"""
OTHER_COPY = """
SELECT copy_id, storage, location FROM copies
WHERE file_id = $1 AND storage = ANY ($2::text[]) AND state IN ('NEARLINE', 'ONLINE') AND entry_id IS NULL
  AND copy_id <> ALL ($3::bigint[])
ORDER BY array_position($2::text[], storage), copy_id LIMIT 1"""
TAKE_OTHER = """
UPDATE restores SET copy_id = $2, storage = $3, location = $4, tried = tried || copy_id, state = 'QUEUED', tries = 0,
    tape = NULL, position = NULL, ready_at = NULL, error = $5, due_at = NULL, lease = NULL, lease_until = NULL
WHERE restore_id = $1"""
FAIL = """
UPDATE restores SET state = 'FAILED', ended_at = now(), tries = tries + 1, error = $2, due_at = NULL, lease = NULL,
    lease_until = NULL
WHERE restore_id = $1"""

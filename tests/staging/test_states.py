"""How it stands with files: all that a copy and the last restore can be, in one statement."""

from __future__ import annotations

from gateway.config.staging import Staging
from gateway.locations import Location
from gateway.staging.model import FileState
from gateway.staging.states import states
from tests.harness import RunningGateway
from tests.staging.tape import Tape, expired, restored


async def test_every_state(archive: RunningGateway) -> None:
    catalogue, connection = archive.catalogue, archive.catalogue.connection
    tape = Tape.from_options("tape", {"root": str(catalogue.root)})
    locations = {
        "disk": Location(Tape.from_options("disk", {"root": str(catalogue.root)}), tenants=frozenset("*")),
        "tape": Location(tape, type="NEARLINE", tenants=frozenset("*")),
        "shelf": Location(tape, type="OFFLINE", tenants=frozenset("*")),
    }
    files = {
        name: await catalogue.file(b"1", item=name, storage=storage, state=state)
        for name, storage, state in (
            ("online", "disk", "ONLINE"),
            ("nearline", "tape", "NEARLINE"),
            ("not here", "disk", "NEARLINE"),
            ("queued", "tape", "NEARLINE"),
            ("staging", "tape", "ONLINE"),
            ("restored", "tape", "NEARLINE"),
            ("expired", "tape", "NEARLINE"),
            ("canceled", "tape", "NEARLINE"),
            ("shelved", "shelf", "NEARLINE"),
            ("unknown", "nobody's", "ONLINE"),
            ("offline", "disk", "OFFLINE"),
            ("lost", "disk", "LOST"),
        )
    }
    for name in ("queued", "staging", "restored", "expired", "canceled"):
        entry = files[name]
        await connection.execute(
            "INSERT INTO restores (tenant_id, file_id, copy_id, storage, location, size, hours) "
            "SELECT $1, file_id, copy_id, storage, location, size, 1 FROM copies WHERE file_id = $2",
            await catalogue.tenant(),
            entry.file_id,
        )
    until = await restored(connection, files["restored"])
    await restored(connection, files["expired"])
    await expired(connection, files["expired"])
    await connection.execute(
        "UPDATE restores SET state = 'STAGING', started_at = now(), ready_at = now() + interval '1 hour' "
        "WHERE file_id = $1",
        files["staging"].file_id,
    )
    await connection.execute(
        "UPDATE restores SET state = 'CANCELED', ended_at = now() WHERE file_id = $1", files["canceled"].file_id
    )
    by_id = await states(connection, locations, Staging(), [entry.file_id for entry in files.values()] * 2 + [-1])
    assert len(by_id) == len(files)
    found = {name: by_id[entry.file_id] for name, entry in files.items()}
    assert {name: one.state for name, one in found.items()} == {
        "online": FileState.ONLINE,
        "nearline": FileState.NEARLINE,
        "not here": FileState.NEARLINE,
        "queued": FileState.RESTORING,
        "staging": FileState.RESTORING,
        "restored": FileState.RESTORED,
        "expired": FileState.EXPIRED,
        "canceled": FileState.NEARLINE,
        "shelved": FileState.OFFLINE,
        "unknown": FileState.OFFLINE,
        "offline": FileState.OFFLINE,
        "lost": FileState.LOST,
    }
    assert found["restored"].until == until
    assert found["restored"].restore_id is not None
    assert found["queued"].since is not None
    assert found["queued"].ready is not None
    assert found["staging"].ready is not None
    assert found["staging"].since is not None
    assert (found["staging"].ready - found["staging"].since).total_seconds() >= 3600
    assert found["expired"].since is not None
    assert [one.available for one in found.values()].count(True) == 2
    assert await states(connection, locations, Staging(), []) == {}

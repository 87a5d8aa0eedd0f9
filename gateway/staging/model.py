"""Restores and states of files, as values."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from typing import Literal

TOPIC = "restores"
"""Of notifications: a restore goes on; the id is its restore_id."""

RESTORING = "Restoring"
"""Code of the answer to a download that has the file restored first."""

DIRECT, ASKED, ORDERED = 1, 3, 5
"""Priorities: a download waits for it; somebody asked for it ahead; it is part of an order."""

RestoreState = Literal["QUEUED", "STAGING", "RESTORED", "EXPIRED", "CANCELED", "FAILED"]


@dataclasses.dataclass(frozen=True, slots=True)
class Restore:
    """A row of ``restores``, and when it is expected to be ready."""

    restore_id: int
    file_id: int
    state: RestoreState
    requested_at: datetime.datetime
    ready_at: datetime.datetime | None
    """QUEUED and STAGING: when it will be readable: as the storage says, else as earlier restores took."""
    restored_at: datetime.datetime | None
    expires_at: datetime.datetime | None
    error: str | None
    """Why it failed, in words for its user."""
    ended_at: datetime.datetime | None = None
    hours: float = 0
    """That it is to be readable, once it is restored."""
    now: datetime.datetime | None = None
    """When this was so, by PostgreSQL's clock, which decides until when something is readable."""


class FileState(enum.StrEnum):
    """How it stands with a file, for those who want to read it."""

    ONLINE = "online"
    """It can be read, always."""
    NEARLINE = "nearline"
    """It must be restored first."""
    RESTORING = "restoring"
    """That is under way."""
    RESTORED = "restored"
    """It can be read for a while."""
    EXPIRED = "expired"
    """It could be read for a while, and must be restored again."""
    OFFLINE = "offline"
    """It cannot be had from here."""
    LOST = "lost"
    """No copy is left."""


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """How it stands with one file, and since and until when."""

    file_id: int
    state: FileState
    restore_id: int | None = None
    """The restore that it owes its state to, if there is one."""
    since: datetime.datetime | None = None
    """RESTORING: when it was first asked for; EXPIRED: when it ended."""
    ready: datetime.datetime | None = None
    """RESTORING: when it is expected to be readable."""
    until: datetime.datetime | None = None
    """RESTORED: until when it can be read."""

    @property
    def available(self) -> bool:
        """Whether it can be read now."""
        return self.state in (FileState.ONLINE, FileState.RESTORED)

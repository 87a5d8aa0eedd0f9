"""The life of an order: which action is possible in which status, and what becomes of it. Pure.

`RULES` and `EVENTS` are all there is: routes refuse by them, links are offered by them, workers move orders by them,
and the tables of ``docs/orders.md`` are made of them.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping


class Status(enum.StrEnum):
    """Of an order; REGARDS' OrderStatus."""

    PENDING = "PENDING"
    """Its files are still being computed."""
    RUNNING = "RUNNING"
    """Some of its files are not ready."""
    PAUSED = "PAUSED"
    """Its user wants nothing done now."""
    DONE = "DONE"
    """All files are ready."""
    DONE_WITH_WARNING = "DONE_WITH_WARNING"
    """Some files are ready, the others cannot be had."""
    FAILED = "FAILED"
    """No file can be had."""
    EXPIRED = "EXPIRED"
    """Its time is over: it has no files any more."""
    DELETED = "DELETED"
    """Its user deleted it: it has no files any more, and he does not see it."""


class FileState(enum.StrEnum):
    """Of a file of an order; REGARDS' FileState, without those of its processing."""

    PENDING = "PENDING"
    AVAILABLE = "AVAILABLE"
    DOWNLOADED = "DOWNLOADED"
    DOWNLOAD_ERROR = "DOWNLOAD_ERROR"
    """The last download failed, and not by its client; it may be tried again."""
    ERROR = "ERROR"
    """It cannot be had."""


class Action(enum.StrEnum):
    """What a user can do with an order."""

    DOWNLOAD = "download"
    PAUSE = "pause"
    RESUME = "resume"
    DELETE = "delete"
    REMOVE = "remove"
    RESTART = "restart"
    RETRY = "retry"


class Event(enum.StrEnum):
    """What happens to an order by itself."""

    COMPUTED = "its files are computed"
    ENDED = "its last file is ready or cannot be had"
    SPOILT = "a download of a file fails, and not by its client"
    OUTDATED = "its time is over"


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """When an action is possible."""

    statuses: frozenset[Status]
    refusal: str
    """The message in every other status."""
    becomes: Status | None = None
    """None: the order stays as it is, or is gone."""
    effect: str = ""
    """For the documentation."""


@dataclasses.dataclass(frozen=True, slots=True)
class Counts:
    """The files of an order."""

    files: int = 0
    pending: int = 0
    available: int = 0
    downloaded: int = 0
    download_errors: int = 0
    errors: int = 0


_ALL = frozenset(Status)
_FINISHED = frozenset({Status.DONE, Status.DONE_WITH_WARNING, Status.FAILED})
_ENDED = _FINISHED | {Status.EXPIRED}
_TIMED = (Status.PENDING, Status.RUNNING, Status.PAUSED, Status.DONE, Status.DONE_WITH_WARNING)
WITHOUT_FILES = frozenset({Status.EXPIRED, Status.DELETED})
"""Their files are forgotten, and nothing of them is downloaded."""

RULES: Mapping[Action, Rule] = {
    Action.DOWNLOAD: Rule(
        _ALL - WITHOUT_FILES - {Status.PENDING},
        "ORDER_MUST_HAVE_AVAILABLE_FILES",
        effect="available files are sent; it needs one",
    ),
    Action.PAUSE: Rule(
        frozenset({Status.PENDING, Status.RUNNING}),
        "ORDER_MUST_BE_PENDING_OR_RUNNING",
        Status.PAUSED,
        "no further sub-order is begun; one that a worker has in hand is finished",
    ),
    Action.RESUME: Rule(
        frozenset({Status.PAUSED}),
        "ONLY_PAUSED_ORDER_CAN_BE_RESUMED",
        Status.RUNNING,
        "sub-orders that are not finished wait for workers again",
    ),
    Action.DELETE: Rule(
        _ENDED | {Status.PAUSED},
        "ORDER_MUST_BE_PAUSED_BEFORE_BEING_DELETED",
        Status.DELETED,
        "its files are forgotten, its user sees it no more; administrators do",
    ),
    Action.REMOVE: Rule(
        _ALL - {Status.RUNNING},
        "ORDER_MUST_NOT_BE_RUNNING",
        None,
        "nothing is left of it",
    ),
    Action.RESTART: Rule(
        _FINISHED,
        "ORDER_MUST_BE_DONE_OR_DONE_WITH_WARNING_OR_FAILED",
        None,
        "a new order of the same selections, with the rights of now",
    ),
    Action.RETRY: Rule(
        frozenset({Status.DONE_WITH_WARNING, Status.FAILED}),
        "ORDER_MUST_BE_DONE_WITH_WARNING_OR_FAILED",
        Status.RUNNING,
        "files that could not be had, or whose download failed, are tried again",
    ),
}

STRICT_DELETE = frozenset({Status.PAUSED})
"""What can be deleted where settings are strict."""

EVENTS: Mapping[Event, Mapping[Status, tuple[Status, ...]]] = {
    Event.COMPUTED: {Status.PENDING: (Status.RUNNING,)},
    Event.ENDED: {Status.RUNNING: (Status.DONE, Status.DONE_WITH_WARNING, Status.FAILED)},
    Event.SPOILT: {Status.DONE: (Status.DONE_WITH_WARNING,)},
    Event.OUTDATED: dict.fromkeys(_TIMED, (Status.EXPIRED,)),
}
"""What an event makes of an order, by its status; nothing where it is not named.

An order that is done becomes EXPIRED only if files of it remain that nobody downloaded.
"""


class RefusedError(Exception):
    """An action is not possible now; the message is REGARDS'."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def check(action: Action, status: Status, counts: Counts, *, strict_delete: bool = False) -> Status | None:
    """What an order becomes by ``action``; None if it stays as it is, or is gone.

    Raises:
        RefusedError: it is not possible.
    """
    rule = RULES[action]
    possible = STRICT_DELETE if strict_delete and action is Action.DELETE else rule.statuses
    if status not in possible or (action is Action.DOWNLOAD and not downloadable(counts)):
        raise RefusedError(rule.refusal)
    return rule.becomes


def possible(status: Status, counts: Counts, *, strict_delete: bool = False) -> list[Action]:
    """The actions that would not be refused."""
    found = []
    for action in Action:
        try:
            check(action, status, counts, strict_delete=strict_delete)
        except RefusedError:
            continue
        found.append(action)
    return found


def downloadable(counts: Counts) -> int:
    """How many files can be downloaded, be it again."""
    return counts.available + counts.downloaded + counts.download_errors


def settled(status: Status, counts: Counts) -> Status:
    """What an order is once its files are counted: a running one without pending files has ended."""
    if status is Status.RUNNING and counts.pending == 0:
        if counts.errors == 0 and counts.files > 0:
            return Status.DONE if counts.download_errors == 0 else Status.DONE_WITH_WARNING
        return Status.FAILED if counts.errors == counts.files else Status.DONE_WITH_WARNING
    if status is Status.DONE and counts.download_errors > 0:
        return Status.DONE_WITH_WARNING
    return status


def outdated(status: Status, counts: Counts) -> Status:
    """What an order is once its time is over."""
    becomes = EVENTS[Event.OUTDATED].get(status)
    if becomes is None or (status in _FINISHED and counts.available == 0):
        return status
    return becomes[0]


def documentation() -> str:
    """The tables of the life cycle, in Markdown."""
    lines = ["| Action | Possible in | It becomes | Else 401 with the message | Effect |", "|---|---|---|---|---|"]
    for action, rule in RULES.items():
        becomes = rule.becomes or ("(gone)" if action is Action.REMOVE else "as it was")
        lines.append(f"| {action} | {_names(rule.statuses)} | {becomes} | `{rule.refusal}` | {rule.effect} |")
    lines += ["", "| What happens | To an order that is | It becomes |", "|---|---|---|"]
    for event, changes in EVENTS.items():
        by_result: dict[tuple[Status, ...], list[Status]] = {}
        for status, results in changes.items():
            by_result.setdefault(results, []).append(status)
        for results, statuses in by_result.items():
            lines.append(f"| {event} | {_names(statuses)} | {' or '.join(results)} |")
    return "\n".join(lines) + "\n"


def _names(statuses: Iterable[Status]) -> str:
    chosen = set(statuses)
    return ", ".join(status for status in Status if status in chosen)

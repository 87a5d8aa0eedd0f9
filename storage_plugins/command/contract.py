"""What is said to an operator's programs, and what they answer: JSON, described in docs/nearline-storages.md."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast

from gateway.storage import CopyUnavailableError, StageState, TapePosition, ToStage
from gateway.text import escaped, is_storable

VERSION = 1
"""Of the contract. Programs are to refuse another; members that are not known are ignored on both sides."""
_STATES = ("ONLINE", "STAGING", "NEARLINE", "LOST", "FAILED")
_ERROR_CHARACTERS = 500
_MOST_SECONDS = 3660 * 86400


class AnswerError(CopyUnavailableError):
    """A program answered what the contract does not know."""


def question(action: str, copies: Sequence[ToStage], **more: object) -> bytes:
    """What a program is given on stdin."""
    listed = [
        {"key": copy.key, "location": copy.location, "size": copy.size, "seconds": copy.seconds} for copy in copies
    ]
    return json.dumps({"version": VERSION, "action": action, "copies": listed, **more}).encode()


def order_question(locations: Sequence[str]) -> bytes:
    """Likewise, where only locations are known: these are the keys."""
    listed = [{"key": location, "location": location} for location in locations]
    return json.dumps({"version": VERSION, "action": "order", "copies": listed}).encode()


def states(answer: bytes, keys: Collection[str], now: datetime.datetime) -> dict[str, StageState]:
    """What an answer says of the copies with these ``keys``; of others it may say what it likes.

    Raises:
        AnswerError: it is malformed. Then nothing of it counts.
    """
    return {key: _state(key, copy, now) for key, copy in _copies(answer).items() if key in keys}


def positions(answer: bytes, keys: Collection[str]) -> dict[str, TapePosition]:
    """Where an answer says that copies lie; those without a ``tape`` it knows nothing of.

    Raises:
        AnswerError: it is malformed.
    """
    found = {}
    for key, copy in _copies(answer).items():
        tape, position = copy.get("tape"), copy.get("position", 0)
        if key not in keys or tape is None:
            continue
        if not isinstance(tape, str) or not isinstance(position, int) or isinstance(position, bool):
            raise AnswerError(f"copy {_short(key)}: tape must be text, and position a whole number")
        if not is_storable(tape) or not -(2**63) <= position < 2**63:
            raise AnswerError(f"copy {_short(key)}: tape or position cannot be recorded")
        found[key] = TapePosition(tape, position)
    return found


def _copies(answer: bytes) -> dict[str, Mapping[str, Any]]:
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise AnswerError("the answer is no JSON") from error
    if not isinstance(value, dict) or not isinstance(value.get("copies"), list):
        raise AnswerError("the answer is no JSON object with an array 'copies'")
    if value.get("version", VERSION) != VERSION:
        raise AnswerError(f"the answer has version {_short(value['version'])} instead of {VERSION}")
    found: dict[str, Mapping[str, Any]] = {}
    for copy in value["copies"]:
        if not isinstance(copy, dict) or not isinstance(copy.get("key"), str):
            raise AnswerError("the answer has a copy that is no object with a text 'key'")
        if copy["key"] in found:
            raise AnswerError(f"the answer has the copy {_short(copy['key'])} twice")
        found[copy["key"]] = copy
    return found


def _state(key: str, copy: Mapping[str, Any], now: datetime.datetime) -> StageState:
    what = f"copy {_short(key)}"
    state, error, path, retry = copy.get("state"), copy.get("error"), copy.get("path"), copy.get("retry", True)
    if state not in _STATES:
        raise AnswerError(f"{what}: state is {_short(state)}, none of {', '.join(_STATES)}")
    if error is not None and not isinstance(error, str):
        raise AnswerError(f"{what}: error must be text")
    if not isinstance(retry, bool):
        raise AnswerError(f"{what}: retry must be true or false")
    return StageState(
        cast("Literal['ONLINE', 'STAGING', 'NEARLINE', 'LOST', 'FAILED']", state),
        until=_moment(copy.get("until"), f"{what}: until", now),
        ready=_moment(copy.get("ready"), f"{what}: ready", now),
        path=None if path is None else _path(path, what),
        error=None if error is None else escaped(error, _ERROR_CHARACTERS),
        retry=retry,
    )


def _moment(value: object, what: str, now: datetime.datetime) -> datetime.datetime | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not -_MOST_SECONDS <= value <= _MOST_SECONDS:  # NaN is not, either
            raise AnswerError(f"{what} is too far away")
        return now + datetime.timedelta(seconds=value)
    if isinstance(value, str):
        with contextlib.suppress(ValueError, OverflowError):
            moment = datetime.datetime.fromisoformat(value)
            if moment.tzinfo is not None:
                return moment.astimezone(datetime.UTC)
    raise AnswerError(f"{what} is {_short(value)}, neither seconds from now nor like 2030-01-31T12:00:00Z")


def _path(value: object, what: str) -> Path:
    if not isinstance(value, str) or not value.startswith("/") or not is_storable(value):
        raise AnswerError(f"{what}: path is {_short(value)}, no absolute path")
    if ".." in PurePosixPath(value).parts:
        raise AnswerError(f"{what}: path {_short(value)} has a segment '..'")
    return Path(value)


def _short(value: object) -> str:
    return escaped(repr(value), 100)

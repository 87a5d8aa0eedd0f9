"""The demo's tape robot: a folder whose files must be staged before they can be read, which takes a moment.

``python -m gateway.demo.tape FOLDER SECONDS`` is the program of a storage of the plug-in "command": it reads one
request as JSON and answers it. What was staged is a note in ``FOLDER/.staged``.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

STAGED = ".staged"


def answer(folder: Path, delay: datetime.timedelta, request: Mapping[str, object], now: datetime.datetime) -> object:
    """What the robot says to ``request``, one of ``stage``, ``query``, ``release`` and ``fetch``.

    Raises:
        ValueError, KeyError, TypeError: the request is none.
        OSError: a file cannot be read or written.
    """
    action, copies = str(request["action"]), request["copies"]
    if not isinstance(copies, list):
        raise TypeError("copies must be a list")
    if action == "fetch":
        (copy,) = copies
        shutil.copyfile(_file(folder, str(copy["location"])), str(request["target"]))
        return {"copies": []}
    return {"copies": [_state(folder, delay, action, one, now) for one in copies]}


def _state(
    folder: Path, delay: datetime.timedelta, action: str, copy: Mapping[str, object], now: datetime.datetime
) -> dict[str, object]:
    location = str(copy["location"])
    note = folder / STAGED / hashlib.sha256(location.encode()).hexdigest()
    if not _file(folder, location).is_file():
        return {"key": copy["key"], "state": "LOST"}
    if action == "release":
        note.unlink(missing_ok=True)
    elif action == "stage" and not note.exists():
        note.parent.mkdir(exist_ok=True)
        note.write_text((now + delay).isoformat(), encoding="utf-8")
    if not note.exists():
        return {"key": copy["key"], "state": "NEARLINE"}
    ready = datetime.datetime.fromisoformat(note.read_text(encoding="utf-8"))
    if ready > now:
        return {"key": copy["key"], "state": "STAGING", "ready": ready.isoformat()}
    return {"key": copy["key"], "state": "ONLINE"}


def _file(folder: Path, location: str) -> Path:
    path = (folder / location).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"{location!r} is not on this tape")
    return path


def main() -> None:
    """Answer the request on standard input."""
    folder, delay = Path(sys.argv[1]), datetime.timedelta(seconds=float(sys.argv[2]))
    json.dump(answer(folder, delay, json.load(sys.stdin), datetime.datetime.now(datetime.UTC)), sys.stdout)


if __name__ == "__main__":
    main()

"""An operator's programs for a tape library that is a directory: run as ``python tape_programs.py ACTION STATE``.

``STATE`` is a directory with ``tape`` (what lies on the tape), ``disk`` (what is restored) and ``journal``, to which
each run adds a line. A file ``answer`` there is answered instead, whatever was asked; ``behave`` names a misbehaviour.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    action, state = sys.argv[1], Path(sys.argv[2])
    behave = (state / "behave").read_text() if (state / "behave").exists() else ""
    note(state, {"started": action, "pid": os.getpid(), "environment": dict(os.environ)})
    misbehave(behave, state)
    asked = json.loads(sys.stdin.buffer.read())
    note(state, asked)
    if (state / "answer").exists():
        sys.stdout.buffer.write((state / "answer").read_bytes())
        return
    if action == "fetch":
        [copy] = asked["copies"]
        shutil.copyfile(asked["path"] or state / "tape" / copy["location"], asked["target"])
        return
    answers = [{"key": copy["key"], **answer(action, state, copy)} for copy in asked["copies"]]
    json.dump({"version": 1, "copies": answers, "more": {"is": "ignored"}}, sys.stdout)


def answer(action: str, state: Path, copy: dict[str, str]) -> dict[str, object]:
    tape, disk, ordered = (state / name / copy["location"] for name in ("tape", "disk", "ordered"))
    if action == "order":
        reel, _, position = copy["location"].partition("-")
        return {"tape": reel, "position": int(position)} if position else {}
    if action == "release":
        disk.unlink(missing_ok=True)
        ordered.unlink(missing_ok=True)
        return {}
    if not tape.exists():
        return {"state": "LOST", "error": "no such file on any tape"}
    if disk.exists():
        return {"state": "ONLINE", "until": "2035-01-31T12:00:00Z", "path": str(disk)}
    if action == "stage":
        ordered.touch()
    return {"state": "STAGING", "ready": 90} if ordered.exists() else {"state": "NEARLINE"}


def misbehave(how: str, state: Path) -> None:
    if how == "fail":
        sys.stderr.write("line one\n" * 50 + "no drive is free\n\x1b[31mthe last line\n")
        sys.exit(3)
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "flood":
        while True:
            sys.stdout.write("x" * 65536)
    if how == "hang":
        time.sleep(600)
    if how == "hang with a child":
        # Neither heeds SIGTERM, and the child holds the pipes.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
            ]
        )
        note(state, {"child": child.pid})
        time.sleep(600)
    if how == "leave a child":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        note(state, {"child": child.pid})
    if how == "full":
        sys.stderr.write("No space left on device\n")
        sys.exit(1)


def note(state: Path, what: object) -> None:
    with (state / "journal").open("a") as journal:
        journal.write(json.dumps(what) + "\n")


if __name__ == "__main__":
    main()

"""A gateway in a process of its own, so that its memory and descriptors are nobody else's."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

Tables = Mapping[str, Mapping[str, object] | list[Mapping[str, object]]]
"""Settings as in the TOML file."""

START_SECONDS = 20.0
STOP_SECONDS = 15.0


@dataclasses.dataclass(frozen=True)
class ServingProcess:
    """A running ``gateway serve``."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    @property
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    @property
    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        assert found
        return int(found[1]) * 1024

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


def to_toml(tables: Tables) -> str:
    """Tables of scalars and lists of scalars as TOML, whose values of these kinds are those of JSON."""
    lines = []
    for name, table in tables.items():
        many = isinstance(table, list)
        for one in table if isinstance(table, list) else [table]:
            lines.append(f"[[{name}]]" if many else f"[{name}]")
            lines.extend(f"{key} = {json.dumps(value)}" for key, value in one.items())
    return "\n".join(lines)


@contextlib.contextmanager
def serving_process(
    directory: Path,
    tables: Tables,
    *,
    python_path: Path | None = None,
) -> Iterator[ServingProcess]:
    """Run ``gateway serve`` with these settings; it is told to stop at the end, and must.

    ``python_path`` is where more plug-ins lie.
    """
    settings, log = directory / "gateway.toml", directory / "gateway.log"
    settings.write_text(to_toml(tables), encoding="utf-8")
    paths = [str(path) for path in (Path(__file__).parents[2], python_path) if path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "--config", str(settings)],
            stdout=output,
            stderr=output,
            env=environment,
        )
    try:
        yield ServingProcess(process, _url(process, log), log)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        # A test may have killed it.
        assert process.wait(STOP_SECONDS) in (0, -signal.SIGKILL)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while not (found := re.search(r"^serving on (\S+)$", text := log.read_text(encoding="utf-8"), re.MULTILINE)):
        assert process.poll() is None, text
        assert time.monotonic() < deadline, text
        time.sleep(0.05)
    return found[1]

"""The two servers: how each is started on a free port, and how it shows that it answers."""

from __future__ import annotations

import abc
import os
import secrets
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from gateway.embedded.processes import Host, LaunchError

PORT_ATTEMPTS = 5
"""Somebody else may take a port between our look and the server's bind; so often we try another."""
POSTGRES_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    # Nothing here has to survive a power cut.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_wal_size": "256MB",
    # In files of the directory, so that not even a killed server leaves a segment behind.
    "dynamic_shared_memory_type": "mmap",
}
"""For a fast server that is thrown away; never for one that keeps data."""


class Server(abc.ABC):
    """One server process on a port of 127.0.0.1, with a password of its own."""

    name: str
    stop_signal: signal.Signals

    def __init__(self, host: Host) -> None:
        self.host = host
        self.password = secrets.token_hex(16)
        self.port = 0
        self.attempts = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """Where the server's output goes."""
        return self.host.directory / f"{self.name}.log"

    def launch(self) -> None:
        """Start the process; :meth:`is_ready` says when it answers."""
        self.attempts += 1
        self.port = _free_port()
        self.process = self._spawn()

    def is_ready(self) -> bool:
        """Whether the server answers; starts it anew where its port was taken meanwhile.

        Raises:
            LaunchError: it has ended.
        """
        assert self.process is not None  # noqa: S101 - launched
        if self.process.poll() is None:
            return self._answers()
        log = tail(self.log)
        if "Address already in use" not in log or self.attempts == PORT_ATTEMPTS:
            raise LaunchError(f"{self.name} ended with status {self.process.returncode} as it started:\n{log}")
        self.launch()
        return False

    @abc.abstractmethod
    def _spawn(self) -> subprocess.Popen[bytes]:
        """Start the process on ``self.port``."""

    @abc.abstractmethod
    def _answers(self) -> bool:
        """Whether this very server, and no stranger on its port, takes connections."""


class Postgres(Server):
    """A PostgreSQL cluster in ``directory/data``, with the superuser ``gateway``."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast shutdown"

    def __init__(self, host: Host, bin_directory: Path) -> None:
        super().__init__(host)
        self.bin_directory = bin_directory
        self.data = host.directory / "data"
        self.initdb: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """The database ``postgres``, empty in a new cluster."""
        return f"postgresql://gateway:{self.password}@127.0.0.1:{self.port}/postgres"

    def initialise(self) -> None:
        """Start ``initdb``; :meth:`is_initialised` says when it is done."""
        password_file = self.host.directory / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self.password)
        self.host.hand_over(password_file)
        command: list[str | Path] = [
            self.bin_directory / "initdb",
            f"--pgdata={self.data}",
            "--username=gateway",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            # 4096 rounds protect weak passwords; ours is random, and each connection would pay for them.
            *("--set", "scram_iterations=1"),
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-sync",
            "--no-data-checksums",
            "--no-instructions",
        ]
        with self.log.open("wb") as log:
            self.initdb = self.host.spawn(command, log=log, death_signal=signal.SIGKILL)

    def is_initialised(self) -> bool:
        """Whether ``initdb`` has done its work.

        Raises:
            LaunchError: it has ended without.
        """
        assert self.initdb is not None  # noqa: S101 - started by initialise()
        if self.initdb.poll() is None:
            return False
        if self.initdb.returncode != 0:
            raise LaunchError(f"initdb ended with status {self.initdb.returncode}:\n{tail(self.log)}")
        (self.host.directory / "password").unlink()
        return True

    def _spawn(self) -> subprocess.Popen[bytes]:
        settings = {**POSTGRES_SETTINGS, "port": str(self.port)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("wb") as log:
            # SIGQUIT, "immediate shutdown": the server ends its own children, as SIGKILL would not let it do.
            return self.host.spawn(
                [self.bin_directory / "postgres", "-D", self.data, *options], log=log, death_signal=signal.SIGQUIT
            )

    def _answers(self) -> bool:
        # Line 8 of the lock file is the server's state: what pg_ctl itself waits for.
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"


class Valkey(Server):
    """A Valkey that keeps its data in memory only."""

    name = "valkey"
    stop_signal = signal.SIGTERM

    def __init__(self, host: Host, program: Path) -> None:
        super().__init__(host)
        self.program = program

    @property
    def url(self) -> str:
        """Logical database 0."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def _spawn(self) -> subprocess.Popen[bytes]:
        settings = (
            "bind 127.0.0.1",
            f"port {self.port}",
            f"requirepass {self.password}",
            'save ""',
            "appendonly no",
            "maxmemory-policy noeviction",
        )
        # By standard input, since every user of the machine may read an argument list.
        with tempfile.TemporaryFile(dir=self.host.directory) as configuration, self.log.open("wb") as log:
            configuration.write("\n".join(settings).encode())
            configuration.seek(0)
            return self.host.spawn(
                [self.program, "-"], log=log, death_signal=signal.SIGKILL, stdin=configuration.fileno()
            )

    def _answers(self) -> bool:
        # Only our server knows the password.
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(f"AUTH {self.password}\r\nQUIT\r\n".encode())
                return connection.recv(5) == b"+OK\r\n"
        except OSError:
            return False


def tail(path: Path, size: int = 2000) -> str:
    """The end of a log, in characters."""
    try:
        return path.read_text(errors="replace")[-size:].strip()
    except OSError as error:
        return f"({path} cannot be read: {os.strerror(error.errno or 0)})"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

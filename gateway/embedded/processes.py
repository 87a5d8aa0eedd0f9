"""How the supervisor starts a server: as whom, from where, and so that it cannot outlive its starter."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
"""All that the servers see of the environment: a PGOPTIONS or a locale of the user's must not change them."""
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


class LaunchError(Exception):
    """The servers cannot be started; the message is meant for the user."""


@dataclass(frozen=True, slots=True)
class Host:
    """The directory the servers live in, and the account they run as when it is not ours."""

    directory: Path
    account: pwd.struct_passwd | None

    def spawn(
        self,
        command: Sequence[str | Path],
        *,
        log: IO[bytes] | int,
        death_signal: signal.Signals,
        stdin: int | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start ``command`` in the directory, its output going to ``log``.

        ``death_signal`` is what it gets when this process dies, on Linux.

        Raises:
            LaunchError: it cannot be executed under the account.
        """
        try:
            return subprocess.Popen(  # noqa: S603 - our own commands
                command,
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env=ENVIRONMENT,
                umask=0o077,
                user=self.account and self.account.pw_uid,
                group=self.account and self.account.pw_gid,
                extra_groups=[] if self.account else None,
                preexec_fn=dies_with_parent(death_signal),  # noqa: PLW1509 - there is one thread
            )
        except (OSError, subprocess.SubprocessError) as error:
            name = self.account.pw_name if self.account else "this user"
            raise LaunchError(f"{command[0]} cannot be run as {name}: {error}") from error

    def hand_over(self, path: Path) -> None:
        """Make ``path`` and all below it the account's own."""
        if self.account:
            for step in (path, *path.rglob("*")):
                os.chown(step, self.account.pw_uid, self.account.pw_gid, follow_symlinks=False)


def make_host(directory: Path) -> Host:
    """Make the directory, mode 0700, of the account that the servers run as.

    Raises:
        LaunchError: no account is at hand.
    """
    account = _server_account() if os.geteuid() == 0 else None
    directory.mkdir(mode=0o700)
    host = Host(directory, account)
    host.hand_over(directory)
    return host


def _server_account() -> pwd.struct_passwd:
    """An account for root to run the servers as: PostgreSQL refuses user id 0."""
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise LaunchError(
        "PostgreSQL does not run as root, and there is neither a user postgres nor a user nobody to run it as"
    )


def runnable(host: Host, program: Path, copy: Callable[[], Path]) -> Path:
    """``program``, or what ``copy`` makes of it where the account cannot run it, say from below a home of mode 0700."""
    with contextlib.suppress(LaunchError):
        process = host.spawn([program, "--version"], log=subprocess.DEVNULL, death_signal=signal.SIGKILL)
        if process.wait() == 0:
            return program
    copied = copy()
    host.hand_over(host.directory)
    return copied


def copy_postgres(bin_directory: Path, target: Path) -> Path:
    """Copy the wheel's PostgreSQL to ``target``, beside the libraries that it finds by a relative path."""
    package = bin_directory.parent.parent
    unused = shutil.ignore_patterns("include", "doc", "pgxs", "*.a")
    shutil.copytree(package / "pginstall", target / package.name / "pginstall", ignore=unused)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name)
    return target / package.name / "pginstall" / "bin"


def dies_with_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    """What the new process does last before it becomes the server: a later change of user id would undo it."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask_kernel

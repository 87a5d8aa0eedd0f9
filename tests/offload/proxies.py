"""Real proxies in front of a gateway, as deploy/ configures them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import pytest

from tests.e2e.conftest import REQUIRE_CLIENTS

DEPLOY = Path(__file__).parents[2] / "deploy"
APACHE_MODULES = Path("/usr/lib/apache2/modules")
START_SECONDS = 20
STOP_SECONDS = 20
PLACES = f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin"
"""Servers are not on everyone's PATH."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a proxy has to know."""

    directory: Path
    """Its own, for whatever it writes."""
    port: int
    """To listen on."""
    upstream: str
    """``host:port`` of the gateway."""
    archive: Path
    """Directory of the files."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A proxy program."""

    name: str
    program: str
    field: str
    """By which it is told what to send."""
    configure: Callable[[Setting], str]
    """The text of its configuration file."""
    command: Callable[[str, Path], list[str]]
    """What to run, from the program and its configuration file."""
    needs: tuple[Path, ...] = ()

    def prefix(self, archive: Path) -> str:
        """The setting ``offload_prefix`` that fits."""
        return "/_archive" if self.field == "X-Accel-Redirect" else str(archive)


def find(name: str) -> str:
    """The path of a program; without it the test is skipped by its name, or fails where it must run."""
    found = shutil.which(name, path=PLACES)
    if found is None:
        missing(name)
    return found


def missing(name: str) -> NoReturn:
    if os.environ.get(REQUIRE_CLIENTS):
        pytest.fail(f"{name} is missing, and this run must have it")
    pytest.skip(f"{name} is not installed")


@contextlib.contextmanager
def running(kind: Kind, upstream: str, archive: Path, directory: Path) -> Iterator[str]:
    """Run a proxy in the foreground before the gateway at the URL ``upstream``; gives its own URL."""
    program = find(kind.program)
    for path in kind.needs:
        if not path.exists():
            missing(path.name)
    port = free_port()
    file = directory / f"{kind.name}.conf"
    file.write_text(kind.configure(Setting(directory, port, urlsplit(upstream).netloc, archive)), encoding="utf-8")
    said = directory / f"{kind.name}.out"
    with said.open("wb") as output:
        process = subprocess.Popen(
            kind.command(program, file), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _await_port(process, port, said)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its workers, too
            process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _await_port(process: subprocess.Popen[bytes], port: int, said: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"{process.args!r} does not listen: {said.read_text(encoding='utf-8', errors='replace')}")
        time.sleep(0.01)


def _deployed(name: str, setting: Setting, **more: str) -> str:
    """The file ``name`` of deploy/, for this place."""
    text = (DEPLOY / name).read_text(encoding="utf-8")
    for old, new in {"/data/archive": str(setting.archive), **more}.items():
        assert old in text, f"{name} no longer has {old}"
        text = text.replace(old, new)
    return text


def _nginx(setting: Setting) -> str:
    user = "user root;" if os.geteuid() == 0 else ""
    included = setting.directory / "offload.conf"
    included.write_text(_deployed("nginx-offload.conf", setting), encoding="utf-8")
    temporary = "".join(
        f"{kind}_temp_path {setting.directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""
        {user}
        daemon off;
        worker_processes 1;
        pid {setting.directory}/nginx.pid;
        error_log {setting.directory}/nginx.error.log;
        events {{ worker_connections 64; }}
        http {{
            access_log off;
            {temporary}
            gzip on;
            gzip_types *;
            gzip_proxied any;
            upstream gateway {{ server {setting.upstream}; keepalive 4; }}
            server {{
                listen 127.0.0.1:{setting.port};
                {_leading_location()}
                include {included};
            }}
        }}
    """


def _leading_location() -> str:
    """The location that leads to the gateway, as the comment of the deployed file shows it."""
    lines = (DEPLOY / "nginx-offload.conf").read_text(encoding="utf-8").splitlines()
    start = lines.index("#     location / {")
    stop = lines.index("#     }", start)
    return "\n".join(line.removeprefix("#") for line in lines[start : stop + 1])


def _lighttpd(setting: Setting) -> str:
    host, _, port = setting.upstream.partition(":")
    assert host == "127.0.0.1"
    return _deployed(
        "lighttpd.conf", setting, **{'"port" => 8080': f'"port" => {port}', "8081": str(setting.port)}
    )  # fmt: skip


def _apache(setting: Setting) -> str:
    modules = ("mpm_event", "authz_core", "proxy", "proxy_http", "headers", "xsendfile")
    loaded = "\n".join(f"LoadModule {name}_module {APACHE_MODULES}/mod_{name}.so" for name in modules)
    user = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
    site = _deployed("apache.conf", setting, **{"127.0.0.1:8080": setting.upstream, "8081": str(setting.port)})
    return f"""
{loaded}
{user}
ServerRoot {setting.directory}
DefaultRuntimeDir {setting.directory}
PidFile {setting.directory}/apache.pid
ErrorLog {setting.directory}/apache.error.log
ServerName localhost
Listen 127.0.0.1:{setting.port}
StartServers 1
{site}
"""


NGINX = Kind(
    "nginx",
    "nginx",
    "X-Accel-Redirect",
    _nginx,
    lambda program, file: [program, "-p", str(file.parent), "-e", "stderr", "-c", str(file)],
)
LIGHTTPD = Kind("lighttpd", "lighttpd", "X-Sendfile", _lighttpd, lambda program, file: [program, "-D", "-f", str(file)])
APACHE = Kind(
    "apache", "apache2", "X-Sendfile", _apache,
    lambda program, file: [program, "-D", "FOREGROUND", "-f", str(file)],
    needs=(APACHE_MODULES / "mod_xsendfile.so",),
)  # fmt: skip
KINDS = (NGINX, LIGHTTPD, APACHE)

"""nginx as a process of the tests."""

from __future__ import annotations

import contextlib
import datetime
import getpass
import ipaddress
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.e2e.conftest import REQUIRE_CLIENTS

DEPLOYED = Path(__file__).parents[2] / "deploy" / "nginx.conf"
START_SECONDS = 10

STATIC = """
{user}
worker_processes 1;
pid {directory}/nginx.pid;
events {{ worker_connections 64; }}
http {{
    access_log off;
    {temporary}
    types {{ }}
    default_type image/png;
    # nginx takes only the very date for unchanged unless told; RFC 9110 13.1.3 is this.
    if_modified_since before;
    keepalive_requests 100000;
    server {{
        listen 127.0.0.1:{port};
        root {root};
        large_client_header_buffers 4 16k;
    }}
}}
"""


def program() -> str:
    """The path of nginx; the test is skipped, or fails, without one."""
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if found is None:
        if os.environ.get(REQUIRE_CLIENTS):
            pytest.fail("nginx is missing, and this run must have it")
        pytest.skip("nginx is not installed")
    return found


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def substituted(text: str, changes: Mapping[str, str]) -> str:
    """``text`` with each of ``changes`` made; what is to be changed must be there."""
    for old, new in changes.items():
        assert old in text, f"the configuration has no {old!r}"
        text = text.replace(old, new)
    return text


def _user() -> str:
    """The user that workers run as: who runs the tests. Without root's rights nginx has no choice, and warns of one."""
    return f"user {getpass.getuser()};" if os.geteuid() == 0 else ""


def _temporary(directory: Path, *kinds: str) -> str:
    """nginx makes these directories at its start, whether they are used or not."""
    return " ".join(f"{kind}_temp_path {directory}/{kind};" for kind in kinds)


def static(directory: Path, *, port: int, root: Path) -> str:
    """The configuration of an nginx that serves the files below ``root`` by itself."""
    temporary = _temporary(directory, "client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return STATIC.format(user=_user(), temporary=temporary, directory=directory, port=port, root=root)


def deployed(directory: Path, *, gateway: tuple[str, int], redirect: int, clear: int, tls: int) -> str:
    """The shipped configuration, at other addresses and below ``directory``."""
    return substituted(
        DEPLOYED.read_text(encoding="utf-8"),
        {
            "user www-data;": _user(),
            "http {": f"http {{ {_temporary(directory, 'fastcgi', 'uwsgi', 'scgi')}",
            "worker_processes auto;": "worker_processes 1;",
            "worker_rlimit_nofile 65536;": "",
            "worker_connections 16384;": "worker_connections 256;",
            "/run/nginx.pid": f"{directory}/nginx.pid",
            "/var/log/nginx/": f"{directory}/",
            "/var/lib/nginx/": f"{directory}/",
            "/etc/nginx/tls/": f"{directory}/",
            "127.0.0.1:8080": "{}:{}".format(*gateway),
            "listen 80;": f"listen 127.0.0.1:{redirect};",
            "listen 443 ssl http2;": f"listen 127.0.0.1:{tls} ssl http2;",
            "listen 127.0.0.1:8081;": f"listen 127.0.0.1:{clear};",
            "listen [::]:80;": "",
            "listen [::]:443 ssl http2;": "",
        },
    )


@contextlib.contextmanager
def running(directory: Path, configuration: str, port: int) -> Iterator[None]:
    """nginx in the foreground until the block ends; it listens on ``port`` of this machine."""
    file = directory / "nginx.conf"
    file.write_text(configuration, encoding="utf-8")
    errors = directory / "stderr"
    with errors.open("wb") as sink:
        arguments = ["-p", str(directory), "-c", str(file), "-e", "stderr", "-g", "daemon off;"]
        process = subprocess.Popen([program(), *arguments], stdout=sink, stderr=sink)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _accepts(port):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"nginx did not start: {errors.read_text(errors='replace')}")
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def make_certificate(directory: Path) -> None:
    """Write ``gateway.crt`` and ``gateway.key``: self-signed, for localhost, for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "gateway.key").write_bytes(private)
    (directory / "gateway.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

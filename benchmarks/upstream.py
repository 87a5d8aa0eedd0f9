"""In the place of an object store: nginx that serves files over plain HTTP and over TLS.

It answers path-style requests of S3, since it takes no notice of the signature, and knows ranges and If-Match.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import ipaddress
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.setting_up import BenchmarkFile, FileCopy, Nginx, free_port, running_nginx

BUCKET = "archive"
SCHEMES = "http", "https"
REGION = "us-east-1"
ACCESS_KEY, SECRET_KEY = "benchmark", "of-a-store-that-asks-nobody-for-it"

TLS = "ssl_protocols TLSv1.2 TLSv1.3"
"""Of nginx as a server; as a client it has to be told the same, or it takes none newer than 1.2 (nginx 1.22)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Upstream:
    """A store's stand-in that answers."""

    pid: int
    ports: Mapping[str, int]
    """TCP port for each of `SCHEMES`."""
    certificate: Path
    _log: Path

    def url(self, scheme: str) -> str:
        """Its root, without a slash at the end."""
        return f"{scheme}://127.0.0.1:{self.ports[scheme]}"

    def storages(self) -> str:
        """The ``[[storage]]`` tables of the gateway, one for each scheme and called by it."""
        return "".join(s3_storage(scheme, self.url(scheme), _ca_file(scheme, self.certificate)) for scheme in SCHEMES)

    def ciphers(self) -> set[str]:
        """Protocol and cipher of all requests so far that came over TLS."""
        return {line for line in self._log.read_text().splitlines() if line != "- -"}


def _ca_file(scheme: str, certificate: Path) -> Path | None:
    return certificate if scheme == "https" else None


def s3_storage(name: str, endpoint: str, ca_file: Path | None = None, *, delivery: str = "stream") -> str:
    """The ``[[storage]]`` table of a store at ``endpoint``."""
    options = {
        "name": name,
        "plugin": "s3",
        "delivery": delivery,
        "endpoint": endpoint,
        "region": REGION,
        "access_key_id": ACCESS_KEY,
        "secret_access_key": SECRET_KEY,
    }
    if ca_file is not None:
        options["ca_file"] = str(ca_file)
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in options.items()]
    return "".join(("[[storage]]\n", *lines, f'buckets = ["{BUCKET}"]\n', 'tenants = ["*"]\n'))


def copy_in(root: Path, storage: str, name: str) -> FileCopy:
    """The copy of ``root/archive/NAME`` that a store's stand-in serves; its version is the entity-tag of nginx."""
    found = (root / BUCKET / name).stat()
    modified = datetime.datetime.fromtimestamp(int(found.st_mtime), datetime.UTC)
    return FileCopy(storage, f"{BUCKET}/{name}", modified, f"{int(found.st_mtime):x}-{found.st_size:x}")


def over(scheme: str, file: BenchmarkFile) -> BenchmarkFile:
    """The file as the catalogue has it when it comes over ``scheme``, like ``https-large.bin``."""
    return dataclasses.replace(file, name=f"{scheme}-{file.name}")


def copies_over_each(root: Path, files: Iterable[BenchmarkFile]) -> dict[BenchmarkFile, FileCopy]:
    """The files of ``root/archive`` as the catalogue has them for each scheme, with their copies."""
    return {over(scheme, file): copy_in(root, scheme, file.name) for file in files for scheme in SCHEMES}


@contextlib.contextmanager
def running_upstream(nginx: Nginx, directory: Path, core: int) -> Iterator[Upstream]:
    """Run the stand-in on ``core``; it serves ``directory/files/archive`` as the bucket ``archive``."""
    certificate, key, port = directory / "certificate.pem", directory / "key.pem", free_port()
    write_certificate(certificate, key)
    log = directory / "ciphers.log"
    http = "    log_format ciphers '$ssl_protocol $ssl_cipher';\n"
    server = (
        f"        listen 127.0.0.1:{port} ssl;\n        ssl_certificate {certificate};\n"
        f"        ssl_certificate_key {key};\n        {TLS};\n        access_log {log} ciphers;\n"
        # What TLS keeps from sendfile is read in pieces as large as a store's: the relay would wake for every 32 KiB.
        "        output_buffers 2 1m;\n"
    )
    with running_nginx(nginx, directory, core, http=http, server=server) as server_:
        yield Upstream(server_.pid, {"http": server_.port, "https": port}, certificate, log)


def write_certificate(certificate: Path, key: Path) -> None:
    """Make a certificate of 127.0.0.1 that lasts a week, and its key; only we may read the key."""
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(secret, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.touch(mode=0o600)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key.write_bytes(secret.private_bytes(encoding, form, serialization.NoEncryption()))

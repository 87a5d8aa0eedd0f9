"""An HTTP server that answers with whatever bytes it is told to, and keeps what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Script = Callable[["Asked", asyncio.StreamWriter], Awaitable[None]]


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    target: str
    fields: Mapping[str, str]
    connection: int
    """The number of the connection that it came by, from 1."""


class WebServer:
    """Answers every request by ``script``; a connection stays open until the script or the client closes it."""

    def __init__(self, script: Script, *, secure: bool) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self.connections = 0
        self.open = 0
        """Connections that neither side has closed."""
        self.port = 0
        self._secure = secure
        self._tasks: set[asyncio.Task[None]] = set()

    def url(self, target: str = "/file", host: str = "127.0.0.1") -> str:
        return f"{'https' if self._secure else 'http'}://{host}:{self.port}{target}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        number = self.connections
        try:
            # Whatever the client does to the connection is not an error of the server, nor is its end.
            with contextlib.suppress(
                ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError
            ):
                while not writer.is_closing():
                    asked = _read_request(await reader.readuntil(b"\r\n\r\n"), number)
                    self.asked.append(asked)
                    await self.script(asked, writer)
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.transport.abort()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


@contextlib.asynccontextmanager
async def serving(script: Script, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[WebServer]:
    """A server on a free port of 127.0.0.1."""
    web = WebServer(script, secure=tls is not None)
    server = await asyncio.start_server(web.serve, "127.0.0.1", 0, ssl=tls, backlog=256)
    web.port = server.sockets[0].getsockname()[1]
    try:
        yield web
    finally:
        server.close()
        await web.close()


def _read_request(raw: bytes, connection: int) -> Asked:
    first, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    assert len(fields) == len(lines), "a field was sent twice"
    return Asked(method, target, fields, connection)


def head(status: str, *fields: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode("latin-1")


def answer(status: str, body: bytes, *fields: str) -> bytes:
    return head(status, f"Content-Length: {len(body)}", *fields) + body


def saying(*pieces: bytes, close: bool = False) -> Script:
    """Send ``pieces``, one after the other; then close, if told so."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if close:
            writer.close()

    return script


def holding(content: bytes, *fields: str) -> Script:
    """Serve ``content`` as a well-behaved server does: HEAD, ranges, If-Match."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        tag = next((field.partition(": ")[2] for field in fields if field.startswith("ETag: ")), None)
        if "if-match" in asked.fields and asked.fields["if-match"] != tag:
            writer.write(answer("412 Precondition Failed", b"changed"))
        elif asked.method == "HEAD":
            writer.write(head("200 OK", f"Content-Length: {len(content)}", *fields))
        else:
            first, last = map(int, asked.fields["range"].removeprefix("bytes=").split("-"))
            part = content[first : last + 1]
            place = f"Content-Range: bytes {first}-{first + len(part) - 1}/{len(content)}"
            writer.write(answer("206 Partial Content", part, place, *fields))
        await writer.drain()

    return script


@dataclasses.dataclass(frozen=True)
class Authority:
    """A certificate authority, and a server that it vouches for."""

    ca_file: Path
    server: ssl.SSLContext


def make_authority(directory: Path, *names: str) -> Authority:
    """Make a new authority, and a certificate for ``names``: hosts and IP addresses."""
    directory.mkdir()
    root, root_key = _certificate("Test authority", (), None)
    leaf, leaf_key = _certificate("Test server", names, (root, root_key))
    ca_file, leaf_file, key_file = directory / "ca.pem", directory / "leaf.pem", directory / "key.pem"
    ca_file.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    leaf_file.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        leaf_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(leaf_file, key_file)
    return Authority(ca_file, server)


Signer = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def _certificate(common_name: str, names: tuple[str, ...], signer: Signer | None) -> Signer:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    issuer, issuer_key = (signer[0].subject, signer[1]) if signer else (subject, key)
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if names:
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(issuer_key, hashes.SHA256()), key


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)

"""A mail server that keeps what it is given, and misbehaves when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import email
import email.policy
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

HOST = "127.0.0.1"


@dataclasses.dataclass
class Mailbox:
    """What came, and what is answered."""

    port: int
    mails: list[EmailMessage] = dataclasses.field(default_factory=list)
    recipients: list[list[str]] = dataclasses.field(default_factory=list)
    sender: str = "250 OK"
    rcpt: str = "250 OK"
    data: str = "250 OK"
    quotes: bool = False
    """Whether a refusal quotes what came, as filters do."""
    login: tuple[str, str] | None = None
    logins: int = 0
    on_mail: Callable[[EmailMessage], Awaitable[None]] | None = None
    """Runs when a mail is here, before its sender is told."""
    connections: int = 0

    async def handle_MAIL(  # noqa: N802 - as aiosmtpd names it
        self, server: SMTP, session: Session, envelope: Envelope, address: str, mail_options: list[str]
    ) -> str:
        envelope.mail_from = address
        return self.sender

    async def handle_RCPT(  # noqa: N802 - as aiosmtpd names it
        self, server: SMTP, session: Session, envelope: Envelope, address: str, rcpt_options: list[str]
    ) -> str:
        if self.rcpt.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.rcpt

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - as above
        if self.data.startswith("250"):
            assert isinstance(envelope.content, bytes)
            mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
            assert isinstance(mail, EmailMessage)
            self.mails.append(mail)
            self.recipients.append(envelope.rcpt_tos)
            if self.on_mail is not None:
                await self.on_mail(mail)
        elif self.quotes:
            assert isinstance(envelope.content, bytes)
            text = parts_of(email.message_from_bytes(envelope.content, policy=email.policy.default))[0]
            return f"{self.data} {' '.join(text.split())}"
        return self.data

    def authenticate(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins += 1
        known = (data.login.decode(), data.password.decode()) == self.login
        return AuthResult(success=known, handled=False)

    @property
    def subjects(self) -> list[str]:
        return [str(mail["Subject"]) for mail in self.mails]

    @property
    def identifiers(self) -> list[str]:
        return [str(mail["Message-ID"]) for mail in self.mails]

    async def has(self, count: int, seconds: float = 15) -> list[EmailMessage]:
        """Its mails, once there are so many."""
        async with asyncio.timeout(seconds):
            while len(self.mails) < count:
                await asyncio.sleep(0.02)
        return self.mails

    @contextlib.asynccontextmanager
    async def opened(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Mailbox]:
        """Be there while the block runs."""

        def protocol() -> SMTP:
            self.connections += 1
            return SMTP(
                self,
                tls_context=tls,
                require_starttls=tls is not None,
                authenticator=self.authenticate,
                auth_required=self.login is not None,
                auth_require_tls=tls is not None,
                loop=asyncio.get_running_loop(),
            )

        server = await asyncio.get_running_loop().create_server(protocol, HOST, self.port)
        try:
            yield self
        finally:
            server.close()


def free_port() -> int:
    with socket.socket() as one:
        one.bind((HOST, 0))
        port: int = one.getsockname()[1]
        return port


def parts_of(mail: EmailMessage) -> tuple[str, str]:
    """The text and the HTML of a mail."""
    assert mail.get_content_type() == "multipart/alternative"
    first, second = mail.iter_parts()
    assert (first.get_content_type(), second.get_content_type()) == ("text/plain", "text/html")
    assert isinstance(first, EmailMessage)
    assert isinstance(second, EmailMessage)
    return first.get_content().replace("\r\n", "\n"), second.get_content().replace("\r\n", "\n")

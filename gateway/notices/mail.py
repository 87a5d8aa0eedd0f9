"""Carries notices as mails, by SMTP (RFC 5321)."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence

import aiosmtplib

from gateway.config import Mail
from gateway.errors import ConfigurationError
from gateway.notices.letters import Letters
from gateway.notices.model import Notice, Outcome, RejectedError, UndeliverableError, UnreachableError
from gateway.orders.tokens import without_tokens

_SEND_SECONDS = 120.0
"""That one mail may take with all of its commands; below the lease of senders. It is longer than a command may take:
who hangs up before the last reply does not know whether the mail was taken (RFC 5321 §4.5.3.2.6)."""
_LINGER_SECONDS = 2.0
"""For a good-bye that nobody waits for."""
_FOR_EVER = range(500, 600)
"""Replies that say not to try the same again (RFC 5321 §4.2.1)."""
_OF_SERVER = (421, 530, 534, 535, 538, 454)
"""Of these, and of those that fail for now, what concerns the server or our log-in, and not one mail."""
_NOT_THIS_WAY = (504, 534)
"""Replies to one way of logging in that leave others (RFC 4954 §6)."""


class MailCarrier:
    """Sends mails. A connection is made for each batch."""

    def __init__(self, settings: Mail, letters: Letters) -> None:
        """Read certificates.

        Raises:
            ConfigurationError: they cannot be.
        """
        self._settings = settings
        self._letters = letters
        self._trust = trust(settings)
        self.give_up_seconds = settings.give_up_hours * 3600

    async def carry(self, notices: Sequence[Notice], outcome: Outcome) -> None:
        """As `Carrier`."""
        async with connected(self._settings, self._trust) as client:
            for number, notice in enumerate(notices):
                if not client.is_connected:
                    if number == 0:
                        raise UnreachableError("the server has closed the connection")
                    return  # one of them may be what it does not like: the others go by another connection
                if not await outcome.begin(notice):
                    continue
                try:
                    address, message = self._letters.write(notice)
                except UndeliverableError as error:
                    await outcome.failed(notice, error)
                    continue
                try:
                    async with asyncio.timeout(_SEND_SECONDS):
                        await client.sendmail(
                            self._settings.sender, [address], message.as_bytes(), timeout=_SEND_SECONDS
                        )
                except (aiosmtplib.SMTPException, OSError, TimeoutError, ValueError) as error:
                    if _code(error) is None:
                        client.close()  # else a reply that comes late is taken for one to another mail
                    await outcome.failed(notice, _judged(error))
                else:
                    await outcome.taken(notice)


def trust(settings: Mail) -> ssl.SSLContext | None:
    """How certificates are looked at; None without TLS.

    Raises:
        ConfigurationError: they cannot be read.
    """
    if settings.tls == "none":
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"mail.ca_file: cannot be read: {error}") from error
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@contextlib.asynccontextmanager
async def connected(settings: Mail, context: ssl.SSLContext | None) -> AsyncIterator[aiosmtplib.SMTP]:
    """A connection to the mail server, logged in if that is set.

    Raises:
        UnreachableError: there is none.
    """
    client = aiosmtplib.SMTP(
        hostname=settings.host,
        port=settings.port,
        timeout=settings.timeout,
        use_tls=settings.tls == "tls",
        start_tls=settings.tls == "starttls",
        tls_context=context,
    )
    try:
        try:
            # Connecting, the greeting, EHLO, STARTTLS, and logging in: each has the time of a command.
            async with asyncio.timeout(5 * settings.timeout):
                await client.connect()
                if settings.user is not None and settings.password is not None:
                    await _log_in(client, settings.user, settings.password.get_secret_value())
        except (aiosmtplib.SMTPException, OSError, TimeoutError, ValueError) as error:
            raise UnreachableError(_reason(error)) from None  # what it holds may be what was sent to log in
        yield client
        with contextlib.suppress(aiosmtplib.SMTPException, OSError, TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                await client.quit()
    finally:
        client.close()


async def _log_in(client: aiosmtplib.SMTP, user: str, password: str) -> None:
    """Log in by the first way that both sides know. A wrong password is shown once: servers lock out who goes on."""
    await client.ehlo()  # what the server said before STARTTLS does not count
    ways = {"plain": client.auth_plain, "login": client.auth_login, "cram-md5": client.auth_crammd5}
    refused: aiosmtplib.SMTPException = aiosmtplib.SMTPNotSupported("the server offers no way to log in")
    for name, way in ways.items():
        if name in client.supported_auth_methods:
            try:
                await way(user, password)
            except aiosmtplib.SMTPAuthenticationError as error:
                if error.code not in _NOT_THIS_WAY:
                    raise
                refused = error
            else:
                return
    raise refused


def _judged(error: BaseException) -> UndeliverableError | RejectedError:
    """What a failure means for the mail."""
    code = _code(error)
    if isinstance(error, ValueError):  # something of it cannot be said in SMTP
        return UndeliverableError(_reason(error))
    # That the server does not like our own address says nothing of this mail: whoever set it will put it right.
    if code in _FOR_EVER and code not in _OF_SERVER and not isinstance(error, aiosmtplib.SMTPSenderRefused):
        return UndeliverableError(_reason(error))
    return RejectedError(_reason(error))


def _code(error: BaseException) -> int | None:
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused) and error.recipients:
        return error.recipients[0].code
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return error.code
    return None


def _reason(error: BaseException) -> str:
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused) and error.recipients:
        error = error.recipients[0]
    if isinstance(error, aiosmtplib.SMTPAuthenticationError):
        return f"the server does not let us log in ({error.code})"
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return f"{error.code} {without_tokens(error.message)}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

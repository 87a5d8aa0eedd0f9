"""``[mail]`` and ``[[webhooks]]``: who is told what becomes of orders."""

from __future__ import annotations

import base64
import binascii
import ipaddress
from email.errors import MessageError
from email.headerregistry import Address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from gateway.config.section import Section, Text
from gateway.config.serving import Port
from gateway.http.outbound import parse_target

_SECRET_PREFIX = "whsec_"  # noqa: S105 - how Standard Webhooks marks secrets
_FEWEST_SECRET_BYTES, _MOST_SECRET_BYTES = 24, 64


def _address(value: str) -> str:
    try:
        Address(addr_spec=value)
    except (ValueError, MessageError, IndexError):
        value = ""
    if not value.isascii() or not value.isprintable() or "@" not in value:
        raise ValueError("must be an e-mail address without a name, like 'downloads@example.org'")
    return value


MailAddress = Annotated[str, AfterValidator(_address)]


class Mail(Section):
    """``[mail]``: absent, no mail is sent, and none is kept to be sent."""

    host: Text
    """The mail server that takes what the gateway sends."""
    port: Port = 587
    """587 goes with ``starttls``, 465 with ``tls``."""
    tls: Literal["starttls", "tls", "none"] = "starttls"
    """``starttls``: the server must offer it; ``tls`` from the first byte; ``none`` only to this very machine."""
    verify: bool = True
    """Whether the server's certificate must be good, for its name."""
    ca_file: Path | None = None
    """Certificates (PEM) to trust instead of the system's."""
    user: Text | None = None
    """To log in with; absent, nobody logs in."""
    password: SecretStr | None = None
    """Beside ``user``."""
    sender: MailAddress
    """Address that mails come from."""
    sender_name: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=100)] = ""
    """Name beside it."""
    timeout: Annotated[float, Field(gt=0, le=60)] = 15
    """Seconds that the server may take to answer a command."""
    templates: Path | None = None
    """Folder with texts of your own: ``created.txt``, ``created.html`` and so on. Of those that it lacks, the built-in
    ones are taken."""
    reminder_hours: Annotated[float, Field(ge=0, le=3660 * 24)] = 24
    """Hours before its end at which the owner of an order with files that he has not fetched is reminded; 0 for never.
    Nobody is who heard of the order within this time."""
    give_up_hours: Annotated[float, Field(gt=0, le=3660 * 24)] = 72
    """Hours after which a mail that the server does not take is given up."""

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        if (self.user is None) != (self.password is None):
            raise ValueError("'user' and 'password' go together: set both or none")
        if self.tls == "none" and not _is_this_machine(self.host):
            raise ValueError("tls 'none' is for a server on this machine alone ('127.0.0.1', '::1', 'localhost')")
        return self


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url(value: str) -> str:
    return parse_target(value, insecure_http=True).url


def _signing_secret(value: SecretStr) -> SecretStr:
    if not _FEWEST_SECRET_BYTES <= len(_decoded(value)) <= _MOST_SECRET_BYTES:
        raise ValueError(
            f"must be '{_SECRET_PREFIX}' and {_FEWEST_SECRET_BYTES} to {_MOST_SECRET_BYTES} bytes in base64 "
            f"(echo {_SECRET_PREFIX}$(openssl rand -base64 32) makes a good one)"
        )
    return value


def _decoded(value: SecretStr) -> bytes:
    text = value.get_secret_value()
    try:
        return base64.b64decode(text.removeprefix(_SECRET_PREFIX), validate=True) if text[:6] == _SECRET_PREFIX else b""
    except (binascii.Error, ValueError):
        return b""


class Webhook(Section):
    """``[[webhooks]]``: a server that is told when the status of an order changes."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
    """By which what is to be sent refers to it; never change it while something is."""
    url: Annotated[str, AfterValidator(_url)]
    """Where to; https, or http to this machine."""
    secret: Annotated[SecretStr, AfterValidator(_signing_secret)]
    """What calls are signed with, as Standard Webhooks writes it: ``whsec_`` and base64 of 24 to 64 bytes."""
    tenants: Annotated[list[Text], Field(min_length=1)]
    """Tenants of whose orders it is told; ``["*"]`` for all."""
    ca_file: Path | None = None
    """Certificates (PEM) to trust instead of the system's."""
    timeout: Annotated[float, Field(gt=0, le=60)] = 10
    """Seconds that it may take to answer."""
    give_up_hours: Annotated[float, Field(gt=0, le=3660 * 24)] = 72
    """Hours after which a call that it does not take is given up."""

    @property
    def key(self) -> bytes:
        """What is signed with."""
        return _decoded(self.secret)

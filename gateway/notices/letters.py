"""What mails say: from a template and an order to a message. Pure, but for reading the templates once.

A template is a `string.Template`: no code in it can run, and what is put in is escaped for where it stands. The first
line of the text is the subject.
"""

from __future__ import annotations

import dataclasses
import datetime
import html
import re
from collections.abc import Mapping
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as POLICY
from email.utils import format_datetime
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

from gateway.config import Mail
from gateway.errors import ConfigurationError
from gateway.notices.model import Notice, UndeliverableError
from gateway.orders.tokens import OrderTokens

BUILT_IN = Path(__file__).with_name("templates")
KINDS: Mapping[str, str] = {
    "created": "created",
    "done": "finished",
    "done_with_warning": "finished",
    "failed": "finished",
    "reminder": "reminder",
    "expired": "expired",
}
"""The template of each kind of notice that is mailed."""
NAMES = frozenset(
    {
        *("order", "label", "owner", "tenant", "status", "expires", "links"),
        *("files", "available", "downloaded", "errors", "lost", "size"),
        *("order_url", "metalink_url", "success_url"),
    }
)
"""What templates may put in."""
_SUBJECT = "Subject: "
_MOST_SUBJECT = 200
_STATUS_WORDS = {
    "PENDING": "in preparation",
    "RUNNING": "in preparation",
    "PAUSED": "paused",
    "DONE": "ready",
    "DONE_WITH_WARNING": "ready, but not all of it",
    "FAILED": "failed",
    "EXPIRED": "over",
    "DELETED": "deleted",
}
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


@dataclasses.dataclass(frozen=True, slots=True)
class _Texts:
    subject: Template
    text: Template
    html: Template


@dataclasses.dataclass(frozen=True, slots=True)
class Letters:
    """Writes mails. Made by `letters`."""

    settings: Mail
    base: str
    """URL before ``/user/orders``."""
    tokens: OrderTokens | None
    """None: there are no links that work without a credential."""
    texts: Mapping[str, _Texts]

    def write(self, notice: Notice) -> tuple[str, EmailMessage]:
        """The address that a notice goes to, and the mail. With each attempt it is the same.

        Raises:
            UndeliverableError: there is no such mail, or its owner has no address that could be written to.
        """
        name = KINDS.get(notice.kind)
        owner = str(notice.body["owner"])
        if name is None:
            raise UndeliverableError(f"there is no mail of the kind {notice.kind!r}")
        try:
            to = Address(addr_spec=owner)
        except (ValueError, MessageError, IndexError) as error:
            raise UndeliverableError("the owner's address is none that mail could be sent to") from error
        if to.addr_spec != owner or not (owner.isascii() and owner.isprintable()) or not to.domain:
            raise UndeliverableError("the owner's address is none that mail could be sent to")
        values = {key: _plain(value) for key, value in self._values(notice).items()}
        links = self._links(values)
        texts = self.texts[name]
        escaped = {key: html.escape(value) for key, value in values.items()}
        message = EmailMessage(policy=POLICY)
        message["Subject"] = texts.subject.substitute(values, links="")[:_MOST_SUBJECT].strip()
        message["From"] = Address(self.settings.sender_name, addr_spec=self.settings.sender)
        message["To"] = to
        message["Date"] = format_datetime(notice.created.astimezone(datetime.UTC))
        message["Message-ID"] = f"<{notice.message}@{self.settings.sender.rpartition('@')[2]}>"
        # RFC 3834: no answering machine answers.
        message["Auto-Submitted"] = "auto-generated"
        plain = "\n".join(f"{title}:\n  {url}" for title, url in links)
        message.set_content(texts.text.substitute(values, links=plain), cte="quoted-printable")
        listed = "".join(f'<li><a href="{html.escape(url)}">{html.escape(title)}</a></li>' for title, url in links)
        message.add_alternative(
            texts.html.substitute(escaped, links=f"<ul>{listed}</ul>" if listed else ""),
            subtype="html",
            cte="quoted-printable",
        )
        message.set_boundary(f"=_{notice.message.hex}")
        return owner, message

    def _values(self, notice: Notice) -> dict[str, str]:
        body, order_url = notice.body, f"{self.base}/user/orders/{notice.order_id}"
        metalink = ""
        if self.tokens is not None and notice.kind != "expired":
            token = self.tokens.make(notice.order_id, int(body["token_generation"]))
            metalink = f"{self.base}/user/orders/metalink/download?orderToken={token}"
        return {
            "order": str(notice.order_id),
            "label": str(body["label"]),
            "owner": str(body["owner"]),
            "tenant": notice.tenant,
            "status": _STATUS_WORDS.get(str(body["status"]), str(body["status"])),
            "expires": _day(str(body["expires_at"])),
            "files": str(body["files_count"]),
            "available": str(body["files_available"]),
            "downloaded": str(body["files_downloaded"]),
            "errors": str(body["files_error"]),
            "lost": str(body.get("files_available_before", 0)),
            "size": _size(int(body["files_size"])),
            "order_url": order_url,
            "metalink_url": metalink,
            "success_url": self._success_url(body.get("on_success_url")),
        }

    def _success_url(self, url: object) -> str:
        """Where the user goes on. What it may be is looked at when he orders; here a path gets our host."""
        if not isinstance(url, str) or not url:
            return ""
        if url.startswith("/"):
            parts = urlsplit(self.base)
            return f"{parts.scheme}://{parts.netloc}{url}" if not url.startswith(("//", "/\\")) else ""
        return url if url.startswith(("https://", "http://")) else ""

    @staticmethod
    def _links(values: Mapping[str, str]) -> list[tuple[str, str]]:
        found = [
            ("All files, for a Metalink client", values["metalink_url"]),
            ("Go on", values["success_url"]),
            ("The order", values["order_url"]),
        ]
        return [(title, url) for title, url in found if url]


def letters(settings: Mail, base: str, tokens: OrderTokens | None) -> Letters:
    """Read the templates.

    Raises:
        ConfigurationError: one cannot be used.
    """
    if settings.templates is not None and not settings.templates.is_dir():
        raise ConfigurationError(f"mail.templates: {settings.templates} is no folder")
    names = sorted(set(KINDS.values()))
    return Letters(settings, base, tokens, {name: _texts(settings.templates, name) for name in names})


def _texts(folder: Path | None, name: str) -> _Texts:
    first, _, text = _read(folder, f"{name}.txt").partition("\n")
    if not first.startswith(_SUBJECT):
        raise ConfigurationError(f"mail.templates: {name}.txt: the first line must begin with {_SUBJECT!r}")
    html_text = _read(folder, f"{name}.html")
    found = _Texts(Template(first.removeprefix(_SUBJECT)), Template(text.lstrip("\n")), Template(html_text))
    for part in (found.subject, found.text, found.html):
        unknown = set(part.get_identifiers()) - NAMES
        if not part.is_valid() or unknown:
            wrong = f"${min(unknown)} is none of {', '.join(sorted(NAMES))}" if unknown else "a single $ is written $$"
            raise ConfigurationError(f"mail.templates: {name}: {wrong}")
    return found


def _read(folder: Path | None, name: str) -> str:
    file = folder / name if folder is not None and (folder / name).exists() else BUILT_IN / name
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"mail.templates: {file}: cannot be read: {error}") from error


def _plain(value: str) -> str:
    """A value on one line, and without what would turn the writing around it about."""
    return _CONTROLS.sub(" ", value).encode("utf-8", "replace").decode()


def _day(text: str) -> str:
    return datetime.datetime.fromisoformat(text).astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _size(octets: int) -> str:
    size, unit = float(octets), "bytes"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"

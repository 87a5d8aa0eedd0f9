"""What mails say, and what nobody gets into them."""

from __future__ import annotations

import email
import email.policy
import os
import re
from email.message import EmailMessage
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ConfigurationError
from gateway.notices.letters import BUILT_IN, KINDS
from gateway.notices.model import UndeliverableError
from gateway.orders.tokens import OrderTokens
from tests.notices.mailbox import parts_of
from tests.notices.support import PUBLIC_URL, SECRET, notice, writer

FIELDS = {"Subject", "From", "To", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"}

unhurried = settings(max_examples=500 if "GATEWAY_TEST_FULL" in os.environ else 60, deadline=None)


def written(*, kind: str = "done", **body: Any) -> tuple[str, EmailMessage]:
    """As it arrives."""
    address, message = writer().write(notice(kind, **body))
    arrived = email.message_from_bytes(message.as_bytes(), policy=email.policy.default)
    assert isinstance(arrived, EmailMessage)
    return address, arrived


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_mail_has_text_and_html_and_the_links(kind: str) -> None:
    address, mail = written(kind=kind)
    text, html = parts_of(mail)
    token = OrderTokens(SECRET.encode()).make(7, 0)
    metalink = f"{PUBLIC_URL}/rs-order/user/orders/metalink/download?orderToken={token}"
    assert address == "scientist@example.org"
    assert (metalink in text, metalink in html) == (kind != "expired",) * 2
    assert f"{PUBLIC_URL}/portal?a=1&b=2\n" in text
    assert f'href="{PUBLIC_URL}/portal?a=1&amp;b=2"' in html
    assert f"{PUBLIC_URL}/rs-order/user/orders/7" in text
    assert "$" not in text + html
    assert mail["Message-ID"] == "<00000000-0000-0000-0000-000000000007@archive.example>"
    assert mail["Date"].datetime.isoformat() == "2026-11-21T20:00:00+00:00"
    assert mail["From"].addresses[0].display_name == "Archive; Ünit"
    assert mail["Auto-Submitted"] == "auto-generated"


def test_a_mail_is_the_same_each_time() -> None:
    assert writer().write(notice())[1].as_bytes() == writer().write(notice())[1].as_bytes()


def test_without_a_secret_there_is_no_metalink_link() -> None:
    text, _ = parts_of(writer(secret=None).write(notice())[1])
    assert "metalink" not in text


@unhurried
@given(label=st.text(min_size=1, max_size=50), kind=st.sampled_from(sorted(KINDS)))
def test_no_label_adds_a_field_or_markup(label: str, kind: str) -> None:
    _, mail = written(kind=kind, label=label)
    assert set(mail.keys()) == FIELDS
    assert all(len(mail.get_all(name) or ()) == 1 for name in FIELDS)
    assert [one.addr_spec for one in mail["To"].addresses] == ["scientist@example.org"]
    _, html = parts_of(mail)
    tags: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            tags.append(tag)

    Tags().feed(html)
    assert set(tags) <= {"html", "body", "p", "b", "ul", "li", "a"}
    assert tags.count("b") == 1


@unhurried
@given(owner=st.text(max_size=40) | st.from_regex(r"[a-z\r\n,;<>\"@. ]{1,20}@[a-z.\r\n,]{1,20}", fullmatch=True))
def test_a_mail_goes_to_one_address_or_to_none(owner: str) -> None:
    try:
        address, mail = written(owner=owner)
    except UndeliverableError:
        return
    assert address == owner
    assert re.search(r"[\x00-\x20\x7f]", address) is None
    assert len(mail["To"].addresses) == 1
    assert set(mail.keys()) == FIELDS


@pytest.mark.parametrize(
    "owner", ["a@b.example\r\nBcc: c@d.example", "a@b.example, c@d.example", "a", "<a@b.example>", "", "a@b.example "]
)
def test_what_is_no_address_is_not_written_to(owner: str) -> None:
    with pytest.raises(UndeliverableError):
        writer().write(notice(owner=owner))


@pytest.mark.parametrize(
    "url", ["//evil.example", "/\\evil.example", "javascript:alert(1)", "data:text/html,x", None, ""]
)
def test_what_leads_away_is_no_link(url: str | None) -> None:
    text, html = parts_of(written(on_success_url=url)[1])
    assert "Go on" not in text + html


def test_texts_of_ones_own_stand_beside_built_in_ones(tmp_path: Path) -> None:
    (tmp_path / "finished.txt").write_text("Subject: Fertig: $label\n\nKosten: 0 $$\n$metalink_url\n", "utf-8")
    (tmp_path / "finished.html").write_text("<p>$label</p>", "utf-8")
    mail = writer(tmp_path).write(notice(label="<i>"))[1]
    text, html = parts_of(mail)
    assert mail["Subject"] == "Fertig: <i>"
    assert text.startswith("Kosten: 0 $\nhttps://")
    assert html.strip() == "<p>&lt;i&gt;</p>"
    assert "confirmed" in writer(tmp_path).write(notice("created"))[1]["Subject"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Subject: x\n\n$nothing", r"mail.templates: created: \$nothing is none of available, "),
        ("Subject: x\n\n100 $", r"mail.templates: created: a single \$ is written \$\$"),
        ("Hello", "mail.templates: created.txt: the first line must begin with 'Subject: '"),
        (b"\xff", "mail.templates: .*created.txt: cannot be read"),
    ],
)
def test_texts_that_cannot_be_used_are_refused_at_the_start(tmp_path: Path, text: str | bytes, complaint: str) -> None:
    (tmp_path / "created.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigurationError, match=complaint):
        writer(tmp_path)
    with pytest.raises(ConfigurationError, match="is no folder"):
        writer(tmp_path / "none")


def test_the_built_in_texts_are_those_of_all_kinds() -> None:
    names = {path.name for path in BUILT_IN.iterdir()}
    assert names == {f"{name}.{kind}" for name in KINDS.values() for kind in ("txt", "html")}

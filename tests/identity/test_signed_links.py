"""Tokens of signed links: whatever is changed in them, they do not hold."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.catalog.model import Address, ByAsset, ByChecksum
from gateway.identity import signed_links
from gateway.identity.signed_links import Grant, Signer

SIGNER = Signer(b"s" * 32)
ADDRESS = ByChecksum("urn", "a1b2")
GRANT = Grant(
    link_id="aaaaaaaaaaaa-bbbbbbbbbbbb",
    tenant="esa",
    subject="me",
    email="me@example.org",
    role="REGISTERED_USER",
    groups=("science", "more"),
    expires=2_000_000_000,
    network="192.0.2.0/24",
    downloads=3,
    octets=10**12,
)
TOKEN = SIGNER.sign(GRANT, ADDRESS)

texts = st.text(st.characters(codec="utf-8"), max_size=20)
numbers = st.none() | st.integers(1, 2**53)
ids = st.from_regex("[0-9A-Za-z]{12}-[0-9A-Za-z]{12}", fullmatch=True)
grants = st.builds(
    Grant,
    link_id=ids,
    tenant=texts,
    subject=texts,
    email=texts,
    role=texts,
    groups=st.lists(texts, max_size=3).map(tuple),
    expires=st.integers(0, 2**40),
    network=st.none() | texts,
    downloads=numbers,
    octets=numbers,
)
addresses = st.builds(ByChecksum, texts, texts) | st.builds(ByAsset, texts, texts, texts)


@settings(deadline=None)
@given(grants, addresses)
def test_what_was_signed_is_read(grant: Grant, address: Address) -> None:
    assert SIGNER.read(SIGNER.sign(grant, address), address) == grant


@settings(deadline=None)
@given(grants, addresses, addresses)
def test_a_token_holds_for_its_file_alone(grant: Grant, address: Address, other: Address) -> None:
    assert (SIGNER.read(SIGNER.sign(grant, address), other) == grant) == (address == other)


@pytest.mark.parametrize(
    "address",
    [
        ByChecksum("urn", "A1B2"),
        ByChecksum("urn", "a1b2 "),
        ByChecksum("urna", "1b2"),
        ByChecksum("", "urna1b2"),
        ByChecksum("a1b2", "urn"),
        ByChecksum('urn", "a1b2', ""),
        ByAsset("urn", "a1b2", ""),
        ByAsset("", "urn", "a1b2"),
    ],
)
def test_an_address_that_is_alike_is_another(address: Address) -> None:
    assert SIGNER.read(TOKEN, ADDRESS) == GRANT
    assert SIGNER.read(TOKEN, address) is None


@settings(deadline=None)
@given(st.integers(0, len(TOKEN) - 1), st.characters())
def test_no_character_of_a_token_can_be_changed(at: int, character: str) -> None:
    changed = TOKEN[:at] + character + TOKEN[at + 1 :]
    assert SIGNER.read(changed, ADDRESS) == (GRANT if changed == TOKEN else None)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_no_other_text_is_a_token(text: str) -> None:
    assert SIGNER.read(text, ADDRESS) is None
    assert SIGNER.read(TOKEN + text, ADDRESS) == (None if text else GRANT)
    assert SIGNER.read(text + TOKEN, ADDRESS) == (None if text else GRANT)


FORGED: dict[str, list[object]] = {
    "version": [0, 2, "1", None],
    "tenant": ["nasa", "", None],
    "subject": ["other"],
    "email": ["admin@example.org", None],
    "role": ["PROJECT_ADMIN"],
    "groups": [[], ["science"], ["science", "more", "secret"]],
    "expires": [GRANT.expires + 1, 2**62, None, "never"],
    "network": [None, "0.0.0.0/0"],
    "downloads": [None, 4, -1],
    "octets": [None, 10**15],
}


def test_each_field_is_signed() -> None:
    link_id, payload, signature = TOKEN.split(".")
    fields: list[Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert len(fields) == len(FORGED)
    for number, values in enumerate(FORGED.values()):
        for value in values:
            forged = [*fields[:number], value, *fields[number + 1 :]]
            text = base64.urlsafe_b64encode(json.dumps(forged, separators=(",", ":")).encode()).decode().rstrip("=")
            assert SIGNER.read(f"{link_id}.{text}.{signature}", ADDRESS) is None
    for other in ("aaaaaaaaaaaa-cccccccccccc", "cccccccccccc-bbbbbbbbbbbb"):
        assert SIGNER.read(f"{other}.{payload}.{signature}", ADDRESS) is None


def test_a_signature_of_another_link_key_or_secret_is_none_of_ours() -> None:
    other_key = SIGNER.sign(dataclasses.replace(GRANT, link_id="cccccccccccc-bbbbbbbbbbbb"), ADDRESS)
    other_secret = Signer(b"t" * 32).sign(GRANT, ADDRESS)
    link_id, payload, _ = TOKEN.split(".")
    for token in (other_key, other_secret):
        assert SIGNER.read(f"{link_id}.{payload}.{token.split('.')[2]}", ADDRESS) is None
    assert SIGNER.read(other_secret, ADDRESS) is None


def test_a_version_that_is_not_known_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signed_links, "_VERSION", 2)
    later = SIGNER.sign(GRANT, ADDRESS)
    assert SIGNER.read(later, ADDRESS) == GRANT
    monkeypatch.undo()
    assert SIGNER.read(later, ADDRESS) is None


def test_what_is_too_long_is_not_looked_at() -> None:
    long = dataclasses.replace(GRANT, groups=("x" * signed_links.LONGEST_TOKEN,))
    assert SIGNER.read(SIGNER.sign(long, ADDRESS), ADDRESS) is None


def test_the_secret_is_not_shown() -> None:
    assert "ssss" not in repr(SIGNER)

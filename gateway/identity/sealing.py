"""Texts that a browser keeps for us, and can neither read nor change."""

from __future__ import annotations

import base64
import binascii
import json
import os
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_NONCE_BYTES = 12
LONGEST = 4096
"""Characters: browsers keep no longer cookie."""


class Seal:
    """Seals values for one purpose with AES-256-GCM, by a key that is made of a secret (HKDF, RFC 5869)."""

    def __init__(self, secret: bytes, purpose: str, clock: Callable[[], float]) -> None:
        """Seal with ``secret``; what is sealed for one ``purpose`` opens for no other.

        Args:
            secret: random, at least 32 bytes.
            purpose: a name.
            clock: gives seconds since the epoch.
        """
        key = HKDF(SHA256(), length=32, salt=None, info=f"download-gateway {purpose}".encode()).derive(secret)
        self._cipher = AESGCM(key)
        self._clock = clock

    def close(self, value: Mapping[str, object], seconds: float) -> str:
        """``value`` as text of base64url, which opens for so many ``seconds``."""
        plain = zlib.compress(json.dumps([self._clock() + seconds, value], separators=(",", ":")).encode())
        nonce = os.urandom(_NONCE_BYTES)
        return base64.urlsafe_b64encode(nonce + self._cipher.encrypt(nonce, plain, None)).rstrip(b"=").decode()

    def open(self, text: str) -> Mapping[str, Any] | None:
        """What was sealed; None if it was not sealed here, was changed, or is too old."""
        if len(text) > LONGEST or not text.isascii():
            return None
        try:
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            plain = self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], None)
        except (binascii.Error, ValueError, InvalidTag):
            return None
        until, value = json.loads(zlib.decompress(plain))
        return value if self._clock() < until else None

"""Order tokens: they open the files of one order without a credential, as its owner.

A token is ``<order id>.<generation>.<signature>``. The signature is an HMAC-SHA-256 over tenant, order and generation;
its key is derived from the secret of ``[orders]`` (HKDF, RFC 5869). Nothing but the generation is stored: a token ends
with its order, and with the next generation.
"""

from __future__ import annotations

import base64
import dataclasses
import hmac
import json
import re

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_FORM = re.compile(r"([1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.([0-9A-Za-z_-]{43})", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True)
class Shown:
    """What a token says, whether it is true or not."""

    order_id: int
    generation: int


class OrderTokens:
    """Makes and checks tokens. Nothing else knows the secret."""

    def __init__(self, secret: bytes) -> None:
        self._key = HKDF(SHA256(), 32, salt=None, info=b"download-gateway order").derive(secret)

    def make(self, tenant: str, order_id: int, generation: int) -> str:
        """The token of an order."""
        signed = json.dumps([tenant, order_id, generation]).encode()
        signature = base64.urlsafe_b64encode(hmac.digest(self._key, signed, "sha256")).rstrip(b"=").decode()
        return f"{order_id}.{generation}.{signature}"

    def holds(self, token: str, tenant: str, order_id: int, generation: int) -> bool:
        """Whether ``token`` is that of an order."""
        return hmac.compare_digest(self.make(tenant, order_id, generation).encode(), token.encode("utf-8", "replace"))

    @staticmethod
    def read(token: str) -> Shown | None:
        """What order a token speaks of; None if it is none. It must still be checked."""
        form = _FORM.fullmatch(token)
        return Shown(int(form[1]), int(form[2])) if form else None

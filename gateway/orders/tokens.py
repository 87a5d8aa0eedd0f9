"""Order tokens: they open the files of one order without a credential, as its owner.

A token is ``<order id>.<generation>.<signature>``. The signature is an HMAC-SHA-256 over order and generation; its key
is derived from the secret of ``[orders]`` (HKDF, RFC 5869). Nothing but the generation is stored: a token ends with its
order, and with the next generation.
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


def without_tokens(text: str) -> str:
    """What others say, who may have been shown a token, for those who may not."""
    return _FORM.sub("[order token]", text)


@dataclasses.dataclass(frozen=True, slots=True)
class OrderToken:
    """What a token that was made here says. Whether its order still has this generation, the database knows."""

    order_id: int
    generation: int


class OrderTokens:
    """Makes and checks tokens. Nothing else knows the secret."""

    def __init__(self, secret: bytes) -> None:
        self._key = HKDF(SHA256(), 32, salt=None, info=b"download-gateway order").derive(secret)

    def make(self, order_id: int, generation: int) -> str:
        """The token of an order."""
        signature = hmac.digest(self._key, json.dumps([order_id, generation]).encode(), "sha256")
        return f"{order_id}.{generation}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"

    def read(self, token: str) -> OrderToken | None:
        """What ``token`` says; None if it was not made here."""
        form = _FORM.fullmatch(token)
        if form is None:
            return None
        order_id, generation = int(form[1]), int(form[2])
        made = self.make(order_id, generation)
        return OrderToken(order_id, generation) if hmac.compare_digest(made, token) else None

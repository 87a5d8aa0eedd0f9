"""Secrets of the tests that nobody may see: what is logged or answered in the whole run is searched for them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

MOST = 2000
"""Tokens that are looked for: the latest ones."""


class Canaries(logging.Handler):
    """Hears every record of every logger, and is shown answers."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self._secrets: dict[str, str] = {}
        self.leaks: list[str] = []

    def hide(self, name: str, secret: str) -> None:
        """``secret``, called ``name`` in complaints, must not be seen from now on."""
        while len(self._secrets) >= MOST:
            del self._secrets[next(one for one in self._secrets if one.startswith("token"))]
        self._secrets[name] = secret

    def emit(self, record: logging.LogRecord) -> None:
        """Search a record with its traceback."""
        self.search(f"log of {record.name}", self.format(record))

    def search(self, where: str, text: str) -> None:
        """Search a text that others see."""
        self.leaks += [f"{name} in {where}: {text[:300]}" for name, secret in self._secrets.items() if secret in text]

    def search_answer(self, where: str, headers: Mapping[str, str], body: bytes) -> None:
        """Search an answer; a body of 100,000 bytes or more is a file."""
        shown = "\n".join(f"{name}: {value}" for name, value in headers.items())
        self.search(f"answer to {where}", shown + (body.decode("latin-1") if len(body) < 100_000 else ""))


CANARIES = Canaries()
